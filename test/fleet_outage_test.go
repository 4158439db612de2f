package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestRedisIsGoneBeforeACall(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	first := fleet[0].send(t, newCall(execute, "before", ""))
	must(t, r.Kill())
	for _, call := range []request{newCall(execute, "k", ""), newCall(invoke, "l", ""), newCall(execute, "", "")} {
		wantRefused(t, fleet[0].send(t, call))
		wantRefused(t, fleet[1].send(t, call))
	}
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got %d attempts", n)
	}
	// What is in memory needs no store.
	wantReplay(t, fleet[0].send(t, newCall(execute, "before", "")), first)

	must(t, r.Restart())
	for i, s := range fleet {
		wantReplay(t, s.served(t, newCall(execute, "before", "")), first)
		if a := s.served(t, newCall(execute, fmt.Sprint("after", i), "")); a.status != 200 || a.replayed() {
			t.Errorf("got %+v", a)
		}
	}
	// It was refused, and is free.
	if a := fleet[1].served(t, newCall(execute, "k", "")); a.status != 200 || a.replayed() {
		t.Errorf("what was refused got %+v", a)
	}
	p.wantEffects(t, 4)
}

func TestRedisIsKilledDuringACall(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		t.Run(path[8:12], func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, sandbox.Config{})
			r := newRedis(t)
			fleet := newFleet(t, p, 2, onRedis(r.URL()))
			call := newCall(path, "k", "slow=500ms")
			answered := fleet[0].begin(t, call)
			waitFor(t, func() bool { return p.Summary().Effects == 1 })
			must(t, r.Kill())
			first := answered()
			if first.status != 200 || first.header.Get("Cache-Status") != "genesys; fwd=miss" {
				t.Errorf("got %+v", first)
			}
			wantReplay(t, fleet[0].send(t, call), first)
			wantRefused(t, fleet[1].send(t, call))
			must(t, r.Restart())
			wantReplay(t, fleet[1].served(t, call), first)
			if n := p.Summary().Attempts; n != 1 {
				t.Errorf("the upstream got it %d times", n)
			}
		})
	}
}

func TestRedisIsKilledAfterACall(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	call := newCall(execute, "k", "")
	first := fleet[0].send(t, call)
	must(t, r.Kill())
	must(t, r.Restart())
	wantReplay(t, fleet[1].served(t, call), first)
	p.wantEffects(t, 1)
}

// Each caller repeats its call at either sidecar until it is not refused.
func TestRedisIsKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	const kills = 5
	p := newPlatform(t, sandbox.Config{Latency: 5 * time.Millisecond})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	var mu sync.Mutex
	told := make(map[string]answer) // by key; guarded by mu
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("%d-%d", w, n)
				for i := w; ; i++ {
					a := fleet[i%2].send(t, newCall(execute, key, ""))
					if !refused(a) {
						mu.Lock()
						told[key] = a
						mu.Unlock()
						break
					}
					time.Sleep(10 * time.Millisecond) // a patient caller would wait for Retry-After
				}
			}
		})
	}
	for range kills {
		time.Sleep(300 * time.Millisecond) // the test's schedule, not a wait for anything
		must(t, r.Kill())
		must(t, r.Restart())
	}
	cancel()
	wg.Wait()

	ran := make(map[string]int)
	for _, e := range p.Ledger(sandbox.Filter{}).Effects {
		ran[e.Key]++
	}
	for key, first := range told {
		if ran[key] != 1 {
			t.Errorf("%s ran %d times", key, ran[key])
		}
		for _, s := range fleet {
			wantReplay(t, s.served(t, newCall(execute, key, "")), first)
		}
	}
	t.Logf("%d kills, %d keys", kills, len(told))
}

func TestRedisIsPausedBeforeACall(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL(), "command_timeout 300ms", "connect_timeout 300ms"))
	for _, s := range fleet { // it has its token, so that a call is a claim and nothing else
		s.send(t, newCall(execute, "before-"+s.address, ""))
	}
	must(t, r.Pause())
	keys := []string{"k0", "k1", "k2", "k3"}
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() { wantRefused(t, fleet[i%2].send(t, newCall(execute, key, ""))) })
	}
	wg.Wait()
	wantRefused(t, fleet[0].send(t, newCall(execute, "", "")))
	if n := p.Summary().Attempts; n != 2 {
		t.Errorf("the upstream got %d attempts", n)
	}
	must(t, r.Resume())
	// Their claims may have arrived all the same, but are not left behind.
	for i, key := range keys {
		if a := fleet[(i+1)%2].served(t, newCall(execute, key, "")); a.status != 200 || a.replayed() {
			t.Errorf("%s got %+v", key, a)
		}
	}
	p.wantEffects(t, 2+len(keys))
}

func TestRedisIsPausedDuringACall(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL(), "command_timeout 300ms", "connect_timeout 300ms"))
	call := newCall(execute, "k", "slow=300ms")
	answered := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	must(t, r.Pause())
	first := answered()
	must(t, r.Resume())
	wantReplay(t, fleet[1].served(t, call), first)
	p.wantEffects(t, 1)
}

func TestRedisComesAfterTheSidecar(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	must(t, r.Kill())
	s := newSidecar(t, p, options{global: onRedis(r.URL())})
	wantRefused(t, s.send(t, keyed(1)))
	if log := s.log(t); !strings.Contains(log, "redis does not answer") || !strings.Contains(log, "connection refused") {
		t.Errorf("the log says %s", log)
	}
	must(t, r.Restart())
	if a := s.served(t, keyed(1)); a.status != 200 || a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}
