package idempotency

import (
	"context"
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
