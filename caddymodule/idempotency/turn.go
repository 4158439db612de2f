package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// work sees to the first ticket of a lane, and to what comes next there.
func (t *turns) work(ctx context.Context, l *lane, ticket Ticket) {
	defer t.gate.use.leave()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.part.ctx, cancel)()

	over, pause := t.turn(ctx, ticket, l.failed)
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.poke()
	t.busy--
	l.worked = false
	if over {
		l.failed = 0
		if len(l.tickets) > 0 && l.tickets[0].Place == ticket.Place {
			l.tickets = l.tickets[1:]
			t.left--
			t.ended++
		}
	} else {
		l.failed++
	}
	switch {
	case len(l.tickets) == 0:
		if t.lanes[l.id] == l {
			delete(t.lanes, l.id)
		}
	case over:
		t.ready = append(t.ready, l)
	default:
		l.waiting = true
		time.AfterFunc(pause, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			l.waiting = false
			t.ready = append(t.ready, l)
			t.poke()
		})
	}
}

// turn sends the call of ticket. over says that the ticket has served; else its
// turn comes again after pause. failed is how often it has come to nothing before.
func (t *turns) turn(ctx context.Context, ticket Ticket, failed int) (over bool, pause time.Duration) {
	g := t.gate
	pause = min(turnBackoff<<min(failed, 10), turnBackoffMax)
	rec, err := g.store.Get(ctx, ticket.ID)
	switch {
	case err != nil:
		return false, pause
	case rec.mayYield(ticket) && g.clock.Now().Sub(ticket.Since) < ClaimGrace:
		return false, turnBackoff // its record may be on its way
	case !rec.waitsAt(ticket.Place):
		return t.punch(ctx, ticket), pause
	}
	resume := *t.resume.Load()
	call, err := resume(rec)
	if err != nil {
		g.log.Warn("a call waits that cannot be sent by this configuration", slog.String("id", rec.ID.String()), slog.Any("error", err))
		return false, turnBackoffMax
	}
	if rec.State == Queued {
		// Before its turn, so that its deadline begins with it.
		if err := call.Sender.Prepare(ctx); err != nil {
			call.Sender.Abandon()
			return false, pause
		}
	}
	call.ID, call.Key, call.UpstreamKey = rec.ID, rec.Key, rec.UpstreamKey
	call.Fingerprint, call.Label, call.Adoption = rec.Fingerprint, rec.Label, rec.Adoption
	call.place = ticket.Place
	if rec.State == Queued {
		call.prepared = true
		call.Retention = rec.retention()
	}
	out, err := g.takeTurn(ctx, call)
	switch {
	case errors.Is(err, errTurnOver), errors.Is(err, ErrResultUnavailable):
	case errors.Is(err, ErrInUse):
		return false, turnBackoff // it is under way already
	case err != nil:
		return false, pause
	}
	return t.close(ctx, ticket, out != nil && out.Fate == Unsure)
}

// takeTurn is Do for call, whose turn has come. What was prepared for it is used, or
// abandoned.
func (g *Gate) takeTurn(ctx context.Context, call Call) (*Outcome, error) {
	for {
		f, first, err := g.board(call)
		if err != nil {
			call.Sender.Abandon()
			return nil, err
		}
		if first {
			g.crew.launch(f, call)
		}
		out, err := g.await(ctx, f, call, first, false)
		g.alight(f)
		if out != nil && out.Rest != nil {
			_ = out.Rest.Close() // nobody is there to have it
		}
		asked := errors.Is(err, errQueued) && !errors.Is(err, errPutBack) || out != nil && out.Fate == Pending
		if !first && (asked || errors.Is(err, errAgain)) {
			continue // somebody was just handing it over, or asking about it
		}
		if !first {
			call.Sender.Abandon()
		}
		return out, err
	}
}

// mayYield tells whether the record of ticket may yet take the place of r, which is
// nil where there is none: one that ended before the ticket was made does not keep a
// call from being handed over.
func (r *Record) mayYield(ticket Ticket) bool {
	if r == nil {
		return true
	}
	return r.State == Released && !r.Finished.Truncate(time.Millisecond).After(ticket.Since)
}

// close sees to it that nothing is left of a turn whose call has ended. unsure says
// that it has not been sent again, although its outcome is unknown.
func (t *turns) close(ctx context.Context, ticket Ticket, unsure bool) (over bool, pause time.Duration) {
	g := t.gate
	rec, err := g.store.Get(ctx, ticket.ID)
	if err != nil {
		return false, turnBackoff
	}
	if rec.waitsAt(ticket.Place) {
		recs := []*Record{rec}
		standings, err := g.Standings(ctx, recs)
		if rec = recs[0]; err != nil || rec.waitsAt(ticket.Place) && (!unsure || standings[0] == Started) {
			return false, turnBackoff // it is under way, or its outcome is being recorded
		}
		if rec.waitsAt(ticket.Place) {
			// A crash has left it, and it cannot be sent again.
			end := *rec
			end.State, end.Deferred = standings[0], nil
			end.Finished = g.noticedEnd(rec, g.clock.Now())
			if err := g.store.Finish(ctx, &end); err != nil {
				return false, turnBackoff
			}
		}
	}
	if !t.punch(ctx, ticket) {
		return false, turnBackoff
	}
	t.rate.add(time.Now())
	return true, 0
}

// punch takes a ticket that has served out of the backlog.
func (t *turns) punch(ctx context.Context, ticket Ticket) bool {
	if err := t.gate.backlog.Dequeue(ctx, ticket.Place); err != nil {
		t.gate.log.Warn("taking a call out of the backlog", slog.String("id", ticket.ID.String()), slog.Any("error", err))
		return false
	}
	return true
}
