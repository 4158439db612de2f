package deadline

import (
	"context"
	"sync"
	"time"
)

// Shared hands out contexts that end after the same timeout, for what waits for Done
// and is nearly always over before. Those asked for within a 32nd of the timeout are
// one context, which ends by as much later. Make one with NewShared. It is safe for
// concurrent use.
type Shared struct {
	timeout, grain time.Duration

	mu    sync.Mutex
	ctx   *Context  // guarded by mu
	until time.Time // guarded by mu; from then on ctx is no longer handed out
}

// NewShared returns a Shared whose contexts end after timeout.
func NewShared(timeout time.Duration) *Shared {
	return &Shared{timeout: timeout, grain: timeout / 32}
}

// Within returns a context that ends after the timeout, or with ctx, and a function
// to be called when it is over. Where ctx cannot end before it, others have the same
// context, and it has no values.
func (s *Shared) Within(ctx context.Context) (context.Context, context.CancelFunc) {
	now := time.Now()
	end, ends := ctx.Deadline()
	if ends && end.Before(now.Add(s.timeout+s.grain)) || !endsByDeadline(ctx) {
		own := New(ctx, s.timeout)
		return own, own.Cancel
	}
	return s.at(now), func() {}
}

// endsByDeadline tells whether nothing else ends ctx. (Who calls its Cancel does so
// when all that has it is over.)
func endsByDeadline(ctx context.Context) bool {
	for {
		c, ok := ctx.(*Context)
		if !ok {
			return ctx.Done() == nil
		}
		ctx = c.parent
	}
}

// at returns the context for who begins now.
func (s *Shared) at(now time.Time) *Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil || !now.Before(s.until) {
		s.ctx = New(context.Background(), s.timeout+s.grain)
		s.until = now.Add(s.grain)
	}
	return s.ctx
}
