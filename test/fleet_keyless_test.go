package test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// orphan makes a keyless call whose caller leaves while it runs.
func (s *sidecar) orphan(t *testing.T, r request) {
	t.Helper()
	waitFor(t, func() bool { return s.ask(t, "GET", "/genesys/ready", "", nil) == http.StatusOK }) // a busy machine's Redis may be late
	before := s.platform.Summary().Effects
	s.leave(t, r, func() bool { return s.platform.Summary().Effects > before })
}

func TestFleetACallWhoseCallerLeftIsAdoptedElsewhereWhileItRuns(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	call := newCall(execute, "", "slow=1s; times=1")
	fleet[0].orphan(t, call)
	a := fleet[1].send(t, call)
	if a.status != 200 || a.header.Get("Cache-Status") != "genesys; fwd=miss; collapsed" {
		t.Errorf("got %+v", a)
	}
	// Under the key that it was told, it is the same call everywhere.
	wantReplay(t, fleet[0].send(t, newCall(execute, a.header.Get("Idempotency-Key"), "")), a)
	p.wantEffects(t, 1)
	// It is no orphan any more.
	if a := fleet[1].send(t, call); a.status != 200 || a.replayed() {
		t.Errorf("the next call got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestFleetACallWhoseCallerLeftIsAdoptedElsewhereAfterItHasEnded(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	call := newCall(execute, "", "slow=500ms")
	fleet[0].orphan(t, call)
	waitFor(t, func() bool { return strings.Contains(fleet[0].log(t), "call sent") })
	if a := fleet[1].send(t, call); a.status != 200 || !a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestFleetACallWhoseCallerWaitsElsewhereIsNotAdopted(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	call := newCall(execute, "", "slow=1s")
	first := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	for _, a := range []answer{fleet[1].send(t, call), first()} {
		if a.status != 200 || a.replayed() {
			t.Errorf("got %+v", a)
		}
	}
	p.wantEffects(t, 2)
}

func TestFleetAnAnsweredCallDoesNotSwallowTheNextElsewhere(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	const calls = 50
	for i := range calls {
		if a := fleet[i%2].send(t, newCall(execute, "", "")); a.status != 200 || a.replayed() {
			t.Fatalf("call %d: %+v", i, a)
		}
	}
	p.wantEffects(t, calls)
}

func TestFleetAKeylessCallOfAKilledSidecarIsAdopted(t *testing.T) {
	t.Parallel()
	for _, left := range []bool{false, true} { // its caller, before the end
		for _, path := range []string{execute, invoke} {
			name := path[8:12]
			if left {
				name += ", its caller had left"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				p := newPlatform(t, sandbox.Config{})
				fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), shortLease))
				call := newCall(path, "", "slow=1h; times=1")
				call.header = append(call.header, "Sandbox-Call", "c")
				if left {
					fleet[0].orphan(t, call)
				} else {
					fleet[0].abandon(t, call)
				}
				fleet[0].kill(t)
				a := fleet[1].send(t, call)
				if !a.replayed() && path == execute {
					t.Errorf("it was not adopted: %+v", a)
				}
				switch path {
				case execute:
					wantUnknown(t, a)
					wantUnknown(t, fleet[1].send(t, call)) // so it is told again
				case invoke:
					if a.status != 200 {
						t.Errorf("it was not finished: %+v", a)
					}
				}
				p.wantEffects(t, 1)
			})
		}
	}
}

func TestFleetAnOrphanIsAdoptedOnce(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 3, onRedis(newRedis(t).URL()))
	call := newCall(execute, "", "slow=1s")
	const rounds = 3
	for range rounds {
		fleet[0].orphan(t, call)
		// One of the two is the retry; the other may as well be meant.
		b, c := fleet[1].begin(t, call), fleet[2].begin(t, call)
		if b, c := b(), c(); b.status != 200 || c.status != 200 || b.replayed() == c.replayed() || b.body == c.body {
			t.Errorf("one got %+v, the other %+v", b, c)
		}
	}
	p.wantEffects(t, 2*rounds)
}

// What is unknown is told again, wherever it is asked for, for the window after
// it was told last.
func TestFleetAnUnknownOutcomeIsToldAgainElsewhere(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	store := onRedis(newRedis(t).URL())
	var fleet []*sidecar
	for range 2 {
		fleet = append(fleet, newSidecar(t, p, options{global: store, block: "key adopt 2s"}))
	}
	call := newCall(execute, "", "execute-then-drop")
	first := fleet[0].send(t, call)
	wantUnknown(t, first)
	for i, start := 0, time.Now(); time.Since(start) < 4*time.Second; i++ {
		a := fleet[i%2].send(t, call)
		if a.body != first.body {
			t.Fatalf("first %+v, then %+v", first, a)
		}
		time.Sleep(500 * time.Millisecond) // an SDK's pause
	}
	p.wantEffects(t, 1)
}
