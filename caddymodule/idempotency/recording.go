package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"genesys-sidecar/caddymodule/deadline"
)

const (
	// recordTimeout bounds one attempt to record an outcome. It is not part of
	// the call's deadline: a call that took all of its time must be recorded too.
	recordTimeout = 10 * time.Second

	recordBackoff    = 100 * time.Millisecond
	recordBackoffMax = time.Second

	// recordPatience is how long recording is tried again. A store that is
	// still down then has the call as started, which is never sent again
	// unless its upstream honors the key.
	recordPatience = 10 * time.Minute
)

// record makes the outcome of a call durable, or that there is none to keep. It is
// not ours to record, and not recorded, if somebody else has taken the call over.
func (g *Gate) record(rec *Record, release bool) (ours bool, err error) {
	ctx := deadline.New(context.Background(), recordTimeout)
	defer ctx.Cancel()
	if release {
		err = g.store.Release(ctx, rec.ID, rec.Owner)
	} else {
		err = g.store.Finish(ctx, rec)
	}
	if errors.Is(err, ErrNotOwner) && !release && g.shared != nil {
		err = g.recordAnew(ctx, rec)
	}
	if errors.Is(err, ErrNotOwner) {
		// Somebody else has taken the call over; what it records counts.
		g.log.Warn("the call was taken over", slog.String("id", rec.ID.String()))
		return false, nil
	}
	return true, err
}

// recordAnew makes the outcome of a call durable whose claim is not there any
// more: a shared store can lose what it said it had, when it fails over. It
// returns ErrNotOwner where another claim stands in its place.
func (g *Gate) recordAnew(ctx context.Context, rec *Record) error {
	standing, err := g.shared.Renew(ctx, rec)
	switch {
	case err != nil:
		return err
	case standing != nil:
		return ErrNotOwner
	}
	g.log.Error("the store had lost a call that was under way; its outcome is recorded anew",
		slog.String("id", rec.ID.String()))
	return g.store.Finish(ctx, rec)
}

// recordLater goes on where record has failed, and lands f at the end.
func (g *Gate) recordLater(f *flight, claim *Claim, rec *Record, result Result, release bool) {
	switch recorded := g.keepRecording(rec, release); {
	case recorded:
	case result.Fate == Freed:
		g.giveUp(claim.record)
	default:
		g.lose(claim.record)
	}
	g.land(f)
}

// overtaken returns the answer that another process has got for the call of f, of
// which out says that its outcome is unknown; nil: there is none. As long as that
// could not be recorded here, or nobody said that it was, the others may take it for
// a call that they can ask the upstream about.
func (g *Gate) overtaken(ctx context.Context, f *flight, out *Outcome) *Record {
	if g.shared == nil || out == nil || out.Fate != Unsure || !f.unrecorded.Load() {
		return nil
	}
	rec, err := g.store.Get(ctx, f.id)
	if err != nil || rec == nil || rec.State != Done {
		return nil
	}
	return rec
}

// keepRecording tries to record an outcome until it succeeds or patience ends,
// and tells which.
func (g *Gate) keepRecording(rec *Record, release bool) bool {
	g.unrecorded.Add(1)
	defer g.unrecorded.Add(-1)
	if g.persist(func() bool { _, err := g.record(rec, release); return err == nil }) {
		g.log.Info("recorded the outcome of a call after all", slog.String("id", rec.ID.String()))
		return true
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
	now := g.clock.Now()
	maps.DeleteFunc(g.lost, func(_ Owner, l lostCall) bool { return l.expires.Before(now) })
	g.lost[claim.Owner] = lostCall{since: now, expires: claim.Expires}
}

// giveUp notes that nothing was sent under claim, or nothing that counts, though
// its record may stay.
func (g *Gate) giveUp(claim *Record) {
	if g.shared == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.clock.Now()
	maps.DeleteFunc(g.unused, func(_ Owner, expires time.Time) bool { return expires.Before(now) })
	g.unused[claim.Owner] = claim.Expires
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
	g.giveUp(rec)
	const what = "releasing an unused claim"
	if before == nil || !before.Honored && before.wasSent() { // its claim was unused as well
		g.insist(what, rec.ID, func(ctx context.Context) error { return g.store.Release(ctx, rec.ID, rec.Owner) })
		return
	}
	back := *before
	back.Owner = rec.Owner
	if back.State == Started { // by a process that is gone
		back.State, back.Finished = Open, g.clock.Now()
	}
	restore := func(ctx context.Context) error { return g.store.Finish(ctx, &back) }
	g.insist(what, rec.ID, restore)
	if g.shared != nil { // the claim may be made yet
		time.AfterFunc(ClaimGrace, func() { g.insist(what, rec.ID, restore) })
	}
}

// insist does what the store has to be told of the record of id, though no
// caller waits for it: in a shared store in the background, where others may wait
// for it. What fails is tried again in the background for recordPatience; no more
// are under way at a time than calls may be.
func (g *Gate) insist(what string, id ID, do func(context.Context) error) {
	var err error
	try := func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		defer cancel()
		err = do(ctx)
		return err == nil || errors.Is(err, ErrNotOwner)
	}
	if g.shared == nil && try() {
		return
	}
	if !g.use.enter() {
		return // the store is closed
	}
	if g.insisting.Add(1) > int64(g.limits.Flights) {
		g.insisting.Add(-1)
		g.use.leave()
		g.log.Error("too many have to be tried again: "+what, slog.String("id", id.String()))
		return
	}
	go func() {
		defer g.use.leave()
		defer g.insisting.Add(-1)
		if g.shared != nil && try() {
			return
		}
		g.log.Warn(what+", which is tried again", slog.String("id", id.String()), slog.Any("error", err))
		if !g.persist(try) {
			g.log.Error("gave up "+what, slog.String("id", id.String()), slog.Any("error", err))
		}
	}()
}

// persist calls try, after a while each time, until it succeeds or patience
// ends or the gate is to be closed. It tells whether try succeeded.
func (g *Gate) persist(try func() bool) bool {
	end := time.Now().Add(recordPatience)
	for backoff := recordBackoff; time.Now().Before(end); backoff = min(2*backoff, recordBackoffMax) {
		select {
		case <-time.After(backoff):
		case <-g.use.draining():
			end = time.Time{} // one last try
		}
		if try() {
			return true
		}
	}
	return false
}
