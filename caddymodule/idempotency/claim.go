package idempotency

import (
	"context"
	"errors"
	"fmt"
)

// claim finds out what is known of the call of f and, if it may be sent,
// claims it. It returns the claim; or what to tell instead.
func (g *Gate) claim(ctx context.Context, f *flight, call Call) (*Claim, *Outcome, error) {
	var present *Record
	var err error
	drops := g.drops.Load()
	maybeAnswered := true
	prepared := call.prepared || !call.recorded && call.Sender.Prepared()
	if !prepared || call.place != "" {
		if present, err = g.store.Get(ctx, f.id); err != nil {
			return nil, nil, storeError(err)
		}
	}
	for {
		if present, err = g.follow(ctx, f, present, call); err != nil {
			return nil, nil, err
		}
		if call.place != "" && !present.waitsAt(call.place) {
			return nil, nil, errTurnOver
		}
		over := Owner{}
		before := present
		next := g.fresh(call)
		if present != nil {
			if !g.mayResend(present, call) {
				if present.State == Queued && present.Fingerprint == call.Fingerprint {
					return pending(present, call)
				}
				if present.State == Done {
					g.remember(present, g.clock.Now(), drops)
				}
				out, err := replay(present, call.Fingerprint, g.clock.Now())
				if out != nil && f.followed.has() {
					out.Manner = Shared
				}
				if out != nil && out.Key == "" { // erased
					out.Key = call.Key
				}
				return nil, out, err
			}
			over = present.Owner
			takeOver(present, next)
			before = g.asBefore(present, call)
		}
		if call.Later != nil && (present == nil || !present.wasSent()) {
			if err := call.Sender.Fits(); err != nil {
				return nil, nil, err // nobody would be there to mend it when its turn comes
			}
			standing, out, err := g.enqueue(ctx, f, call, next, over)
			if standing == nil {
				return nil, out, err
			}
			present = standing
			continue
		}

		if maybeAnswered && (present != nil || !prepared) {
			maybeAnswered = false
			f.unanswered.happen()
		}
		// A token that cannot be had, a pause that will not end in time: found
		// out before the claim, they leave nothing behind.
		if !prepared {
			if err := g.prepare(ctx, f, call); err != nil {
				if present != nil && present.Honored {
					err = fmt.Errorf("%w: %w", ErrUnresolved, err)
				}
				return nil, nil, err
			}
			prepared = true
		}
		if f.waited() == 0 {
			return nil, nil, errAgain // see below
		}

		if present, err = g.store.Claim(ctx, next, over); err != nil {
			if errors.Is(err, ErrFull) {
				return nil, nil, fmt.Errorf("%w: %w", ErrOverloaded, err)
			}
			if !errors.Is(err, ErrNotMade) {
				g.forget(next, before) // the claim may have been made all the same
			}
			return nil, nil, storeError(err)
		}
		if present != nil {
			continue
		}
		if f.waited() == 0 {
			// Nothing has been sent and nobody is left to be told: the call
			// had better not run than run unseen beside its own retry.
			g.forget(next, before)
			return nil, nil, errAgain
		}
		if call.goneUnnoticed(f) {
			// Its repeat may have been answered in the meantime.
			g.forget(next, before)
			return nil, nil, context.Canceled
		}
		return &Claim{g, f, next, before != nil && before.wasSent() && before.Honored}, nil, nil
	}
}

// goneUnnoticed tells whether the only caller of f, who makes c, has gone as well,
// though that is yet to be noticed.
func (c *Call) goneUnnoticed(f *flight) bool {
	return f.waited() == 1 && c.Present != nil && !c.Present()
}

// prepare calls Prepare on a context that ends when nobody waits for f any
// more: what would be waited for there is for others then.
func (g *Gate) prepare(ctx context.Context, f *flight, call Call) error {
	if err := call.Sender.Fits(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.beginPreparing(cancel)
	defer f.endPreparing()
	defer g.watchOwn(f)()
	err := call.Sender.Prepare(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errAgain) {
		return errAgain
	}
	return err
}

// fresh returns the record of a call that nothing is known of.
func (g *Gate) fresh(call Call) *Record {
	now := g.clock.Now()
	return &Record{
		ID:          call.ID,
		State:       Started,
		Owner:       g.process.NewOwner(),
		Fingerprint: call.Fingerprint,
		Key:         call.Key,
		UpstreamKey: call.UpstreamKey,
		Honored:     call.Honored,
		Adoption:    call.Adoption,
		Attendant:   call.attendant,
		Label:       call.Label,
		Started:     now,
		// If nobody finishes the record, its outcome is unknown for the
		// retention, counted from when it would have been finished.
		Expires: now.Add(call.Deadline + call.Retention),
	}
}

// mayResend tells whether the call of rec may be sent by who makes call.
func (g *Gate) mayResend(rec *Record, call Call) bool {
	if rec.State == Released {
		return true
	}
	if rec.Fingerprint != call.Fingerprint {
		return false
	}
	switch rec.State {
	case Queued:
		return call.place != ""
	case Open:
		return g.trusted(rec, call)
	case Started:
		// Another process's call has been followed to its end.
		return g.isUnused(rec) && !rec.Honored || g.trusted(rec, call)
	default:
		return false
	}
}

// isUnused tells whether nothing was sent under the claim of rec. There is no
// flight of its call here. A flight ends only when its outcome is recorded or
// lost, or if it never sent anything, so that a claim of this process that is
// not lost was never used; unless the store is one that can lose what it has
// recorded. (Where the upstream honors the key, the claim may have been made
// over one that was used.)
func (g *Gate) isUnused(rec *Record) bool {
	if rec.Owner.Process() != g.process {
		return false
	}
	if g.shared == nil {
		return !g.isLost(rec.Owner)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.unused[rec.Owner]
	return ok
}

// trusted tells whether the upstream can be trusted to know rec's key until
// the deadline of a call that starts now: as it was configured when rec was
// made, and as it is now.
func (g *Gate) trusted(rec *Record, call Call) bool {
	return rec.Honored && call.Honored && g.clock.Elapsed(rec.Started)+call.Deadline < trust
}

// takeOver makes next the record of a claim over rec: the same call, sent again
// under the same key; or another, where rec's key is free.
func takeOver(rec, next *Record) {
	next.Journal = rec.Journal
	if rec.State == Released {
		return
	}
	next.Deferred = rec.Deferred
	if rec.Key != "" { // else it was erased, and is the caller's
		next.Key = rec.Key
	}
	if rec.UpstreamKey != "" {
		next.UpstreamKey = rec.UpstreamKey
	}
	next.Adoption = rec.Adoption
	if rec.State == Queued {
		next.Attendant = rec.Attendant // whose turn it is does not change who waits
	}
	if rec.Honored && rec.wasSent() {
		next.Honored = true
		next.Started = rec.Started
	}
}

func storeError(err error) error { return fmt.Errorf("%w: %w", ErrStore, err) }
