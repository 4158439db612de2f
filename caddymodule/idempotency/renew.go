package idempotency

import (
	"context"
	"log/slog"
	"time"
)

// renewInterval is how often the claim of a call under way is renewed in a
// shared store. A store that fails over may lose the latest claims; clients that
// repeat a call have mostly waited for longer.
const renewInterval = 2 * time.Second

// hold notes under which claim the call of f is being sent, nil for none any
// more, and has the claim renewed meanwhile. When hold returns for nil, nothing
// renews it any more: a claim that is made anew after its release would be
// nobody's.
func (g *Gate) hold(f *flight, claim *Record) {
	if g.shared == nil {
		return
	}
	f.held.Lock()
	f.claim = claim
	switch {
	case claim == nil:
		f.renewal.Stop() // it would keep the answer in memory
	case f.renewal == nil:
		f.renewal = time.AfterFunc(renewInterval, func() { g.renew(f) })
	}
	renewing := f.renewing
	f.held.Unlock()
	if claim == nil && renewing != nil {
		<-renewing
	}
}

// renew renews the claim of f, if it is still held, and is to come back to it.
func (g *Gate) renew(f *flight) {
	f.held.Lock()
	claim := f.claim
	if claim == nil {
		f.held.Unlock()
		return
	}
	renewing := make(chan struct{})
	f.renewing = renewing
	f.held.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if f.callers.Load() == 0 {
		left := *claim
		left.Attendant = Owner{}
		claim = &left
	}
	// A store that does not answer is noticed by who wants something of it.
	if standing, err := g.shared.Renew(ctx, claim); err == nil && standing != nil {
		g.log.Warn("a call under way was claimed by another process", slog.String("id", f.id.String()))
	}

	f.held.Lock()
	defer f.held.Unlock()
	close(renewing)
	f.renewing = nil
	if f.claim != nil {
		f.renewal.Reset(renewInterval)
	}
}
