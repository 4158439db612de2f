package idempotency

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"genesys-sidecar/caddymodule/deadline"
)

// fly takes call from its first caller to its end, on a context of its own. Where f is
// not done then, nothing was claimed: another goroutine is to let call fly. Only flyHere
// comes to that.
func (g *Gate) fly(f *flight, call Call) {
	ctx := deadline.New(context.Background(), call.Deadline)
	claim, out, err := g.claim(ctx, f, call)
	if errors.Is(err, errElsewhere) {
		ctx.Cancel()
		call.Sender.Abandon()
		return
	}
	call.claiming.end()
	if claim == nil {
		ctx.Cancel()
		call.Sender.Abandon()
		if errors.Is(err, errQueued) {
			g.landUnseen(f) // else those who wait for the turn would wake each other without end
		} else {
			g.land(f) // before the result is told, so that a caller that looks again starts anew
		}
		f.finish(out, err)
		return
	}
	f.bind(claim.record)
	f.ours.Store(true)

	g.hold(f, claim.record)
	result := g.send(ctx, call, claim)
	g.hold(f, nil)
	if result.Rest != nil {
		result.Rest = restWithCancel{result.Rest, ctx.Cancel}
	} else {
		ctx.Cancel()
	}

	drops := g.drops.Load()
	rec := finished(claim.record, result, g.clock.Now(), call.Retention)
	if result.Temporary && putBack(rec, claim, result) {
		g.fallBack(f, rec)
		return
	}
	if result.Fate == Freed && f.isFreed() {
		rec.State = Released
	}
	release := result.Fate == Freed && rec.State != Released
	ours, err := g.record(rec, release)
	callers := f.waited()
	if call.place != "" {
		callers-- // who saw to its turn
	}
	call.Sender.Ended(rec, result.Fate, callers)
	if err != nil {
		// The call is over but the store does not know. Until it does, the
		// flight stays in the table, so that repeats get the answer and
		// nobody sends the call again.
		g.log.Error("recording the outcome of a call", slog.String("id", f.id.String()),
			slog.String("state", rec.State.String()), slog.Any("error", err))
		f.unrecorded.Store(true)
		f.finish(told(rec, result), nil)
		go g.recordLater(f, claim, rec, result, release)
		return
	}
	out = told(rec, result)
	if ours && result.Fate != Freed {
		if g.shared != nil {
			// It may be away when a repeat comes. From another store an answer is
			// as well read once, by the first repeat: most are never asked for, and
			// to make room for each costs a tenth of a call.
			g.remember(rec, rec.Finished, drops)
		}
		out.Stored, out.Expires = out.Rest == nil, rec.Expires
	}
	g.land(f)
	f.finish(out, nil)
}

// send calls Send and takes a panic for what it is: an unknown outcome.
func (g *Gate) send(ctx context.Context, call Call, claim *Claim) (result Result) {
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("sending a call panicked", slog.String("id", claim.record.ID.String()),
				slog.String("panic", fmt.Sprint(p)))
			result = Result{}
		}
	}()
	return call.Sender.Send(ctx, claim)
}

// land ends a flight: whoever comes next asks the store.
func (g *Gate) land(f *flight) {
	g.mu.Lock()
	delete(g.flights, f.id)
	g.tellWatchersLocked(f.id)
	g.mu.Unlock()
	g.use.leave()
}

// landUnseen is land for a flight that has left everything as it was.
func (g *Gate) landUnseen(f *flight) {
	g.mu.Lock()
	delete(g.flights, f.id)
	g.mu.Unlock()
	g.use.leave()
}

// restWithCancel ends a call's context with the reading of its answer.
type restWithCancel struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (r restWithCancel) Close() error {
	defer r.cancel()
	return r.ReadCloser.Close()
}
