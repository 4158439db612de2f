package upstream

import (
	"slices"
	"sync"
	"time"
)

// pool has the connections that nobody uses. The one that was used last is used
// next, so that those that are too many grow old.
type pool struct {
	most    int           // how many of one server
	all     int           // how many of all servers; 0: no limit
	timeout time.Duration // how long each

	mu     sync.Mutex
	conns  map[server][]*conn // guarded by mu; the longest idle first
	timer  *time.Timer        // guarded by mu; has old ones closed; nil: there is none
	closed bool               // guarded by mu
}

// take returns a connection that can be used, or nil.
func (p *pool) take(to server) *conn {
	for {
		c := p.pop(to)
		if c == nil || time.Since(c.since) < p.timeout && c.look() {
			return c
		}
		_ = c.Close()
	}
}

func (p *pool) pop(to server) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conns := p.conns[to]
	if len(conns) == 0 {
		return nil
	}
	last := len(conns) - 1
	c := conns[last]
	conns[last] = nil
	p.conns[to] = conns[:last]
	return c
}

// put takes c back.
func (p *pool) put(c *conn) {
	c.used, c.since = true, time.Now()
	if c.SetDeadline(time.Time{}) != nil || !p.push(c) {
		_ = c.Close()
	}
}

func (p *pool) push(c *conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.conns[c.to]) >= p.most || p.all > 0 && p.countLocked() >= p.all {
		return false
	}
	if p.conns == nil {
		p.conns = make(map[server][]*conn)
	}
	p.conns[c.to] = append(p.conns[c.to], c)
	if p.timer == nil {
		p.timer = time.AfterFunc(p.timeout, p.sweep)
	}
	return true
}

func (p *pool) countLocked() (n int) {
	for _, conns := range p.conns {
		n += len(conns)
	}
	return n
}

// sweep closes the connections that have been idle for too long.
func (p *pool) sweep() {
	p.mu.Lock()
	now := time.Now()
	var old []*conn
	next := time.Duration(-1) // when to look again; negative: no more
	for to, conns := range p.conns {
		n := 0
		for n < len(conns) && now.Sub(conns[n].since) >= p.timeout {
			n++
		}
		old = append(old, conns[:n]...)
		rest := slices.Delete(conns, 0, n)
		p.conns[to] = rest
		if len(rest) > 0 {
			if due := p.timeout - now.Sub(rest[0].since); next < 0 || due < next {
				next = due
			}
		}
	}
	p.timer = nil
	if next >= 0 {
		p.timer = time.AfterFunc(next, p.sweep)
	}
	p.mu.Unlock()
	closeAll(old)
}

// close closes all that is there and all that comes back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	var all []*conn
	for _, conns := range p.conns {
		all = append(all, conns...)
	}
	p.conns = nil
	p.mu.Unlock()
	closeAll(all)
}

// closeAll closes conns, which may take time.
func closeAll(conns []*conn) {
	for _, c := range conns {
		_ = c.Close()
	}
}
