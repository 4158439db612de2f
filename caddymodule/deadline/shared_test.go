package deadline_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/deadline"
)

const shared = 32 * time.Millisecond // so that 1ms of it is shared

// parents are contexts that end later than what is shared, or not at all.
var parents = map[string]func() context.Context{
	"Background":       context.Background,
	"a longer Context": func() context.Context { return deadline.New(context.Background(), time.Hour) },
	"one made of a Context": func() context.Context {
		return deadline.New(deadline.New(context.Background(), time.Hour), time.Minute)
	},
	"one without its cancel": func() context.Context { return context.WithoutCancel(context.Background()) },
}

func TestOfWhatIsSharedEachHasTheTimeoutAndAThirtySecondMoreAtTheMost(t *testing.T) {
	for name, parent := range parents {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := deadline.NewShared(shared)
				var waiting sync.WaitGroup
				defer waiting.Wait()
				for range 100 {
					began := time.Now()
					ctx, done := s.Within(parent())
					waiting.Go(func() {
						defer done()
						<-ctx.Done()
						if took := time.Since(began); took < shared || took > shared+shared/32 {
							t.Errorf("it ended after %v", took)
						}
						if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
							t.Errorf("it ended with %v", ctx.Err())
						}
					})
					time.Sleep(shared / 100)
				}
			})
		})
	}
}

func TestThoseWhoBeginTogetherShareAContextAndNobodyEndsItForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deadline.NewShared(shared)
		first, done := s.Within(context.Background())
		done()
		if first.Err() != nil {
			t.Error("it has ended")
		}
		if second, _ := s.Within(context.Background()); second != first {
			t.Error("the second has one of its own")
		}
		time.Sleep(shared / 32)
		if third, _ := s.Within(context.Background()); third == first {
			t.Error("the third shares one that is too old")
		}
	})
}

func TestWhatEndsEarlierIsNotShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := deadline.NewShared(shared)
		canceled, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "of mine"))
		ctx, done := s.Within(canceled)
		defer done()
		if ctx.Value(key{}) != "of mine" {
			t.Error("it has lost its values")
		}
		cancel()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("after its cancellation: %v", ctx.Err())
		}

		for _, short := range []time.Duration{time.Millisecond, shared} {
			parent := deadline.New(context.Background(), short)
			defer parent.Cancel()
			began := time.Now()
			ctx, done := s.Within(parent)
			<-ctx.Done()
			done()
			if took := time.Since(began); took != short {
				t.Errorf("with %v left, it ended after %v", short, took)
			}
		}

		long, done := s.Within(t.Context())
		defer done()
		began := time.Now()
		<-long.Done()
		if took := time.Since(began); took != shared {
			t.Errorf("one of its own ended after %v", took)
		}
	})
}
