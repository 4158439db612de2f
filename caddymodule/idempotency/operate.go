package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// What operators do with records goes through the gate, since callers may come
// for the same calls meanwhile: they wait until it is done.

var (
	// ErrNoRecord is returned for an ID that has no record.
	ErrNoRecord = errors.New("there is no such call")

	// ErrUnderWay is returned for a call that runs, or that a caller is asking
	// about at this moment.
	ErrUnderWay = errors.New("the call is under way")

	// ErrKnown is returned for a call whose outcome is known already.
	ErrKnown = errors.New("the outcome of the call is known")
)

// longestCall is how long after its start a call that another process claimed
// counts as under way while that process lives. It errs on the safe side: a
// call that is wrongly said to have not run runs again.
const longestCall = trust

// InFlight returns how many calls are under way here.
func (g *Gate) InFlight() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.flights)
}

// Waiters returns how many callers wait here, the calls' own included.
func (g *Gate) Waiters() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiters
}

// Standings tells what records of calls mean now: Started only if the call is
// under way; Unknown or Open if it was left behind. Records that have changed
// since they were read are replaced in recs, by nil where there is none any more.
func (g *Gate) Standings(ctx context.Context, recs []*Record) ([]State, error) {
	standings := make([]State, len(recs))
	lives := lives{gate: g}
	for i, rec := range recs {
		if rec.State == Started && rec.Owner.Process() == g.process {
			if g.flies(rec.ID) {
				standings[i] = Started
				continue
			}
			// It may have ended since rec was read. A flight ends after its outcome
			// was recorded, so that what the store says now is what is known.
			var err error
			if recs[i], err = g.store.Get(ctx, rec.ID); err != nil {
				return nil, storeError(err)
			}
			if rec = recs[i]; rec == nil {
				continue
			}
			if rec.State == Started && g.flies(rec.ID) {
				standings[i] = Started // it has begun anew
				continue
			}
		}
		var err error
		if standings[i], err = g.leftAs(ctx, rec, &lives); err != nil {
			return nil, err
		}
	}
	return standings, nil
}

// flies tells whether the call with id is under way here.
func (g *Gate) flies(id ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.flights[id]
	return ok
}

// leftAs tells what the record of a call means that is not under way here.
func (g *Gate) leftAs(ctx context.Context, rec *Record, lives *lives) (State, error) {
	age := g.clock.Elapsed(rec.Started)
	switch rec.State {
	case Started:
		if g.shared != nil && rec.Owner.Process() != g.process && age < longestCall {
			life, err := lives.of(ctx, rec.Owner.Process())
			if err != nil {
				return 0, err
			}
			if life.Alive {
				return Started, nil
			}
		}
	case Open:
	default:
		return rec.State, nil
	}
	if rec.Honored && age < trust {
		return Open, nil
	}
	return Unknown, nil
}

// Resolution is an operator's word on a call whose outcome nobody knows.
type Resolution struct {
	// Executed says that the call ran: it is never sent again. Else it did not,
	// and its key is free.
	Executed bool

	// Answer is what repeats of a call that ran are told; nil: that it ran, and
	// that its answer is not kept.
	Answer *Answer

	// Note is kept with the call. It is cut to MaxText bytes.
	Note string
}

// Resolve takes r for the outcome of the call with id, and returns its record.
// Its errors are ErrNoRecord, ErrUnderWay, ErrKnown, and those that wrap
// ErrStore, after which the outcome is as unknown as before.
func (g *Gate) Resolve(ctx context.Context, id ID, r Resolution) (*Record, error) {
	f, rec, err := g.seize(ctx, id)
	if err != nil {
		return nil, err
	}
	defer g.cede(f)
	switch standing, err := g.leftAs(ctx, rec, &lives{gate: g}); {
	case err != nil:
		return nil, err
	case standing == Started, standing == Queued:
		return nil, ErrUnderWay
	case standing == Done, standing == Released:
		return nil, ErrKnown
	}

	// A new claim: what the one before may yet come to does not count against
	// an operator's word, and two operators have one word.
	claim := *rec
	claim.State = Started
	claim.Owner = g.process.NewOwner()
	claim.Finished = time.Time{}
	claim.Deferred = nil // whatever becomes of this, it is not sent
	now := g.clock.Now()
	ended := g.noticedEnd(rec, now)
	if r.Executed { // it is kept for as long as it would have been from now on
		claim.Expires = rec.Expires.Add(now.Sub(ended))
	}
	standing, err := g.store.Claim(ctx, &claim, rec.Owner)
	if err != nil {
		if !errors.Is(err, ErrNotMade) {
			g.restore(rec, &claim)
		}
		return nil, storeError(err)
	}
	if standing != nil {
		return nil, ErrUnderWay // somebody else was faster
	}

	end := claim
	end.State = Released
	end.Finished = ended // not now: who repeats it may mean another call by now
	end.Answer = nil
	if r.Executed {
		end.State, end.Answer = Done, r.Answer
	}
	end.Journal = end.Journal.says(Word{Said: now, Executed: r.Executed, Note: r.Note})
	if err := g.store.Finish(ctx, &end); err != nil {
		g.restore(rec, &claim)
		return nil, storeError(err)
	}
	if !r.Executed {
		if err := g.store.Settle(ctx, id, end.Owner); err != nil {
			// A keyless repeat takes its place then, under the same key.
			g.log.Warn("settling a call that did not run", slog.String("id", id.String()), slog.Any("error", err))
		}
	}
	return &end, nil
}

// noticedEnd returns when the call of rec, which is not under way, has ended as far as
// its callers could notice.
func (g *Gate) noticedEnd(rec *Record, now time.Time) time.Time {
	switch {
	case !rec.Finished.IsZero():
		return rec.Finished
	case g.shared == nil && rec.Owner.Process() != g.process:
		return g.opened // by a process that is gone; they could not come back before
	default:
		return now
	}
}

// restore puts rec back over claim, which was made, or may have been, and came
// to nothing.
func (g *Gate) restore(rec, claim *Record) {
	g.lose(claim) // it must not look as if it had not been used
	back := *rec
	back.Owner = claim.Owner
	if back.State == Started { // by a process that is gone
		back.State, back.Finished = Unknown, g.clock.Now()
		if back.Honored {
			back.State = Open
		}
	}
	const what = "putting back a call that was not resolved"
	finish := func(ctx context.Context) error { return g.store.Finish(ctx, &back) }
	g.insist(what, rec.ID, finish)
	if g.shared != nil { // the claim may be made yet
		time.AfterFunc(ClaimGrace, func() { g.insist(what, rec.ID, finish) })
	}
}

// Forget removes the record of id, whose key is then free. Its errors are
// ErrNoRecord, ErrUnderWay and those that wrap ErrStore.
func (g *Gate) Forget(ctx context.Context, id ID) error {
	err := g.change(ctx, id, func(rec *Record) error {
		if rec.State == Queued {
			return g.withdraw(ctx, rec) // whoever has read it finds it withdrawn, not gone
		}
		if err := g.store.Release(ctx, id, rec.Owner); err != nil {
			return err
		}
		g.dequeue(ctx, rec)
		return nil
	})
	if errors.Is(err, ErrNoRecord) { // it may be an earlier Forget that nobody was told of
		err = errors.Join(err, g.dropAll(ctx, id))
	}
	return err
}

// change has do change the record of id, unless its call is under way, and sees
// to it that no process repeats from memory what it was.
func (g *Gate) change(ctx context.Context, id ID, do func(*Record) error) error {
	f, rec, err := g.seize(ctx, id)
	if err != nil {
		return err
	}
	defer g.cede(f)
	switch standing, err := g.leftAs(ctx, rec, &lives{gate: g}); {
	case err != nil:
		return err
	case standing == Started:
		return ErrUnderWay
	}
	// Before, so that nothing is changed that cannot be told; and after, for who
	// has read it meanwhile.
	if err := g.dropAll(ctx, id); err != nil {
		return err
	}
	switch err := do(rec); {
	case errors.Is(err, ErrNotOwner), errors.Is(err, ErrUnderWay):
		return ErrUnderWay // somebody else was faster
	case err != nil:
		return storeError(err) // and it may have been done
	}
	g.drop(id, false)
	if g.shared != nil {
		g.insist("having other processes drop a call from memory", id, func(ctx context.Context) error {
			return g.shared.Drop(ctx, id)
		})
	}
	return nil
}

// dropAll has this process and all others drop what they have in memory of id.
func (g *Gate) dropAll(ctx context.Context, id ID) error {
	g.drop(id, false)
	if g.shared == nil {
		return nil
	}
	if err := g.shared.Drop(ctx, id); err != nil {
		return fmt.Errorf("%w: telling other processes: %w", ErrStore, err)
	}
	return nil
}

// drop takes what was changed after it had ended out of the cache.
func (g *Gate) drop(id ID, all bool) {
	g.drops.Add(1) // before: see remember
	if all {
		g.cache.Load().clear()
	} else {
		g.cache.Load().drop(id)
	}
}

// remember puts rec, which was read or recorded since there were drops drops, into
// the cache, unless it may have been changed since.
func (g *Gate) remember(rec *Record, now time.Time, drops int64) {
	if g.drops.Load() != drops {
		return
	}
	cache := g.cache.Load()
	cache.set(rec, now)
	if g.drops.Load() != drops {
		cache.drop(rec.ID)
	}
}

// seize keeps callers from the call with id and returns its record. Where it
// returns no error, cede must follow.
func (g *Gate) seize(ctx context.Context, id ID) (*flight, *Record, error) {
	if !g.use.enter() {
		return nil, nil, ErrClosed
	}
	g.mu.Lock()
	if _, ok := g.flights[id]; ok {
		g.mu.Unlock()
		g.use.leave()
		return nil, nil, ErrUnderWay
	}
	f := newFlight(id, Fingerprint{})
	g.flights[id] = f
	g.mu.Unlock()

	rec, err := g.store.Get(ctx, id)
	switch {
	case err != nil:
		err = storeError(err)
	case rec == nil:
		err = ErrNoRecord
	}
	if err != nil {
		g.cede(f)
		return nil, nil, err
	}
	return f, rec, nil
}

// cede lets the callers of f's call go on, who find out anew what is known.
func (g *Gate) cede(f *flight) {
	g.land(f)
	f.finish(nil, errAgain)
}
