package genesys

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// pauseJitter is the longest that a waiter lingers after the end of a pause.
// Spread over it, the first one let through can meet the next 429 and extend
// the pause before the rest have left.
const pauseJitter = time.Second

const maxPause = 24 * time.Hour

// Pause makes all calls of an organisation wait after a 429, since its limits
// count the organisation's calls and not one caller's.
//
// The zero value is no pause. Its methods may be called concurrently.
type Pause struct {
	mu      sync.Mutex
	until   time.Time
	count   uint64        // how often a pause began
	changed chan struct{} // closed when until moves; nil while nobody waits
}

// PausedError says that a pause ends too late for the caller.
type PausedError struct {
	Until time.Time // the end of the pause
}

func (e *PausedError) Error() string {
	return fmt.Sprintf("waiting for the rate limit: paused until %s", e.Until.UTC().Format(time.RFC3339))
}

// Until pauses calls until t. A pause is only ever extended: a t before its
// end changes nothing, as the longest Retry-After is the one that holds.
//
// It ends in a day at the latest. The platform's longest limits are daily, and
// one answer that asks for more must not stop everything for good.
func (p *Pause) Until(t time.Time) {
	if limit := time.Now().Add(maxPause); t.After(limit) {
		t = limit
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !t.After(p.until) {
		return
	}
	if now := time.Now(); !p.until.After(now) && t.After(now) {
		p.count++
	}
	p.until = t
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// Count returns how often calls were paused; one that is extended counts once.
func (p *Pause) Count() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Remaining returns how long the pause lasts from now, and whether there is one.
func (p *Pause) Remaining(now time.Time) (d time.Duration, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d = max(0, p.until.Sub(now))
	return d, d > 0
}

// Wait returns nil once there is no pause: at once if there is none now, else
// up to a second after its end, each waiter at a moment of its own, but not for
// that reason later than deadline.
//
// If the pause ends after deadline it returns a *PausedError at once, also
// when it is extended while Wait waits: there is no use in holding a caller
// that will be turned away. The zero deadline is none, but ctx may have one, which
// counts as well. If ctx ends first, Wait returns its error.
func (p *Pause) Wait(ctx context.Context, deadline time.Time) error {
	// A call's time may have begun before deadline was reckoned. What it ends with
	// would look like the end of something else.
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	for {
		now := time.Now()
		until, changed := p.state(now)
		if changed == nil {
			return nil
		}
		if !deadline.IsZero() && until.After(deadline) {
			return &PausedError{Until: until}
		}
		linger := pauseJitter
		if !deadline.IsZero() {
			linger = min(linger, deadline.Sub(until)) // and not to the last, which leaves no time for the call
		}
		wake := until.Add(rand.N(max(linger, 1)))
		timer := time.NewTimer(wake.Sub(now))
		select {
		case <-timer.C:
		case <-changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// state returns the end of the pause and a channel that is closed when it
// moves, or a nil channel if there is no pause at now.
func (p *Pause) state(now time.Time) (until time.Time, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.until.After(now) {
		return p.until, nil
	}
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.until, p.changed
}
