package test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// limit has the sandbox refuse what is beyond n requests per window.
func (p *platform) limit(t *testing.T, n int, window string) {
	t.Helper()
	p.control(t, "PUT", "/sandbox/limits", fmt.Sprintf(`{"requests":%d,"window":%q}`, n, window))
}

func wantRateLimited(t *testing.T, a answer, least int) {
	t.Helper()
	after, _ := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != 429 || after < least || !strings.Contains(a.body, `"code":"rate.limited"`) ||
		!strings.Contains(a.body, `"outcome":"not_executed"`) || !strings.Contains(a.body, `"retryable":true`) {
		t.Errorf("got %+v, want that it is rate-limited for %d seconds or more", a, least)
	}
}

func TestABurstOf2000CallsIsPacedAndNobodySeesA429(t *testing.T) {
	// A machine that stands still for a moment bunches what was sent evenly. It
	// does not do so three times in a row, as a fault would.
	const calls, tries = 2000, 3
	for i := range tries {
		excess := burst(t, calls)
		if excess <= calls/100 || t.Failed() {
			return
		}
		t.Logf("%d requests were beyond the sandbox's limit, at try %d", excess, i+1)
	}
	t.Errorf("more than a hundredth of the requests were beyond the sandbox's limit, %d times in a row", tries)
}

// burst makes calls, all at once, against a limit, and returns how many requests
// were beyond it.
func burst(t *testing.T, calls int) (excess int) {
	p := newPlatform(t, sandbox.Config{})
	p.limit(t, 300, "3s")
	s := newSidecar(t, p, options{global: "pace 300 3s\nconcurrency 50"})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			if a, err := s.try(t.Context(), keyed(i)); err != nil || a.status != 200 {
				t.Errorf("call %d: %+v, %v", i, a, err)
			}
		})
	}
	wg.Wait()
	p.wantEffects(t, calls)
	for _, key := range []int{0, calls / 2, calls - 1} {
		if a := s.send(t, keyed(key)); !a.replayed() {
			t.Errorf("the repeat of %d: %+v", key, a)
		}
	}
	return p.Summary().OverLimit
}

// p99 returns what all but a hundredth of the durations are within.
func p99(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)*99/100]
}

// quietCalls makes a call ten times a second, n times in all, and returns how
// long each took.
func quietCalls(t *testing.T, s *sidecar, n int, name string) []time.Duration {
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	ticks := time.NewTicker(100 * time.Millisecond)
	defer ticks.Stop()
	for i := range n {
		<-ticks.C
		wg.Go(func() {
			before := time.Now()
			a := s.send(t, request{path: execute, body: `{}`, header: []string{"X-Caller", "quiet", "Idempotency-Key", fmt.Sprint(name, i)}})
			if a.status != 200 {
				t.Errorf("got %+v", a)
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(before))
		})
	}
	wg.Wait()
	return took
}

func TestANoisyCallerCostsAQuietOneLittle(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Latency: 150 * time.Millisecond})
	p.limit(t, 60, "1s")
	s := newSidecar(t, p, options{global: "pace 60 1s", block: "scope {header.X-Caller}"})
	alone := p99(quietCalls(t, s, 40, "alone"))

	// Ten times as much, and twice as much as there is.
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			<-ticks.C
			wg.Go(func() {
				_, _ = s.try(ctx, request{path: execute, body: `{}`, header: []string{"X-Caller", "noisy", "Idempotency-Key", fmt.Sprint("noisy", i)}})
			})
		}
	})
	beside := p99(quietCalls(t, s, 60, "beside"))
	stop()
	wg.Wait()
	t.Logf("p99 alone %v, beside a noisy one %v", alone, beside)
	if beside > 2*alone {
		t.Errorf("the quiet one's p99 is %v alone and %v beside a noisy one", alone, beside)
	}
}

func TestACallThatCannotStartInTimeIsRefusedAtOnceAndItsKeyIsFree(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 1 1h"})
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	wantRateLimited(t, s.send(t, keyed(2)), 3500)
	if a := s.send(t, keyed(1)); !a.replayed() {
		t.Errorf("a repeat needs no start, but got %+v", a)
	}

	// What was used is remembered, and the key is not.
	s.reload(t)
	wantRateLimited(t, s.send(t, keyed(2)), 3500)
	s.configure(t, options{})
	s.reload(t)
	other := keyed(2)
	other.body = `{"another":"request"}`
	if a := s.send(t, other); a.status != 200 || a.replayed() {
		t.Errorf("with no limit any more: %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestProxiedRequestsAreCountedToo(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 2 1h\nconcurrency 1", block: "deadline 1m"})
	get := request{method: http.MethodGet, path: "/api/v2/users/me"}
	if a := s.send(t, get); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	wantRateLimited(t, s.send(t, keyed(2)), 3500)
	wantRateLimited(t, s.send(t, get), 3500)
	p.wantEffects(t, 1)
}

func TestAWaitingCallStartsWhenAReloadRaisesTheLimit(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 1 100s"})
	s.send(t, keyed(1))
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := s.send(t, keyed(2)); a.status != 200 {
			t.Errorf("got %+v", a)
		}
	})
	time.Sleep(200 * time.Millisecond)
	s.configure(t, options{global: "pace 10 100s"})
	s.reload(t)
	wg.Wait()
	p.wantEffects(t, 2)
}

func TestCallsThatWaitWhileTheProcessEndsStillKeepToTheBudget(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.configure(t, options{global: "pace 1 2s"})
	s.reload(t)
	s.send(t, keyed(1))
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if a := s.send(t, keyed(2+i)); a.status != 200 {
				t.Errorf("got %+v", a)
			}
		})
	}
	waitFor(t, func() bool { return s.budgetStatus(t).Organizations[0].Budget.Waiting == 2 })
	s.stop(t)
	wg.Wait()
	p.wantEffects(t, 3)
	if n := p.most(time.Second); n > 1 {
		t.Errorf("%d calls came within a second, and one may in two", n)
	}
}

func TestACallerThatLeavesWhileItWaitsIsNotSentFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 1 2s"})
	s.send(t, keyed(1))
	began := time.Now()
	s.leave(t, keyed(2), func() bool { return time.Since(began) > 300*time.Millisecond })
	if a := s.send(t, keyed(3)); a.status != 200 {
		t.Errorf("the next one: %+v", a)
	}
	p.wantEffects(t, 2) // the third took the start that the second had waited for
	if a := s.send(t, keyed(2)); a.status != 200 || a.replayed() {
		t.Errorf("the one that had left, once it is back: %+v", a)
	}
	p.wantEffects(t, 3)
}

func TestAPlatformThatHasCountedMoreStopsTheOthersToo(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 100 1s", block: "deadline 30s"})
	limited := keyed(1)
	limited.header = append(limited.header, "Sandbox-Fault", "429=3600; times=1")
	if a := s.send(t, limited); a.status != 429 {
		t.Fatalf("got %+v", a)
	}
	wantRateLimited(t, s.send(t, request{method: http.MethodGet, path: "/api/v2/users/me"}), 3500)
}
