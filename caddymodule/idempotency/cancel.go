package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

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
