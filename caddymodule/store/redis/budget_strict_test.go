package redis

import (
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/pacing"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// By the server's own clock, and its own numbers.
func TestNoWindowHasMoreStartsThanTheBudgetWhoeverTakesThem(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	for _, window := range []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second} {
		limits := pacing.Limits{Starts: 30, Window: window}
		var mu sync.Mutex
		var starts []int64
		var wg sync.WaitGroup
		end := time.Now().Add(2500 * time.Millisecond)
		for range 3 {
			s := openOne(t, server)
			for range 4 {
				wg.Go(func() {
					for time.Now().Before(end) {
						g, at, err := s.take(t.Context(), window.String(), limits, pacing.Ask{Want: 7})
						if err != nil {
							t.Error(err)
							return
						}
						mu.Lock()
						for range g.Starts {
							starts = append(starts, at)
						}
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
		if n := most(starts, window); n > limits.Starts || n < limits.Starts/2 {
			t.Errorf("%d starts in a window of %v, of %d", n, window, limits.Starts)
		}
		t.Logf("%d starts in windows of %v", len(starts), window)
	}
}
