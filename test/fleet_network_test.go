package test

import (
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func TestFleetAReloadThatChangesTheStoresOptionsKeepsTheCallsUnderWay(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	s := newSidecar(t, p, options{global: onRedis(r.URL())})
	call := newCall(execute, "k", "slow=3s")
	first := s.begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	s.configure(t, options{global: onRedis(r.URL(), "command_timeout 3s")})
	s.reload(t)
	again := s.send(t, call)
	wantReplay(t, again, first())
	if cs := again.header.Get("Cache-Status"); cs != "genesys; fwd=miss; collapsed" {
		t.Errorf("it did not wait: %s", cs)
	}
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got it %d times", n)
	}
}

// Whoever waits with the old options is answered, and what its caller left
// behind there is adopted under the new ones.
func TestFleetAReloadThatChangesTheStoresOptionsKeepsOrphans(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	s := newSidecar(t, p, options{global: onRedis(r.URL())})
	call := newCall(execute, "", "slow=2s")
	s.orphan(t, call)
	s.configure(t, options{global: onRedis(r.URL(), "command_timeout 3s")})
	s.reload(t)
	if a := s.send(t, call); a.status != 200 || !a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

// Redis did what it was asked for, or never heard of it: the sidecar cannot tell.
func TestRedisIsAskedAgainWhereAReplyIsLost(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"the claim's reply", "the claim", "the answer's reply", "the answer"} {
		for _, path := range []string{execute, invoke} {
			t.Run(path[8:12]+", "+what, func(t *testing.T) {
				t.Parallel()
				p := newPlatform(t, sandbox.Config{})
				r := newRedis(t)
				proxy := redistest.NewProxy(t, r.Addr())
				a := newSidecar(t, p, options{global: onRedis(proxy.URL())})
				b := newSidecar(t, p, options{global: onRedis(r.URL())})
				a.send(t, newCall(path, "before", "")) // it has its token, and Redis its scripts
				lose := proxy.LoseRequest
				if strings.HasSuffix(what, "reply") {
					lose = proxy.LoseReply
				}
				var lost <-chan struct{}
				call := newCall(path, "k", "slow=300ms")
				var answered func() answer
				if strings.HasPrefix(what, "the claim") {
					lost = lose(changesRecord)
					answered = a.begin(t, call)
				} else {
					answered = a.begin(t, call)
					waitFor(t, func() bool { return p.Summary().Effects == 2 })
					lost = lose(changesRecord)
				}
				first := answered()
				<-lost
				if first.status != 200 || first.header.Get("Cache-Status") != "genesys; fwd=miss; stored" {
					t.Errorf("got %+v", first)
				}
				wantReplay(t, b.send(t, call), first)
				if n := p.Summary().Attempts; n != 2 {
					t.Errorf("the upstream got %d attempts", n)
				}
			})
		}
	}
}

// While nobody can show a sign of life, nobody can be missed.
func TestFleetThatWasCutOffFromRedisTakesNobodyForDead(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	proxy := redistest.NewProxy(t, r.Addr())
	timeouts := []string{shortLease, "command_timeout 300ms", "connect_timeout 300ms"}
	fleet := newFleet(t, p, 2, onRedis(proxy.URL(), timeouts...))
	call := newCall(execute, "k", "slow=4s")
	first := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	proxy.Freeze()
	wantRefused(t, fleet[1].send(t, newCall(execute, "l", "")))
	time.Sleep(1500 * time.Millisecond) // longer than the lease
	proxy.Thaw()
	wantReplay(t, fleet[1].served(t, call), first())
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got it %d times", n)
	}
}
