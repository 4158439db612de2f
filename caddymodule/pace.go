package caddymodule

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

// Pace is how many requests of an organisation may start per period. They come at
// even intervals, but for a burst after a time with less to do.
type Pace struct {
	// How many requests may start in any period as long as the window.
	Starts int `json:"starts"`

	// How long the window is. The platform counts per minute.
	Window caddy.Duration `json:"window"`

	// How many may start at once, after a time with less to do. Default: a tenth
	// of `starts`, but at least 10.
	Burst int `json:"burst,omitempty"`

	// How many of `starts` this sidecar may use while the store that it shares
	// the budget by does not answer. Default: `starts` divided by how many
	// sidecars shared it last.
	Share int `json:"share,omitempty"`
}

// minWindow is the shortest window: calls cannot be timed much better.
const minWindow = time.Millisecond

// maxStarts and maxWindow keep what is computed with them from overflowing.
const (
	maxStarts = 1_000_000_000
	maxWindow = 31 * 24 * time.Hour
)

// check finds what makes no sense.
func (p *Pace) check() error {
	window := time.Duration(p.Window)
	switch {
	case p.Starts < 1 || p.Starts > maxStarts:
		return fmt.Errorf("pace: %d is no number of starts from 1 to %d", p.Starts, maxStarts)
	case window < minWindow || window > maxWindow:
		return fmt.Errorf("pace: the window must be from %v to %v, not %v", minWindow, maxWindow, window)
	case p.Burst < 0 || p.Burst > p.Starts:
		return fmt.Errorf("pace: a burst of %d is not from 1 to the %d that may start per window", p.Burst, p.Starts)
	case p.Share < 0 || p.Share > p.Starts:
		return fmt.Errorf("pace: a share of %d is not from 1 to the %d that may start per window", p.Share, p.Starts)
	}
	return nil
}

// checkBudget finds what makes no sense in what limits the organisation.
func (o *Organization) checkBudget() error {
	if o.Pace != nil {
		if err := o.Pace.check(); err != nil {
			return err
		}
	}
	switch {
	case o.Concurrency < 0:
		return errors.New("concurrency must not be negative")
	case o.Queue < 0:
		return errors.New("queue must not be negative")
	case o.Queue > 0 && o.Pace == nil && o.Concurrency == 0:
		return errors.New("queue: there is nothing to wait for without pace or concurrency")
	}
	return nil
}

// budget returns what limits the organisation.
func (o *Organization) budget() pacing.Config {
	c := pacing.Config{Queue: o.Queue}
	c.Limits.Concurrency = o.Concurrency
	if o.Pace != nil {
		c.Limits.Starts, c.Limits.Window, c.Limits.Burst = o.Pace.Starts, time.Duration(o.Pace.Window), o.Pace.Burst
		c.Share = o.Pace.Share
	}
	return c
}

// pacerScope returns the scope that calls of id wait in. It is the same whether
// they are of a request or of a record.
func pacerScope(id idempotency.ScopeID) string {
	if id == (idempotency.ScopeID{}) {
		return ""
	}
	return hex.EncodeToString(id[:])
}

// proxied is what the transport is told of a request that is no data action.
type proxied struct {
	scope    string
	deadline time.Time
}

// proxiedKey is the context key of a proxied.
type proxiedKey struct{}

// plainProxy is the scope of what comes by a reverse_proxy of its own. No caller
// is in it: their scopes are digests.
const plainProxy = "proxied"

// paced returns r, which is no data action, with what the transport has to know
// of it where the budget counts it.
func (h *Handler) paced(r *http.Request) *http.Request {
	if !h.org.pacer.Active() {
		return r
	}
	p := proxied{deadline: time.Now().Add(time.Duration(h.Deadline))}
	if scope := h.scope(r); scope != "" {
		p.scope = pacerScope(idempotency.NewScopeID(h.org.id, scope))
	}
	return r.WithContext(context.WithValue(r.Context(), proxiedKey{}, p))
}

// start waits for a start for req, which is no data action. It takes no place
// among the calls at a time, of which the platform counts executions alone.
func (t *Transport) start(req *http.Request) (*pacing.Slot, error) {
	if !t.org.pacer.Active() {
		return nil, nil
	}
	p, ok := req.Context().Value(proxiedKey{}).(proxied)
	if !ok {
		p = proxied{plainProxy, time.Now().Add(defaultDeadline)}
	}
	return t.org.pacer.Start(req.Context(), p.scope, p.deadline)
}
