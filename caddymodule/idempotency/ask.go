package idempotency

import (
	"context"
	"time"
)

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

// watchWhile is watch where it is wanted.
func (g *Gate) watchWhile(ctx context.Context, id ID, wanted bool) (<-chan struct{}, func(), error) {
	if !wanted {
		return nil, func() {}, nil
	}
	return g.watch(ctx, id)
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
