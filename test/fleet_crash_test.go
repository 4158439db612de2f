package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func TestFleetACallOfAKilledSidecarIsUnknownAndNeverRunAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), shortLease))
	call := newCall(execute, "k", "slow=1h; times=1")
	fleet[0].abandon(t, call)
	waiting := fleet[1].begin(t, call)
	fleet[0].kill(t)
	first := waiting()
	wantUnknown(t, first)
	for range 2 {
		if a := fleet[1].send(t, call); a.body != first.body || !a.replayed() {
			t.Errorf("first %+v, then %+v", first, a)
		}
	}
	fleet[0].start(t)
	if a := fleet[0].send(t, call); a.body != first.body {
		t.Errorf("started anew, it says %+v, the other said %+v", a, first)
	}
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got it %d times", n)
	}
	p.wantEffects(t, 1)
}

func TestFleetACallOfAKilledSidecarIsFinishedWhereKeysAreHonored(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), shortLease))
	call := newCall(invoke, "k", "slow=1h; times=1")
	fleet[0].abandon(t, call)
	waiting := fleet[1].begin(t, call)
	fleet[0].kill(t)
	finished := waiting()
	if finished.status != 200 {
		t.Errorf("got %+v", finished)
	}
	wantReplay(t, fleet[1].send(t, call), finished)
	for _, a := range p.Ledger(sandbox.Filter{}).Attempts {
		if a.Key != "k" {
			t.Errorf("it was sent under the key %q", a.Key)
		}
	}
	p.wantEffects(t, 1)
}

// A sidecar that stands still is not told from one that is dead. What it says
// later is no guess.
func TestFleetAPausedSidecarsLateAnswerIsReplayed(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), shortLease))
	call := newCall(execute, "k", "slow=300ms")
	late := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	fleet[0].pause(t)
	wantUnknown(t, fleet[1].send(t, call)) // the lease is over
	fleet[0].resume(t)
	first := late()
	wantReplay(t, fleet[1].send(t, call), first)
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got it %d times", n)
	}
}

func TestFleetAPausedSidecarsCallIsTakenOverWhereKeysAreHonored(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), shortLease))
	call := newCall(invoke, "k", "slow=300ms; times=1")
	late := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	fleet[0].pause(t)
	taken := fleet[1].send(t, call)
	fleet[0].resume(t)
	if a := late(); taken.status != 200 || a.status != 200 || a.body != taken.body {
		t.Errorf("one got %+v, the other %+v", taken, a)
	}
	wantReplay(t, fleet[0].send(t, call), taken)
	wantReplay(t, fleet[1].send(t, call), taken)
	p.wantEffects(t, 1)
}

// pauseAt has s, which is connected to Redis through proxy, paused at the moment
// at which the next change of a record is on its way to Redis, so that s does
// not see the reply before it is resumed.
func (s *sidecar) pauseAt(t *testing.T, proxy *redistest.Proxy) {
	t.Helper()
	s.resumeAtEnd(t)
	var once sync.Once
	proxy.LoseReply(func(request []byte) bool {
		if changesRecord(request) {
			once.Do(func() {
				if err := s.stopHere(); err != nil {
					t.Error(err)
				}
			})
		}
		return false // nothing is lost
	})
}

// changesRecord tells whether a request to Redis changes a record. The first
// that does so for a key is its claim.
func changesRecord(request []byte) bool {
	return bytes.Contains(request, []byte("EVAL")) && bytes.Contains(request, []byte("genesys-sidecar:r:"))
}

func TestFleetASidecarThatIsPausedBetweenClaimAndSend(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		t.Run(path[8:12], func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, sandbox.Config{})
			r := newRedis(t)
			proxy := redistest.NewProxy(t, r.Addr())
			a := newSidecar(t, p, options{global: onRedis(proxy.URL(), shortLease)})
			b := newSidecar(t, p, options{global: onRedis(r.URL(), shortLease)})
			for _, s := range []*sidecar{a, b} { // it has its token and Redis its scripts
				s.send(t, newCall(path, fmt.Sprint("before-", s.address), ""))
			}
			p.control(t, "DELETE", "/ledger", "")

			call := newCall(path, "k", "")
			a.pauseAt(t, proxy)
			late := a.begin(t, call)
			waitFor(t, func() bool {
				keys, err := r.Do("KEYS", "genesys-sidecar:r:*")
				must(t, err)
				return len(keys.([]any)) == 3
			})
			if n := p.Summary().Attempts; n != 0 {
				t.Fatalf("it was sent already: %d", n)
			}
			meanwhile := b.send(t, call)
			switch path {
			case execute:
				wantUnknown(t, meanwhile)
				if n := p.Summary().Attempts; n != 0 {
					t.Errorf("it was sent %d times meanwhile", n)
				}
			case invoke:
				if meanwhile.status != 200 {
					t.Errorf("it was not taken over: %+v", meanwhile)
				}
			}
			a.resume(t)
			first := late()
			if path == invoke && first.body != meanwhile.body {
				t.Errorf("one got %+v, the other %+v", first, meanwhile)
			}
			wantReplay(t, b.send(t, call), first)
			p.wantEffects(t, 1)
		})
	}
}

func TestFleetNoKeyRunsTwiceWhileASidecarIsPausedAgainAndAgain(t *testing.T) {
	t.Parallel()
	const pauses = 6
	for _, path := range []string{execute, invoke} {
		t.Run(path[8:12], func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, sandbox.Config{Latency: 10 * time.Millisecond})
			fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL(), "lease 500ms"))
			stop := make(chan struct{})
			keys := make([]int, 4) // of each worker
			var wg sync.WaitGroup
			for w := range keys {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						call := newCall(path, fmt.Sprintf("%d-%d", w, keys[w]), "")
						keys[w]++
						var both sync.WaitGroup
						for _, s := range fleet {
							both.Go(func() {
								time.Sleep(rand.N(20 * time.Millisecond)) // the test's schedule
								s.send(t, call)
							})
						}
						both.Wait()
					}
				})
			}
			for range pauses {
				time.Sleep(rand.N(200 * time.Millisecond))
				fleet[0].pause(t)
				time.Sleep(800 * time.Millisecond) // longer than the lease
				fleet[0].resume(t)
			}
			close(stop)
			wg.Wait()

			ran := make(map[string]int)
			for _, e := range p.Ledger(sandbox.Filter{}).Effects {
				ran[e.Key]++
			}
			for w := range keys {
				for n := range keys[w] {
					key := fmt.Sprintf("%d-%d", w, n)
					call := newCall(path, key, "")
					if ran[key] != 1 {
						t.Errorf("%s ran %d times", key, ran[key])
					}
					wantReplay(t, fleet[1].send(t, call), fleet[0].send(t, call))
				}
			}
			t.Logf("%d pauses, %d keys", pauses, len(ran))
		})
	}
}
