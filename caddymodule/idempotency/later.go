package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// queuedFor is how long a call that was handed over may wait for its turn at the
// most. It is there so that nothing stays for good that no configuration has a
// way to send any more.
const queuedFor = 7 * 24 * time.Hour

var (
	// errQueued says that the call waits for its turn, which its caller has to
	// wait for as well.
	errQueued = errors.New("the call waits for its turn")

	// errPutBack says so of a call that has just had its turn.
	errPutBack = fmt.Errorf("%w, once more", errQueued)

	// errTurnOver says that a call whose turn has come is not there to be sent any
	// more: it was cancelled, or somebody else has come to it.
	errTurnOver = errors.New("the call does not wait for its turn any more")
)

// SetBounds bounds the store's backlog from now on, if it is one.
func (g *Gate) SetBounds(b Bounds) { g.bounds.Store(&b) }

// Defers tells whether calls can be handed over.
func (g *Gate) Defers() bool { return g.backlog != nil }

// Depth tells how much there is in the store's backlog.
func (g *Gate) Depth(ctx context.Context) (Depth, error) {
	if g.backlog == nil {
		return Depth{}, nil
	}
	if !g.use.enter() {
		return Depth{}, ErrClosed
	}
	defer g.use.leave()
	d, err := g.backlog.Depth(ctx)
	if err != nil {
		return Depth{}, storeError(err)
	}
	return d, nil
}

// enqueue puts call on record as Queued. It returns the record that stands in the
// way; or what to tell.
func (g *Gate) enqueue(ctx context.Context, f *flight, call Call, next *Record, over Owner) (standing *Record, out *Outcome, err error) {
	if g.backlog == nil {
		return nil, nil, fmt.Errorf("%w: it keeps no calls for later", ErrStore)
	}
	if f.callers.Load() == 0 {
		return nil, nil, errAgain // who has left already cannot be told where to ask
	}
	if call.goneUnnoticed(f) {
		return nil, nil, context.Canceled // its repeat may have been handed over, and told so, meanwhile
	}
	now := g.clock.Now()
	later := *call.Later
	later.Since = now
	next.State = Queued
	next.Deferred = &later
	next.Expires = now.Add(queuedFor + call.Retention)
	var bounds Bounds
	if b := g.bounds.Load(); b != nil {
		bounds = *b
	}
	standing, err = g.backlog.Enqueue(ctx, next, over, bounds)
	switch {
	case errors.Is(err, ErrBacklogFull), errors.Is(err, ErrFull):
		// Who repeats a call that is on record needs no room.
		if rec, err := g.store.Get(ctx, f.id); err == nil && rec != nil && !rec.OwnedBy(over) {
			return rec, nil, nil
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrOverloaded, err)
	case err != nil:
		if !errors.Is(err, ErrNotMade) && !g.unmake(next) {
			err = fmt.Errorf("%w: %w", ErrUnresolved, err)
		}
		return nil, nil, storeError(err)
	case standing != nil:
		return standing, nil, nil
	}
	return nil, &Outcome{ID: next.ID, Manner: Executed, Fate: Pending, Key: next.Key, Waits: true, owner: next.Owner}, nil
}

// unmake takes rec, which may have been enqueued, out of the store again, and tells
// whether it is certain that it is not there. Once others can have seen it, it has to
// stay: one of them may have been told that the call is on record.
func (g *Gate) unmake(rec *Record) bool {
	if g.shared != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	return g.store.Release(ctx, rec.ID, rec.Owner) == nil
}

// pending returns what is told to who repeats the call of rec, which is Queued.
func pending(rec *Record, call Call) (*Claim, *Outcome, error) {
	if call.Later == nil {
		return nil, nil, errQueued
	}
	return nil, &Outcome{ID: rec.ID, Manner: Replayed, Fate: Pending, Key: rec.Key, Journal: rec.Journal, Waits: true, owner: rec.Owner}, nil
}

// accept waits until f's call is on record, which is all that who hands it over has
// to know, or has ended.
func (f *flight) accept(ctx context.Context, call Call, first bool) (*Outcome, error) {
	select {
	case <-f.bound.signal():
	case <-f.done.signal():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case f.fingerprint != call.Fingerprint && f.bound.has():
		return nil, ErrKeyReused
	case f.fingerprint != call.Fingerprint:
		return nil, errAgain
	case !f.done.has() && f.promise():
		out := &Outcome{ID: f.id, Manner: Shared, Fate: Pending, Key: f.key}
		if first {
			out.Manner = Executed
		}
		return out, nil
	}
	select {
	case <-f.done.signal():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	refused := f.err != nil && !errors.Is(f.err, ErrResultUnavailable) || f.err == nil && f.out.Fate == Freed
	if refused && !first {
		return nil, errAgain // nothing is on record of what was given up for others, or refused to them
	}
	return f.outcome(first)
}

// promise notes that somebody is told that the answer of f's call, which is bound,
// can be asked for later, and tells whether it can, however the call ends. Of one
// that another process makes for a caller of its own, that is not certain.
func (f *flight) promise() bool {
	if f.deferred {
		return true
	}
	if f.followed.has() && !f.ours.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.promised = f.promised || !f.freed
	return f.promised
}

// isFreed notes that the call of f did not run, and tells whether somebody is yet to
// ask why.
func (f *flight) isFreed() (promised bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.freed = true
	return f.promised
}

// awaitTurn waits until something may have become of call, which waits for its
// turn, for as long as a duplicate of it waits; call is left with the rest of that
// time.
func (g *Gate) awaitTurn(ctx context.Context, call *Call, adopter bool) error {
	began := time.Now()
	patience := call.Wait
	if adopter {
		patience = call.Deadline
	}
	if patience <= 0 {
		return ErrInUse
	}
	g.mu.Lock()
	if g.waiters >= g.limits.Waiters {
		g.mu.Unlock()
		return ErrOverloaded
	}
	g.waiters++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.waiters--
		g.mu.Unlock()
	}()
	changed, stop, err := g.watch(ctx, call.ID)
	if err != nil {
		return err
	}
	defer stop()
	timer := time.NewTimer(min(patience, followInterval))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C: // what another process does may be missed
	case <-g.use.draining():
		return ErrClosed // no turn comes any more
	case <-ctx.Done():
		return ctx.Err()
	}
	spent := time.Since(began)
	if adopter {
		call.Deadline -= spent
	}
	call.Wait = max(patience-spent, 0)
	if call.Wait == 0 {
		return ErrInUse
	}
	return nil
}

// settlePending notes that the caller of the call with id knows where to ask for
// its answer. The call's turn may come at any time, and with it another owner.
func (g *Gate) settlePending(ctx context.Context, id ID, out *Outcome) {
	settle := func(ctx context.Context) error {
		var settled Owner
		for {
			rec, err := g.store.Get(ctx, id)
			if err != nil || rec == nil || rec.Key != out.Key || rec.Owner == settled {
				return err
			}
			if err := g.store.Settle(ctx, id, rec.Owner); err != nil {
				return err
			}
			settled = rec.Owner
		}
	}
	if err := settle(ctx); err != nil {
		if out.owner != (Owner{}) {
			g.notes.settled.add(out.owner, id) // until the store has taken it, the call is no orphan all the same
		}
		g.insist("noting that a call was handed over", id, func(ctx context.Context) error {
			err := settle(ctx)
			if err == nil {
				g.notes.settled.remove(out.owner)
			}
			return err
		})
	}
}

// waitsAt tells whether the call of r, nil for none, is the one of the ticket at
// place and has not ended.
func (r *Record) waitsAt(place Place) bool {
	return r != nil && r.Deferred != nil && r.Deferred.Place == place
}

// retention returns how long the answer of r's call, which is Queued, is to be kept.
func (r *Record) retention() time.Duration {
	return max(0, r.Expires.Sub(r.Deferred.Since)-queuedFor)
}

// asBefore returns what is to be put back where a claim over rec comes to nothing: rec,
// or where that is a claim of this process's which came to nothing as well, the call
// as it waited for its turn.
func (g *Gate) asBefore(rec *Record, call Call) *Record {
	if rec.State != Started || rec.Deferred == nil || rec.Honored || !g.isUnused(rec) {
		return rec
	}
	before := *rec
	before.State = Queued
	retention := max(0, rec.Expires.Sub(rec.Started.Add(call.Deadline)))
	before.Expires = rec.Deferred.Since.Add(queuedFor + retention)
	return &before
}

// putBack makes rec, which is that of a call that came to result and did not run,
// one that waits for another turn. It tells whether the call is one that can.
func putBack(rec *Record, claim *Claim, result Result) bool {
	if claim.record.Deferred == nil || claim.resumed || result.Fate != Freed {
		return false
	}
	rec.State = Queued
	rec.Deferred = claim.record.Deferred
	rec.Answer = nil
	rec.Expires = rec.Deferred.Since.Add(queuedFor + rec.Expires.Sub(rec.Finished))
	rec.Finished = time.Time{}
	return true
}

// fallBack ends the flight of a call that waits for another turn as rec.
func (g *Gate) fallBack(f *flight, rec *Record) {
	if _, err := g.record(rec, false); err != nil {
		g.log.Error("putting a call back into the backlog", slog.String("id", f.id.String()), slog.Any("error", err))
		if !g.keepRecording(rec, false) {
			g.giveUp(rec)
		}
	}
	g.land(f)
	f.finish(nil, errPutBack)
}
