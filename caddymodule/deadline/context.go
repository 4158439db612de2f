// Package deadline has a context whose deadline costs nothing where nobody waits
// for it.
//
// A context of context.WithTimeout sets a timer, stops it, and tells its parent
// twice, though most of what is given one looks at its Deadline or its Err, and is
// over long before. A call has three of them, which took a twentieth of its time.
package deadline

import (
	"context"
	"sync"
	"time"
)

// Context is a context.Context with a deadline. It becomes one of
// context.WithDeadline, with all that this brings along, as soon as somebody asks for
// its Done; until then Err looks at the clock. Make one with New. It is safe for
// concurrent use.
type Context struct {
	parent   context.Context
	deadline time.Time

	mu       sync.Mutex
	waited   context.Context    // guarded by mu; nil: nobody has waited for it
	cancel   context.CancelFunc // guarded by mu; of waited
	canceled bool               // guarded by mu
}

var _ context.Context = (*Context)(nil)

// New returns a context that ends after timeout, or with parent, or when Cancel is
// called, which must be, as with context.WithTimeout.
func New(parent context.Context, timeout time.Duration) *Context {
	c := &Context{parent: parent, deadline: time.Now().Add(timeout)}
	if earlier, ok := parent.Deadline(); ok && earlier.Before(c.deadline) {
		c.deadline = earlier
	}
	return c
}

// Deadline implements context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.deadline, true }

// Done implements context.Context.
func (c *Context) Done() <-chan struct{} { return c.wait().Done() }

// Err implements context.Context.
func (c *Context) Err() error {
	c.mu.Lock()
	ended := c.waited != nil || c.canceled
	c.mu.Unlock()
	if !ended && time.Until(c.deadline) > 0 && c.parent.Err() == nil {
		return nil
	}
	// One that has ended tells why to context.Cause as well.
	return c.wait().Err()
}

// Value implements context.Context.
func (c *Context) Value(key any) any {
	c.mu.Lock()
	ctx := c.waited
	c.mu.Unlock()
	if ctx == nil {
		ctx = c.parent
	}
	return ctx.Value(key)
}

// Cancel ends the context. It may be called again.
func (c *Context) Cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.canceled = true
	if c.cancel != nil {
		c.cancel()
	}
}

// wait returns the context that somebody can wait for.
func (c *Context) wait() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waited == nil {
		c.waited, c.cancel = context.WithDeadline(c.parent, c.deadline)
		if c.canceled {
			c.cancel()
		}
	}
	return c.waited
}
