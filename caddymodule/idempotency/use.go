package idempotency

import (
	"context"
	"sync"
	"time"
)

// useCount counts who uses something, so that it is closed after the last.
// The zero useCount is open and unused.
type useCount struct {
	mu     sync.Mutex
	users  int
	closed bool
	drains chan struct{} // closed when draining begins; made on first use
}

// enter counts a user in. It returns false once closed.
func (u *useCount) enter() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.users++
	return true
}

// mustEnter counts in a user on behalf of another who is counted already.
func (u *useCount) mustEnter() {
	if !u.enter() {
		panic("entered after close")
	}
}

func (u *useCount) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users--
}

// draining returns a channel that is closed once drain was called.
func (u *useCount) draining() <-chan struct{} {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.drainsLocked()
}

func (u *useCount) drainsLocked() chan struct{} {
	if u.drains == nil {
		u.drains = make(chan struct{})
	}
	return u.drains
}

// drainInterval is how often drain looks. It is a matter of shutting down, so
// that a look now and then is cheaper than a signal on every leave.
const drainInterval = 10 * time.Millisecond

// drain waits until nobody is counted in, and closes. Until then whoever comes
// is let in. It may be called again if ctx ended first.
func (u *useCount) drain(ctx context.Context) error {
	u.mu.Lock()
	select {
	case <-u.drainsLocked():
	default:
		close(u.drains)
	}
	u.mu.Unlock()

	ticker := time.NewTicker(drainInterval)
	defer ticker.Stop()
	for {
		u.mu.Lock()
		if u.users == 0 {
			u.closed = true
			u.mu.Unlock()
			return nil
		}
		u.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
