package idempotency

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// adoptGrace is how long a keyless call waits to see whether the caller of a
// call like it leaves. A client that gives up on a connection and sends again
// on another may be here again before its leaving was noticed.
const adoptGrace = 50 * time.Millisecond

// staleOrphan is the age from which an orphan past its window is given up.
const staleOrphan = time.Hour

// settleTimeout bounds the note that an answer was delivered.
const settleTimeout = 5 * time.Second

// doKeyless lets call adopt an orphan like it or else runs it under a key made
// up for it.
//
// An orphan is an unsettled call that has no caller in this process: its
// caller left before the answer was delivered, or a crash took both, or the
// caller was told that the outcome is unknown.
func (g *Gate) doKeyless(ctx context.Context, call Call) (*Outcome, error) {
	ward := g.orphans.ward(call.Adoption)
	orphan, err := g.adopt(ctx, ward, call)
	if err != nil {
		return nil, err
	}
	if orphan != nil {
		call.ID, call.Key, call.UpstreamKey = orphan.ID, orphan.Key, orphan.UpstreamKey
		call.Prepared = nil // it has a record, so that it cannot be claimed unseen
	} else {
		call.Key = RandomKey()
		call.ID, call.UpstreamKey = call.NewID(call.Key), call.NewUpstreamKey(call.Key)
		ward.attach(call.ID)
	}

	out, err := g.doKeyed(ctx, call, orphan != nil)
	if err != nil {
		ward.detach(call.ID)
		return nil, err
	}
	out.Adopted = orphan != nil
	out.settle = func(delivered bool) {
		// First the note, then the leaving: a call like this one must not find
		// the answered call without its caller.
		if delivered && call.Adoption != (AdoptionID{}) {
			g.settle(call.ID, out)
		}
		ward.detach(call.ID)
	}
	return out, nil
}

// settle notes what the caller of the call with id was told.
func (g *Gate) settle(id ID, out *Outcome) {
	if !g.use.enter() {
		return // the store is closed
	}
	defer g.use.leave()
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	var err error
	switch out.Fate {
	case Kept:
		err = g.store.Settle(ctx, id, out.owner)
	case Unsure:
		err = g.store.Tell(ctx, id, out.owner, time.Now())
	case Freed: // there is no record any more
	}
	if err != nil {
		g.log.Warn("noting the delivery of an answer", slog.String("id", id.String()), slog.Any("error", err))
	}
}

// adopt returns the oldest orphan that call may adopt, and attaches the caller
// to it, so that nobody else adopts it; or nil.
func (g *Gate) adopt(ctx context.Context, ward *ward, call Call) (*Record, error) {
	if call.Adoption == (AdoptionID{}) {
		return nil, nil
	}
	var grace <-chan time.Time
	for {
		ward.mu.Lock()
		unsettled, err := g.store.Unsettled(ctx, call.Adoption)
		if err != nil {
			ward.mu.Unlock()
			return nil, storeError(err)
		}
		attended := false
		for _, rec := range unsettled {
			if ward.callers[rec.ID] > 0 {
				attended = true
				continue
			}
			if rec.Fingerprint == call.Fingerprint && g.adoptable(rec, call.AdoptWindow) {
				ward.attachLocked(rec.ID)
				ward.mu.Unlock()
				return rec, nil
			}
			if g.adoptable(rec, max(call.AdoptWindow, staleOrphan)) {
				continue // others may allow for a longer window
			}
			// Left unsettled, it would be looked at by every call like it until
			// it expires.
			if err := g.store.Settle(ctx, rec.ID, rec.Owner); err != nil {
				g.log.Warn("settling a call past its window", slog.String("id", rec.ID.String()), slog.Any("error", err))
			}
		}
		left := ward.left
		ward.mu.Unlock()
		if !attended {
			return nil, nil
		}

		if grace == nil {
			timer := time.NewTimer(adoptGrace)
			defer timer.Stop()
			grace = timer.C
		}
		select {
		case <-left:
		case <-grace:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// adoptable tells whether rec, which has no caller, can still be adopted.
func (g *Gate) adoptable(rec *Record, window time.Duration) bool {
	foreign := rec.Owner.Process() != g.process
	since, lost := g.lostSince(rec.Owner)
	if rec.State == Started && !foreign && !lost {
		return true // it runs, or has just ended
	}
	if rec.Finished.After(since) {
		since = rec.Finished
	}
	if rec.Told.After(since) {
		since = rec.Told
	}
	if foreign && g.opened.After(since) {
		since = g.opened // its callers could not come back before
	}
	return time.Since(since) <= window
}

// orphanage knows which keyless calls have a caller. It is divided by adoption
// ID so that unlike calls rarely wait for each other.
type orphanage struct{ wards [64]ward }

func (o *orphanage) ward(a AdoptionID) *ward { return &o.wards[int(a[0])%len(o.wards)] }

type ward struct {
	mu      sync.Mutex
	callers map[ID]int    // guarded by mu
	left    chan struct{} // guarded by mu; closed when a call has lost its last caller
}

func (w *ward) attach(id ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.attachLocked(id)
}

func (w *ward) attachLocked(id ID) {
	if w.callers == nil {
		w.callers = make(map[ID]int)
	}
	w.callers[id]++
	if w.left == nil {
		w.left = make(chan struct{})
	}
}

func (w *ward) detach(id ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.callers[id]--; w.callers[id] <= 0 {
		delete(w.callers, id)
		close(w.left)
		w.left = make(chan struct{})
	}
}
