package test

import (
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// most returns how many attempts came to the platform in any period of length
// window. Its own limit counts per token, of which each sidecar has one.
func (p *platform) most(window time.Duration) (n int) {
	attempts := p.Ledger(sandbox.Filter{}).Attempts
	from := 0
	for to, a := range attempts {
		for a.Time.Sub(attempts[from].Time) >= window {
			from++
		}
		n = max(n, to-from+1)
	}
	return n
}

func TestFleetSpendsOneBudgetTogether(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	const calls, limit, window = 600, 300, 10 * time.Second
	fleet := newFleet(t, p, 3, "pace 300 10s\n\t\t"+onRedis(newRedis(t).URL()))
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			if a, err := fleet[i%len(fleet)].try(t.Context(), keyed(i)); err != nil || a.status != 200 {
				t.Errorf("call %d: %+v, %v", i, a, err)
			}
		})
	}
	wg.Wait()
	p.wantEffects(t, calls)
	most := p.most(window)
	t.Logf("at most %d requests in %v", most, window)
	// Where a sidecar, or the platform here, is not let run for a moment, what it
	// was granted comes at once with what is granted next. That is counted in time,
	// and so is the less in calls the longer the window is. Each for itself, the
	// sidecars would send three times the limit.
	if most > limit+limit/10 {
		t.Errorf("%d requests came within %v, and %d may", most, window, limit)
	}
}

func TestFleetASidecarKeepsToItsShareWhileRedisDoesNotAnswer(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	redis := newRedis(t)
	fleet := newFleet(t, p, 2, "pace 100 1h {\n\t\t\tburst 100\n\t\t\tshare 3\n\t\t}\n\t\t"+onRedis(redis.URL()))
	get := request{method: "GET", path: "/api/v2/users/me"} // needs no store
	for _, s := range fleet {
		if a := s.send(t, get); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	must(t, redis.Kill())
	for _, s := range fleet {
		served := 0
		for range 20 {
			if a := s.send(t, get); a.status == 200 {
				served++
			} else {
				wantRateLimited(t, a, 1)
			}
		}
		if served == 0 || served > 4 { // its share, and one whose asking was cut off
			t.Errorf("%d were served by a share of 3", served)
		}
	}
}
