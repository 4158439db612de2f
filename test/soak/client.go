package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// client makes one logical call after the other, and goes back to old ones.
type client struct {
	*soak
	number int
	random *rand.Rand
}

// pace lets so many requests through in a second, one after the other.
type pace struct {
	gap time.Duration

	mu   sync.Mutex
	next time.Time // guarded by mu
}

func (p *pace) wait(ctx context.Context) bool {
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	until := p.next
	p.next = p.next.Add(p.gap)
	p.mu.Unlock()
	return sleep(ctx, until.Sub(now))
}

// past has the calls whose key is known and that an answer was told to.
type past struct {
	mu    sync.Mutex
	calls []keyed // guarded by mu
}

// keyed is a call, and a key under which it can be asked for.
type keyed struct {
	*call
	key string
}

func (p *past) add(c *call, key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, keyed{c, key})
}

func (p *past) draw(r *rand.Rand) (keyed, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) == 0 {
		return keyed{}, false
	}
	if n := len(p.calls); r.IntN(2) == 0 { // one of the latest
		return p.calls[n-1-r.IntN(min(n, 50))], true
	}
	return p.calls[r.IntN(len(p.calls))], true
}

// run makes calls until ctx ends.
func (c *client) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		switch what := c.random.IntN(100); {
		case what < 35:
			c.goBack(ctx)
		case what < 50:
			c.makeKeyless(ctx, newCall(c.random, c.name(n), true))
		default:
			c.makeKeyed(ctx, newCall(c.random, c.name(n), false))
		}
	}
}

func (c *client) name(n int) string { return fmt.Sprintf("soak-%d-%d", c.number, n) }

func (c *client) anySidecar() int { return c.random.IntN(len(c.fleet)) }

// goBack asks again for a call of the past.
func (c *client) goBack(ctx context.Context) {
	k, ok := c.past.draw(c.random)
	if !ok {
		sleep(ctx, 10*time.Millisecond)
		return
	}
	for range 5 {
		if !c.pace.wait(ctx) {
			return
		}
		s := c.send(k.call, k.key, c.anySidecar(), whole)
		c.see(k.call, s)
		if s.kind > refused || !sleep(ctx, c.pause()) {
			return
		}
	}
}

// pause is how long a client waits before it repeats a call.
func (c *client) pause() time.Duration { return 20*time.Millisecond + rand.N(400*time.Millisecond) }

// see counts a sighting and has it checked.
func (s *soak) see(c *call, seen *sighting) {
	s.count.requests.Add(1)
	switch seen.kind {
	case none:
		s.count.lost.Add(1)
	case refused:
		s.count.refused.Add(1)
		if seen.status == http.StatusServiceUnavailable {
			s.count.unavailable.Add(1)
		}
	case freed:
		s.count.freed.Add(1)
	case unknown:
		s.count.unknown.Add(1)
	case known:
		if !strings.HasPrefix(seen.cacheStatus, "genesys; fwd=miss") || strings.Contains(seen.cacheStatus, "collapsed") {
			s.count.replayed.Add(1)
		}
	}
	s.checker.saw(c, seen)
}
