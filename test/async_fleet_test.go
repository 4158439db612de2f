package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestFleetACallIsAskedForAndCancelledAnywhere(t *testing.T) {
	t.Parallel()
	w := newWard(t, sandbox.Config{})
	fleet := newFleet(t, w.platform, 3, onRedis(newRedis(t).URL()))
	running := fleet[0].block(t, w)
	var locations []string
	for i, s := range fleet {
		locations = append(locations, s.handOver(t, keyed(i)))
	}
	for i, s := range fleet {
		for _, location := range locations {
			if a := s.asks(t, location); a.status != 202 || a.state() != "queued" {
				t.Errorf("sidecar %d tells %+v", i, a)
			}
		}
		if a := s.asks(t, running); a.state() != "running" {
			t.Errorf("sidecar %d tells of what is under way %+v", i, a)
		}
		wantProblem(t, s.cancel(t, running), 409, "call.started")
		mismatch := keyed((i + 1) % 3)
		mismatch.body = `{"another":1}`
		wantProblem(t, s.send(t, mismatch), 422, "key.reused")
		if again := s.handOver(t, keyed((i+1)%3)); again != locations[(i+1)%3] {
			t.Errorf("elsewhere it is at %s, first it was at %s", again, locations[(i+1)%3])
		}
	}
	wantStatus(t, fleet[1].cancel(t, locations[0]), 204)
	for _, s := range fleet {
		wantProblem(t, s.asks(t, locations[0]), 410, "call.released")
	}
	patient := fleet[2].begin(t, request{method: http.MethodGet, path: locations[1], header: []string{"Prefer", "wait=50"}})
	synchronous := fleet[0].begin(t, keyed(1))
	w.letIn()
	first := patient()
	wantReplay(t, synchronous(), first)
	for _, s := range fleet {
		wantReplay(t, s.outcome(t, locations[1]), first)
		wantStatus(t, s.outcome(t, locations[2]), 200)
	}
	w.wantEffects(t, 3)
	wantStatus(t, fleet[2].send(t, keyed(0)), 200)
	w.wantEffects(t, 4)
}

func TestFleetWhatADeadSidecarHadQueuedIsRunByAnother(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		t.Run(path[8:12], func(t *testing.T) {
			t.Parallel()
			w := newWard(t, sandbox.Config{})
			r := newRedis(t)
			store := onRedis(r.URL(), shortLease)
			dies := newSidecar(t, w.platform, options{global: store})
			running := newCall(path, "running", "").with(hold...)
			location := dies.handOver(t, running)
			waitFor(t, w.waits(1))
			queued := dies.handOver(t, newCall(path, "queued", ""))
			lives := newSidecar(t, w.platform, options{global: store})
			dies.kill(t)
			w.letIn()
			waitFor(t, func() bool { return w.Summary().Effects > 0 })
			a := lives.outcome(t, location)
			if path == execute {
				wantUnknown(t, a)
			} else {
				wantStatus(t, a, 200)
			}
			wantStatus(t, lives.outcome(t, queued), 200)
			w.wantEffects(t, 2)
			dies.start(t)
			if again := dies.asks(t, location); again.status != a.status || again.body != a.body {
				t.Errorf("started anew, it says %+v, the other said %+v", again, a)
			}
		})
	}
}

// A sidecar that stands still for longer than its lease has its calls taken over,
// and finds out when it goes on.
func TestFleetABacklogIsDrainedByThreeThatAreKilledAndPausedAllTheTime(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		for _, scopes := range []int{1, 25} {
			upstream := map[string]string{execute: "ignores keys", invoke: "honors keys"}[path]
			t.Run(fmt.Sprintf("%s/%d scopes", upstream, scopes), func(t *testing.T) {
				// Long enough for a kill to find calls that the platform is at.
				p := newPlatform(t, sandbox.Config{Latency: 10 * time.Millisecond})
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
				r := newRedis(t)
				var fleet []*sidecar
				for range 3 {
					fleet = append(fleet, newSidecar(t, p, options{global: onRedis(r.URL(), shortLease), block: drainBlock}))
				}
				d := newDrain(t, p, path, scopes, *drainCalls, fleet...)

				began := time.Now()
				var enqueuers sync.WaitGroup
				enqueuers.Go(d.handOver)
				waitLong(t, func() bool { return d.accepted.Load() >= int64(*drainCalls/3) })
				d.kill(fleet[0])
				waitLong(t, func() bool { return d.accepted.Load() >= int64(2**drainCalls/3) })
				d.halt(fleet[1], 1500*time.Millisecond)
				enqueuers.Wait()
				if n := p.Summary().Attempts; n != 0 {
					t.Errorf("%d calls were sent without a token", n)
				}
				t.Logf("handed over in %v", time.Since(began).Round(time.Millisecond))

				began = time.Now()
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
				for i := range *drainKills {
					waitLong(t, func() bool { return d.executed() >= (i+1)**drainCalls/(*drainKills+2) })
					if s := fleet[rand.N(3)]; i%2 == 0 {
						d.kill(s)
					} else {
						d.halt(s, 1500*time.Millisecond)
					}
				}
				d.collect()
				t.Logf("drained in %v", time.Since(began).Round(time.Millisecond))
				d.check((*drainKills + 2) * min(scopes, turnsAtATime))
				d.checkQuiet()
			})
		}
	}
}
