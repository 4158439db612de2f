package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// client makes one logical call after the other, and goes back to old ones.
type client struct {
	*run
	number int
	random *rand.Rand
}

// pace lets so many requests through in a second, one after the other.
type pace struct {
	gap time.Duration // 0: as they come

	mu   sync.Mutex
	next time.Time // guarded by mu
}

func (p *pace) wait(ctx context.Context) bool {
	if p.gap == 0 {
		return ctx.Err() == nil
	}
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

// forget forgets all calls: nobody knows of them any more.
func (p *past) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = nil
}

func (p *past) draw(r *rand.Rand) (keyed, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.calls) == 0 {
		return keyed{}, false
	}
	if n := len(p.calls); r.IntN(4) > 0 { // one of the latest
		return p.calls[n-1-r.IntN(min(n, 50))], true
	}
	return p.calls[r.IntN(len(p.calls))], true
}

// makeCalls makes calls until ctx ends.
func (c *client) makeCalls(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		switch what := c.random.IntN(100); {
		case what < 50:
			c.goBack(ctx)
		case what < 60:
			c.makeKeyless(ctx, c.newCall(n, true))
		case what < 65:
			c.meanTwice(ctx, c.newCall(n, true))
		default:
			c.makeKeyed(ctx, c.newCall(n, false))
		}
	}
}

func (c *client) newCall(n int, keyless bool) *call {
	call := newCall(c.random, c.set.Faults, fmt.Sprintf("history-%d-%d", c.number, n), keyless)
	if c.set.Store == Memory {
		call.home = c.fleet[0].address()
	}
	return call
}

// isOver tells whether no sidecar knows of a call any more.
func (r *run) isOver(c *call) bool { return c.home != "" && c.home != r.fleet[0].address() }

func (c *client) anySidecar() int { return c.random.IntN(len(c.fleet)) }

// goBack asks again for a call of the past.
func (c *client) goBack(ctx context.Context) {
	k, ok := c.past.draw(c.random)
	if !ok {
		sleep(ctx, 10*time.Millisecond)
		return
	}
	var other uint8
	if c.random.IntN(8) == 0 && k.call.key != "" {
		other = 1
	}
	for range 5 {
		if !c.pace.wait(ctx) {
			return
		}
		s := c.send(k.call, k.key, other, c.anySidecar(), whole)
		c.see(k.call, s)
		if s.kind > refused || s.slug == "key-reused" || c.isOver(k.call) || !sleep(ctx, c.pause()) {
			return
		}
	}
}

// pause is how long a client waits before it repeats a call.
func (c *client) pause() time.Duration { return 10*time.Millisecond + rand.N(c.set.Every/5) }

// see counts a sighting and has it checked.
func (s *run) see(c *call, seen *sighting) {
	if seen.unsent() {
		s.count.unsent.Add(1)
		return
	}
	s.count.requests.Add(1)
	switch seen.kind {
	case none:
		s.count.lost.Add(1)
	case refused:
		if seen.slug == "key-reused" {
			s.count.reused.Add(1)
			break
		}
		s.count.refused.Add(1)
		if seen.status == http.StatusServiceUnavailable {
			s.count.unavailable.Add(1)
		}
	case freed:
		s.count.freed.Add(1)
	case unknown:
		s.count.unknown.Add(1)
	case known:
		if !seen.sent() {
			s.count.replayed.Add(1)
		}
	}
	s.checker.saw(c, seen)
}
