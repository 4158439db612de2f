package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// turnWorkers is how many calls from the backlog are at most under way here at
	// a time. How fast they start is for Prepare to say.
	turnWorkers = 64

	// ticketPage is how many tickets are read at a time.
	ticketPage = 1000

	// reviewInterval is how often the backlog is looked at beside the store's
	// notices, which may be missed.
	reviewInterval = time.Second

	turnBackoff    = 250 * time.Millisecond
	turnBackoffMax = 30 * time.Second
)

// turns send the calls of the store's backlog, each when its turn has come: those
// of a lane one after the other in their order, those of different lanes side by
// side, the oldest first.
type turns struct {
	gate   *Gate
	resume atomic.Pointer[func(*Record) (Call, error)]
	begin  sync.Once
	woken  chan struct{}
	rate   rate

	mu    sync.Mutex
	parts map[Part]*part    // guarded by mu; those that are this process's at present
	ready []*lane           // guarded by mu; have a ticket and nobody at it, in the order in which they came to that
	busy  int               // guarded by mu; workers
	lanes map[LaneID]*lane  // guarded by mu; that have tickets, or somebody at one
	fresh map[Part]struct{} // guarded by mu; may have new tickets
	until time.Time         // guarded by mu; when the parts have to be asked for again

	left  int       // guarded by mu; tickets in lanes
	since time.Time // guarded by mu; there have always been some since
	ended int       // guarded by mu; how many have served since then
}

// part is a part of the backlog that this process works on.
type part struct {
	name  Part
	ctx   context.Context // ends when it is not this process's any more
	lose  context.CancelFunc
	after Place // the last ticket that was read
}

// lane has the tickets of a lane in their order.
type lane struct {
	id      LaneID
	part    *part
	tickets []Ticket
	worked  bool // somebody is at the first
	waiting bool // for a while, before the first is looked at again
	failed  int  // how often in succession the first has come to nothing
}

func newTurns(g *Gate) *turns {
	return &turns{
		gate:  g,
		woken: make(chan struct{}, 1),
		parts: make(map[Part]*part),
		lanes: make(map[LaneID]*lane),
		fresh: make(map[Part]struct{}),
	}
}

// Resume has the calls of the store's backlog sent from now on until Close, each
// as resume makes one of its record. Where that returns an error, the call waits.
// A later resume takes the place of the one before.
//
// resume sets Prepare, Abandon, Send, Ended, Honored, Retention and Deadline, and
// leaves the rest alone. Prepare is not bound by the deadline: its context ends
// with the gate.
func (g *Gate) Resume(resume func(*Record) (Call, error)) {
	if g.turns == nil {
		return
	}
	g.turns.resume.Store(&resume)
	g.turns.begin.Do(func() { go g.turns.run() })
}

// Throughput returns how many calls of the backlog have ended here in the last
// minute, and how long it takes until those are through that are this process's
// to send, if it goes on like that; 0: it cannot be told yet, or there are none.
func (g *Gate) Throughput() (lastMinute int, drain time.Duration) {
	if g.turns == nil {
		return 0, 0
	}
	t, now := g.turns, time.Now()
	lastMinute = t.rate.lastMinute(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	busy := now.Sub(t.since)
	ended := t.ended
	if busy > time.Minute {
		busy, ended = time.Minute, lastMinute
	}
	if t.left == 0 || ended == 0 {
		return lastMinute, 0
	}
	return lastMinute, time.Duration(float64(t.left) / float64(ended) * float64(busy))
}

// Served returns how many calls of the backlog have ended here since the gate was
// made.
func (g *Gate) Served() uint64 {
	if g.turns == nil {
		return 0
	}
	return g.turns.rate.all()
}

// wake has part looked at. It does not block.
func (t *turns) wake(p Part) {
	t.mu.Lock()
	t.fresh[p] = struct{}{}
	t.mu.Unlock()
	t.poke()
}

func (t *turns) poke() {
	select {
	case t.woken <- struct{}{}:
	default: // it is about to look
	}
}

// run hands out turns until the gate is to be closed.
func (t *turns) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	draining := t.gate.use.draining()
	ticker := time.NewTicker(reviewInterval)
	defer ticker.Stop()
	all := true // parts are to be looked at, not only those with news
	for {
		if isClosed(draining) || !t.gate.use.enter() {
			return
		}
		err := t.review(ctx, all)
		t.gate.use.leave()
		if err != nil {
			t.gate.log.Debug("looking through the backlog", slog.Any("error", err))
		}
		t.hand(ctx)
		select {
		case <-t.woken:
			all = false
		case <-ticker.C:
			all = true
		case <-draining:
			return
		}
	}
}

// review finds out which parts are this process's and what is new in them.
func (t *turns) review(ctx context.Context, all bool) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	t.mu.Lock()
	due := !time.Now().Before(t.until)
	t.mu.Unlock()
	if due || all {
		if err := t.takeParts(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	var look []*part
	for name, p := range t.parts {
		if _, ok := t.fresh[name]; ok || all {
			look = append(look, p)
		}
	}
	clear(t.fresh)
	t.mu.Unlock()
	for _, p := range look {
		if err := t.read(ctx, p); err != nil {
			t.wakeLater(p.name)
			return err
		}
	}
	return nil
}

// wakeLater has part looked at with the next look.
func (t *turns) wakeLater(p Part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fresh[p] = struct{}{}
}

// takeParts asks which parts are this process's.
func (t *turns) takeParts(ctx context.Context) error {
	asked := time.Now()
	names, lease, err := t.gate.backlog.Parts(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		if !time.Now().Before(t.until) {
			t.loseLocked(nil)
		}
		return err
	}
	t.until = asked.Add(lease / 2)
	ours := make(map[Part]bool, len(names))
	for _, name := range names {
		ours[name] = true
		if t.parts[name] == nil {
			p := &part{name: name}
			p.ctx, p.lose = context.WithCancel(context.Background())
			t.parts[name] = p
			t.fresh[name] = struct{}{}
		}
	}
	t.loseLocked(ours)
	return nil
}

// loseLocked gives up all parts but those in ours. Who is at a call that is not
// claimed yet lets go of it.
func (t *turns) loseLocked(ours map[Part]bool) {
	for name, p := range t.parts {
		if ours[name] {
			continue
		}
		p.lose()
		delete(t.parts, name)
		for id, l := range t.lanes {
			if l.part == p {
				t.left -= len(l.tickets)
				l.tickets = nil
				if !l.worked {
					delete(t.lanes, id)
				}
			}
		}
	}
}

// read reads the tickets of p that are new.
func (t *turns) read(ctx context.Context, p *part) error {
	for {
		tickets, err := t.gate.backlog.Tickets(ctx, p.name, p.after, ticketPage)
		if err != nil {
			return err
		}
		t.mu.Lock()
		for _, ticket := range tickets {
			p.after = ticket.Place
			t.addLocked(p, ticket)
		}
		t.mu.Unlock()
		if len(tickets) < ticketPage {
			return nil
		}
	}
}

func (t *turns) addLocked(p *part, ticket Ticket) {
	l := t.lanes[ticket.Lane]
	if l == nil || l.part != p {
		// (One that was of a part that went and came back may still be at a call
		// of then, which the record will tell.)
		l = &lane{id: ticket.Lane, part: p}
		t.lanes[ticket.Lane] = l
	}
	if t.left == 0 {
		t.since, t.ended = time.Now(), 0
	}
	t.left++
	l.tickets = append(l.tickets, ticket)
	if len(l.tickets) == 1 && !l.worked && !l.waiting {
		t.ready = append(t.ready, l)
	}
}

// hand lets workers go to the calls whose turn it is.
func (t *turns) hand(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.ready) > 0 && t.busy < turnWorkers {
		l := t.ready[0]
		t.ready = t.ready[1:]
		if len(l.tickets) == 0 || l.worked {
			continue // its part was lost
		}
		if !t.gate.use.enter() {
			return
		}
		l.worked = true
		t.busy++
		go t.work(ctx, l, l.tickets[0])
	}
}

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
