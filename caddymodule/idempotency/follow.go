package idempotency

import (
	"context"
	"log/slog"
	"time"
)

// followInterval is how often a call that another process was sent is looked
// at beside the store's notices, which may be lost.
const followInterval = 500 * time.Millisecond

// follow waits while the call of rec, a repeat of which is f, is under way in
// another process. It returns what the store has when that is over, nil for
// nothing. A record that is still Started was left behind.
func (g *Gate) follow(ctx context.Context, f *flight, rec *Record, call Call) (*Record, error) {
	var changed <-chan struct{}
	var ticks <-chan time.Time
	var watched Owner
	for g.isElsewhere(rec, call) {
		if f.own != nil { // f flies on the goroutine of a caller, who would be kept from leaving
			return nil, errElsewhere
		}
		life, err := g.shared.Life(ctx, rec.Owner.Process())
		if err != nil {
			return nil, storeError(err)
		}
		before := rec
		switch {
		case !life.Alive:
			// It may have finished the call before it went.
		case watched != rec.Owner: // a record that was made anew is watched anew
			f.follow(rec)
			var stop func()
			if changed, stop, err = g.shared.Watch(ctx, f.id); err != nil {
				return nil, storeError(err)
			}
			defer stop()
			watched = rec.Owner
			if ticks == nil {
				ticker := time.NewTicker(followInterval)
				defer ticker.Stop()
				ticks = ticker.C
			}
		default:
			select {
			case <-changed:
			case <-ticks:
			case <-ctx.Done():
				return nil, ErrInUse
			}
			if f.callers.Load() == 0 {
				return nil, errAgain // nobody is left to be told
			}
		}
		if rec, err = g.store.Get(ctx, f.id); err != nil {
			return nil, storeError(err)
		}
		if !life.Alive && rec != nil && rec.State == Started && rec.Owner == before.Owner {
			g.log.Warn("a call was left behind by a process that is gone", slog.String("id", f.id.String()))
			return rec, nil
		}
	}
	return rec, nil
}

// followMargin is how long after a call's deadline its process may take to
// record the outcome. After that nobody is at it, whoever lives: the record is a
// claim that was never used, or one whose outcome was lost.
const followMargin = 30 * time.Second

// isElsewhere tells whether rec is of the same call, claimed by a process that
// may be at it.
func (g *Gate) isElsewhere(rec *Record, call Call) bool {
	if g.shared == nil || rec == nil || rec.State != Started ||
		rec.Owner.Process() == g.process || rec.Fingerprint != call.Fingerprint {
		return false
	}
	// The one is known exactly where the call was not sent before, the other
	// where both processes keep answers for the same time.
	end := rec.Started.Add(call.Deadline)
	if claimed := rec.Expires.Add(-call.Retention); claimed.After(end) {
		end = claimed
	}
	return g.clock.Now().Before(end.Add(followMargin))
}
