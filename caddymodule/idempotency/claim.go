package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"
)

// claim finds out what is known of the call of f and, if it may be sent,
// claims it. It returns the claim; or what to tell instead.
func (g *Gate) claim(ctx context.Context, f *flight, call Call) (*Claim, *Outcome, error) {
	var present *Record
	var err error
	maybeAnswered := true
	prepared := call.Prepared != nil && call.Prepared()
	if !prepared {
		if present, err = g.store.Get(ctx, f.id); err != nil {
			return nil, nil, storeError(err)
		}
	}
	for {
		over := Owner{}
		before := present
		next := g.fresh(call)
		if present != nil {
			if !g.mayResend(present, call) {
				if present.State == Done {
					g.cache.Load().set(present)
				}
				out, err := replay(present, call.Fingerprint)
				return nil, out, err
			}
			over = present.Owner
			takeOver(present, next)
		}

		if maybeAnswered && (present != nil || !prepared) {
			maybeAnswered = false
			close(f.unanswered)
		}
		// A token that cannot be had, a pause that will not end in time: found
		// out before the claim, they leave nothing behind.
		if !prepared {
			if err := call.Prepare(ctx); err != nil {
				if present != nil && present.Honored {
					err = fmt.Errorf("%w: %w", ErrUnresolved, err)
				}
				return nil, nil, err
			}
			prepared = true
		}
		if f.callers.Load() == 0 {
			// Nothing has been sent and nobody is left to be told: the call
			// had better not run than run unseen beside its own retry.
			return nil, nil, errAgain
		}

		if present, err = g.store.Claim(ctx, next, over); err != nil {
			if errors.Is(err, ErrFull) {
				return nil, nil, fmt.Errorf("%w: %w", ErrOverloaded, err)
			}
			g.forget(next, before) // the claim may have been made all the same
			return nil, nil, storeError(err)
		}
		if present == nil {
			return &Claim{g.store, next, before != nil && before.Honored}, nil, nil
		}
	}
}

// fresh returns the record of a call that nothing is known of.
func (g *Gate) fresh(call Call) *Record {
	now := time.Now()
	return &Record{
		ID:          call.ID,
		State:       Started,
		Owner:       g.process.NewOwner(),
		Fingerprint: call.Fingerprint,
		Key:         call.Key,
		UpstreamKey: call.UpstreamKey,
		Honored:     call.Honored,
		Adoption:    call.Adoption,
		Started:     now,
		// If nobody finishes the record, its outcome is unknown for the
		// retention, counted from when it would have been finished.
		Expires: now.Add(call.Deadline + call.Retention),
	}
}

// mayResend tells whether the call of rec may be sent by who makes call.
func (g *Gate) mayResend(rec *Record, call Call) bool {
	if rec.Fingerprint != call.Fingerprint {
		return false
	}
	switch rec.State {
	case Open:
		return g.trusted(rec, call)
	case Started:
		// A flight ends only when its outcome is recorded or lost, or if it
		// never sent anything. There is no flight here, so a claim of this
		// process that is not lost is one that was never used; but where the
		// upstream honors the key, it may have been made over one that was.
		unused := rec.Owner.Process() == g.process && !g.isLost(rec.Owner)
		return unused && !rec.Honored || g.trusted(rec, call)
	default:
		return false
	}
}

// trusted tells whether the upstream can be trusted to know rec's key until
// the deadline of a call that starts now: as it was configured when rec was
// made, and as it is now.
func (g *Gate) trusted(rec *Record, call Call) bool {
	return rec.Honored && call.Honored && time.Now().Add(call.Deadline).Before(rec.Started.Add(trust))
}

// takeOver makes next the record of a claim over rec: the same call, sent again
// under the same key.
func takeOver(rec, next *Record) {
	next.Key = rec.Key
	next.UpstreamKey = rec.UpstreamKey
	next.Adoption = rec.Adoption
	if rec.Honored {
		next.Honored = true
		next.Started = rec.Started
	}
}

const (
	// recordTimeout bounds one attempt to record an outcome. It is not part of
	// the call's deadline: a call that took all of its time must be recorded too.
	recordTimeout = 10 * time.Second

	recordBackoff    = 100 * time.Millisecond
	recordBackoffMax = 5 * time.Second

	// recordPatience is how long recording is tried again. A store that is
	// still down then has the call as started, which is never sent again
	// unless its upstream honors the key.
	recordPatience = 10 * time.Minute
)

// record makes the outcome of a call durable. It is not ours to record, and
// not recorded, if somebody else has taken the call over.
func (g *Gate) record(rec *Record, fate Fate) (ours bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	if fate == Freed {
		err = g.store.Release(ctx, rec.ID, rec.Owner)
	} else {
		err = g.store.Finish(ctx, rec)
	}
	if errors.Is(err, ErrNotOwner) {
		// Somebody else has taken the call over; what it records counts.
		g.log.Warn("the call was taken over", slog.String("id", rec.ID.String()))
		return false, nil
	}
	return true, err
}

// keepRecording tries to record an outcome until it succeeds or patience ends,
// and tells which.
func (g *Gate) keepRecording(rec *Record, fate Fate) bool {
	end := time.Now().Add(recordPatience)
	for backoff := recordBackoff; time.Now().Before(end); backoff = min(2*backoff, recordBackoffMax) {
		select {
		case <-time.After(backoff):
		case <-g.use.draining():
			end = time.Time{} // one last try
		}
		if _, err := g.record(rec, fate); err == nil {
			g.log.Info("recorded the outcome of a call after all", slog.String("id", rec.ID.String()))
			return true
		}
	}
	g.log.Error("gave up recording the outcome of a call", slog.String("id", rec.ID.String()),
		slog.String("state", rec.State.String()))
	return false
}

// lostCall is a call that was sent, and of which the store will never know more.
type lostCall struct{ since, expires time.Time }

// lose notes that the call of claim, which was sent, could not be recorded.
func (g *Gate) lose(claim *Record) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(g.lost, func(_ Owner, l lostCall) bool { return l.expires.Before(now) })
	g.lost[claim.Owner] = lostCall{since: now, expires: claim.Expires}
}

// isLost tells whether the call claimed by owner was sent and could not be recorded.
func (g *Gate) isLost(owner Owner) bool {
	_, ok := g.lostSince(owner)
	return ok
}

// lostSince is isLost, and tells since when.
func (g *Gate) lostSince(owner Owner) (time.Time, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	l, ok := g.lost[owner]
	return l.since, ok
}

// forget undoes a claim over before that may have been made and was not used,
// so that it does not look like a call that was left behind. What before says
// of an earlier send must not be forgotten.
func (g *Gate) forget(rec, before *Record) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
	defer cancel()
	var err error
	if before == nil || !before.Honored { // never sent
		err = g.store.Release(ctx, rec.ID, rec.Owner)
	} else {
		back := *before
		back.Owner = rec.Owner
		if back.State == Started { // by a process that is gone
			back.State, back.Finished = Open, time.Now()
		}
		err = g.store.Finish(ctx, &back)
	}
	if err != nil && !errors.Is(err, ErrNotOwner) {
		g.log.Warn("releasing an unused claim", slog.String("id", rec.ID.String()), slog.Any("error", err))
	}
}

func storeError(err error) error { return fmt.Errorf("%w: %w", ErrStore, err) }
