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

// watch returns a channel that gets a value when a flight of the call with id has
// landed, or its record in a shared store has changed. More may be missed. stop
// ends the watch.
func (g *Gate) watch(ctx context.Context, id ID) (changed <-chan struct{}, stop func(), err error) {
	if g.shared != nil {
		changed, stop, err = g.shared.Watch(ctx, id)
		if err != nil {
			return nil, nil, storeError(err)
		}
		return changed, stop, nil
	}
	c := make(chan struct{}, 1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.watchers == nil {
		g.watchers = make(map[ID][]chan struct{})
	}
	g.watchers[id] = append(g.watchers[id], c)
	return c, func() { g.unwatch(id, c) }, nil
}

func (g *Gate) unwatch(id ID, c chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, other := range g.watchers[id] {
		if other == c {
			g.watchers[id] = append(g.watchers[id][:i:i], g.watchers[id][i+1:]...)
			break
		}
	}
	if len(g.watchers[id]) == 0 {
		delete(g.watchers, id)
	}
}

func (g *Gate) tellWatchersLocked(id ID) {
	for _, c := range g.watchers[id] {
		select {
		case c <- struct{}{}:
		default: // it has not looked since it was told last
		}
	}
}

// Await tells what has become of the call with id, that label is of but for its
// action, and waits for it to end for up to wait. An outcome that is Pending is of
// one that has not. Its errors are ErrNoRecord, also where the call is another
// scope's; ErrReleased, ErrResultUnavailable, ErrClosed, those that wrap ErrStore,
// and ctx.Err(). Nothing is ever sent for it.
func (g *Gate) Await(ctx context.Context, id ID, label Label, wait time.Duration) (*Outcome, error) {
	if !g.use.enter() {
		return nil, ErrClosed
	}
	defer g.use.leave()
	ctx, cancel := context.WithTimeout(ctx, wait+recordTimeout)
	defer cancel()
	end := time.Now().Add(wait)
	for {
		changed, stop, err := g.watchWhile(ctx, id, wait > 0)
		if err != nil {
			return nil, err
		}
		out, err := g.standing(ctx, id, label)
		left := time.Until(end)
		if err != nil || out.Fate != Pending || left <= 0 {
			stop()
			return out, err
		}
		timer := time.NewTimer(min(left, followInterval))
		select {
		case <-changed:
		case <-timer.C:
		case <-g.use.draining():
			end = time.Now() // a last look: no turn comes any more
		case <-ctx.Done():
		}
		timer.Stop()
		stop()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// watchWhile is watch where it is wanted.
func (g *Gate) watchWhile(ctx context.Context, id ID, wanted bool) (<-chan struct{}, func(), error) {
	if !wanted {
		return nil, func() {}, nil
	}
	return g.watch(ctx, id)
}

// AwaitEnd is Await for out, an outcome that is Pending, on behalf of the caller who
// got it: what the call has come to is told as its own. The one outcome takes the
// place of the other, but where there is an error.
func (g *Gate) AwaitEnd(ctx context.Context, out *Outcome, label Label, wait time.Duration) (*Outcome, error) {
	end, err := g.Await(ctx, out.ID, label, wait)
	if err != nil {
		return nil, err
	}
	end.Manner = out.Manner
	if settle := out.settle; settle != nil {
		// Who repeats what is unknown is told the same.
		end.settle = func(delivered bool) { settle(delivered && end.Fate != Unsure) }
	}
	return end, nil
}

// standing tells what has become of the call with id as yet.
func (g *Gate) standing(ctx context.Context, id ID, label Label) (*Outcome, error) {
	rec, err := g.store.Get(ctx, id)
	switch {
	case err != nil:
		return nil, storeError(err)
	case !rec.isOf(label):
		return nil, ErrNoRecord
	}
	recs := []*Record{rec}
	standings, err := g.Standings(ctx, recs)
	if err != nil {
		return nil, err
	}
	if rec = recs[0]; rec == nil {
		return nil, ErrNoRecord
	}
	if s := standings[0]; s == Queued || s == Started || s != Released && rec.Deferred != nil && rec.Honored && s == Open {
		// What a crash has left that can be sent again is gone on with.
		return &Outcome{ID: id, Manner: Replayed, Fate: Pending, Key: rec.Key, Journal: rec.Journal, Waits: s == Queued}, nil
	}
	out, err := replay(rec, rec.Fingerprint, g.clock.Now())
	if err != nil {
		return nil, err
	}
	out.Answer = rec.Answer
	if rec.State == Released {
		if rec.Answer == nil {
			return nil, ErrReleased
		}
		out.Fate = Freed
	}
	return out, nil
}

// isOf tells whether r is there, and a record of label's organisation and scope.
func (r *Record) isOf(label Label) bool {
	return r != nil && r.Label.Organisation == label.Organisation && r.Label.Scope == label.Scope
}

// Cancel takes back the call with id, that label is of but for its action, if it
// waits for its turn: it is not sent, and its key is free. Its errors are
// ErrNoRecord; ErrUnderWay; ErrReleased where it was cancelled already; ErrKnown
// where it has ended otherwise; and those that wrap ErrStore.
func (g *Gate) Cancel(ctx context.Context, id ID, label Label) error {
	if !g.use.enter() {
		return ErrClosed
	}
	defer g.use.leave()
	// Before the call is touched: other scopes have no hand in it.
	if rec, err := g.store.Get(ctx, id); err != nil {
		return storeError(err)
	} else if !rec.isOf(label) {
		return ErrNoRecord
	}
	return g.seizeSoon(ctx, func() error {
		f, rec, err := g.seize(ctx, id)
		if err != nil {
			return err
		}
		defer g.cede(f)
		switch {
		case !rec.isOf(label):
			return ErrNoRecord
		case rec.State == Started:
			return ErrUnderWay
		case rec.State == Released && rec.Answer == nil:
			return ErrReleased // as who asks is told
		case rec.State != Queued:
			return ErrKnown
		}
		return g.withdraw(ctx, rec)
	})
}

// withdraw has the call of rec, which waits for its turn, not be sent. It takes a
// claim of its own: another process may have read rec and be about to claim it.
func (g *Gate) withdraw(ctx context.Context, rec *Record) error {
	end := *rec
	end.State = Released
	end.Owner = g.process.NewOwner()
	end.Finished = g.clock.Now()
	end.Expires = end.Finished.Add(rec.retention())
	end.Deferred = nil
	standing, err := g.store.Claim(ctx, &end, rec.Owner)
	switch {
	case err != nil:
		return storeError(err) // and it may have been done
	case standing != nil:
		return ErrUnderWay // its turn has just come
	}
	g.dequeue(ctx, rec)
	if err := g.store.Settle(ctx, rec.ID, end.Owner); err != nil {
		g.log.Warn("settling a call that was cancelled", slog.String("id", rec.ID.String()), slog.Any("error", err))
	}
	return nil
}

// dequeue takes the ticket of rec's call out of the backlog. Where that fails, it
// goes when its turn has come.
func (g *Gate) dequeue(ctx context.Context, rec *Record) {
	if g.backlog == nil || rec.Deferred == nil {
		return
	}
	if err := g.backlog.Dequeue(ctx, rec.Deferred.Place); err != nil {
		g.log.Warn("taking a call out of the backlog", slog.String("id", rec.ID.String()), slog.Any("error", err))
	}
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

// seizeSoon calls do until it does not find the call under way, for a little while:
// somebody may just be asking.
func (g *Gate) seizeSoon(ctx context.Context, do func() error) error {
	for patience := 5; ; patience-- {
		err := do()
		if !errors.Is(err, ErrUnderWay) || patience == 0 {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
