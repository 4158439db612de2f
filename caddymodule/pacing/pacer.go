package pacing

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// defaultQueue is how many may wait where nothing is said of it.
const defaultQueue = 4096

// Pacer keeps the budget of an organisation. Its methods may be called
// concurrently; those of the nil Pacer do nothing.
//
// The next start goes to the scope among those with somebody waiting that has had
// least of late: in turn, where all want as much as they can get. A scope that
// has had more than its share leaves some of the burst, and some places, to those
// that have not, so that these need not even wait for the next start.
type Pacer struct {
	log    *slog.Logger
	epoch  time.Time
	active atomic.Bool // something is limited

	mu      sync.Mutex
	config  Config
	limits  Limits // those in force, which are less while a shared budget fails
	budget  budget
	timer   *time.Timer
	timerAt time.Duration

	scopes    map[string]*scope
	queued    []*scope // those with somebody waiting
	waiting   int      // in all of them
	inFlight  int
	arrived   uint64
	activeN   int           // how many scopes are active
	usageFrom time.Duration // a start is worth 1 then
	sweepAt   time.Duration
	took      time.Duration // how long a place is taken, on average

	sharing sharing
}

// Config is what a Pacer goes by.
type Config struct {
	Limits Limits

	// Queue is how many calls may wait; 0: 4096.
	Queue int

	// Shared is the budget that is spent together with other processes, known to
	// it by Name. nil: the process has the budget for itself.
	Shared Shared
	Name   string

	// Share is how many of Limits.Starts this process may make while Shared
	// fails. 0: as much as it is when all who shared it last have the same.
	Share int
}

// New returns a pacer that does not limit yet. A nil log discards.
func New(log *slog.Logger) *Pacer {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	p := &Pacer{log: log, epoch: time.Now(), scopes: make(map[string]*scope), timerAt: never}
	p.sharing.wake = make(chan struct{}, 1)
	return p
}

// now returns the time since the epoch.
func (p *Pacer) now() time.Duration { return time.Since(p.epoch) }

// Configure changes what the pacer goes by. What was started before keeps
// counting, and who waits goes on waiting, as far as there is still a limit.
func (p *Pacer) Configure(c Config) {
	if c.Queue <= 0 {
		c.Queue = defaultQueue
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.rebase(now) // the memory may be another one
	if c.Shared != p.config.Shared || c.Name != p.config.Name {
		p.sharing.forget()
	}
	p.config = c
	p.apply(now)
	p.active.Store(c.Limits.Starts > 0 || c.Limits.Concurrency > 0)
	p.sweepAt = now
	p.sweep(now)
	if !p.active.Load() {
		for p.waiting > 0 {
			p.start(p.queued[0].newest(), now, true)
		}
	}
	p.dispatch(now)
	p.ask() // who asks another shared budget, or one that is not needed any more
}

// apply takes over the limits that are in force.
func (p *Pacer) apply(now time.Duration) {
	p.limits = p.config.Limits
	if p.config.Shared != nil && p.sharing.failed {
		p.limits = p.sharing.share(p.config)
	}
	p.budget.configure(now, p.limits)
}

// Active tells whether there is any limit.
func (p *Pacer) Active() bool { return p != nil && p.active.Load() }

// Enter waits for a start within the budget and a place among the calls at a
// time, for a call of scope. Without a limit it returns nil at once.
//
// It returns a *LateError where there is none before deadline (the zero deadline
// is none, but ctx may have one), as soon as that is certain, or too many wait;
// and the error of ctx if that is cancelled first. Then nothing was taken.
func (p *Pacer) Enter(ctx context.Context, scope string, deadline time.Time) (*Slot, error) {
	return p.enter(ctx, scope, deadline, withPlace)
}

// Start is Enter for a call that takes no place: it waits for a start alone.
func (p *Pacer) Start(ctx context.Context, scope string, deadline time.Time) (*Slot, error) {
	return p.enter(ctx, scope, deadline, startOnly)
}

func (p *Pacer) enter(ctx context.Context, name string, deadline time.Time, l lane) (*Slot, error) {
	if !p.Active() {
		return nil, nil
	}
	if err := ctx.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	due := never
	if !deadline.IsZero() {
		due = deadline.Sub(p.epoch)
	}
	if d, ok := ctx.Deadline(); ok {
		due = min(due, d.Sub(p.epoch))
	}

	w, slot, err := p.arrive(ctx, name, due, l)
	if w == nil {
		return slot, err
	}
	var expired <-chan time.Time
	if due != never {
		timer := time.NewTimer(due - w.since)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-w.done:
	case <-expired:
		p.withdraw(w, nil)
	case <-ctx.Done():
		p.withdraw(w, ctx.Err())
	}
	if err := ctx.Err(); w.slot != nil && err != nil {
		w.slot.Unused()
		return nil, p.ended(w, err)
	}
	return w.slot, w.err
}

// arrive lets a call start at once, refuses it, or makes it wait.
func (p *Pacer) arrive(ctx context.Context, name string, deadline time.Duration, l lane) (*waiter, *Slot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.active.Load() {
		return nil, nil, nil
	}
	now := p.now()
	p.sweep(now)
	s := p.scopeOf(name, now)
	if p.waiting == 0 && !p.isShared() && now <= deadline && (l == startOnly || p.hasPlace(s)) {
		if _, ok := p.budget.ask(now, p.leave(s, now)); ok {
			return nil, p.take(s, l, now, now), nil
		}
	}
	if deadline != never && p.expect(s, l, now, deadline) > deadline {
		return nil, nil, p.late(s, l, now, PastDeadline)
	}
	if p.waiting >= p.config.Queue {
		longest := p.longest()
		if s.waiting >= longest.waiting {
			return nil, nil, p.late(s, l, now, QueueFull)
		}
		p.refuse(longest.newest(), now, Displaced)
	}
	p.arrived++
	w := &waiter{ctx: ctx, scope: s, lane: l, number: p.arrived, since: now, deadline: deadline, done: make(chan struct{})}
	p.enqueue(w)
	if p.isShared() {
		p.sharing.arrival(now, p.leave(s, now) == 0)
	}
	p.dispatch(now)
	return w, nil, nil
}

// withdraw ends the waiting of w unless that is over. A nil err means that its
// deadline has come.
func (p *Pacer) withdraw(w *waiter, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.place == nil {
		return
	}
	now := p.now()
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		p.refuse(w, now, PastDeadline)
	} else {
		p.dequeue(w)
		w.err = err
		close(w.done)
	}
	p.dispatch(now) // there may be nothing to ask a shared budget for any more
}

// ended returns what the end of w's context, err, means for it.
func (p *Pacer) ended(w *waiter, err error) error {
	if !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.late(w.scope, w.lane, p.now(), PastDeadline)
}

// refuse ends the waiting of w without a start.
func (p *Pacer) refuse(w *waiter, now time.Duration, reason Reason) {
	p.dequeue(w)
	w.err = p.late(w.scope, w.lane, now, reason)
	close(w.done)
}

// take gives a slot to a call of s that has come at since.
func (p *Pacer) take(s *scope, l lane, since, now time.Duration) *Slot {
	p.budget.take(now)
	s.usage += p.worth(now)
	s.last = now
	if l == withPlace {
		p.inFlight++
		s.inFlight++
	}
	if p.config.Shared != nil {
		if p.sharing.failed {
			p.sharing.spent(now, p.limits)
		}
		p.ask() // that there is one more under way, or whether it works again
	}
	return &Slot{pacer: p, scope: s, lane: l, at: now, counted: now, paced: now - since, local: !p.isShared()}
}

// start ends the waiting of w with a slot, or with none where nothing is limited
// any more. It tells whether w was still there.
func (p *Pacer) start(w *waiter, now time.Duration, unlimited bool) bool {
	p.dequeue(w)
	defer close(w.done)
	if err := w.ctx.Err(); err != nil {
		w.err = err
		if errors.Is(err, context.DeadlineExceeded) {
			w.err = p.late(w.scope, w.lane, now, PastDeadline)
		}
		return false
	}
	if !unlimited {
		w.slot = p.take(w.scope, w.lane, w.since, now)
	}
	return true
}

// dispatch starts who may, and has itself called when the next one may.
func (p *Pacer) dispatch(now time.Duration) {
	if p.config.Shared != nil {
		p.ask()
	}
	if p.isShared() {
		return
	}
	for p.waiting > 0 {
		w := p.turn(nil)
		if w == nil {
			break // all need a place: who leaves one calls again
		}
		at, ok := p.budget.ask(now, p.leave(w.scope, now))
		if !ok {
			p.callAt(at, now)
			return
		}
		p.start(w, now, false)
	}
	p.callAt(never, now)
}

// callAt has dispatch called at at.
func (p *Pacer) callAt(at, now time.Duration) {
	if at == p.timerAt {
		return
	}
	p.timerAt = at
	switch {
	case at == never:
		p.timer.Stop()
	case p.timer == nil:
		p.timer = time.AfterFunc(at-now, p.tick)
	default:
		p.timer.Reset(at - now)
	}
}

func (p *Pacer) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timerAt = never
	p.dispatch(p.now())
}

// expect returns when a call of s that comes now can start at the earliest, as
// far as that is certain by horizon.
func (p *Pacer) expect(s *scope, l lane, now, horizon time.Duration) time.Duration {
	k := p.ahead(s, l, now, horizon)
	if p.isShared() {
		return max(p.budget.hold, p.sharing.next(now, k, p.leave(s, now), p.limits))
	}
	return p.budget.next(now, k, 0)
}

// late returns the error of a call of s that is refused now.
func (p *Pacer) late(s *scope, l lane, now time.Duration, reason Reason) *LateError {
	k := p.ahead(s, l, now, 0)
	leave := p.leave(s, now)
	var at time.Duration
	if p.isShared() {
		at = max(now, p.budget.hold, p.sharing.next(now, (k+1)*max(1, p.sharing.last.Sharers)-1, leave, p.limits))
	} else {
		at = p.budget.next(now, k, leave)
	}
	if c := p.limits.Concurrency; c > 0 && l == withPlace {
		if n := p.waiting + 1 + p.inFlight - c; n > 0 {
			at = max(at, now+p.took*time.Duration(n)/time.Duration(c))
		}
	}
	return &LateError{RetryAfter: at - now, Reason: reason}
}

// Hold lets nothing start for d, at most a day, since the upstream has answered
// 429: it has counted more than the pacer. The limit falls to what was used of it,
// and rises again by a twentieth with each window without another one.
func (p *Pacer) Hold(d time.Duration) {
	if !p.Active() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.budget.complain(now, d)
	if p.config.Shared != nil {
		go p.holdShared(p.config, d)
	}
	var late []*waiter // there is no use in holding them
	for _, s := range p.queued {
		for l := range lanes {
			for e := s.queues[l].Front(); e != nil; e = e.Next() {
				if w := e.Value.(*waiter); w.deadline < p.budget.hold {
					late = append(late, w)
				}
			}
		}
	}
	for _, w := range late {
		p.refuse(w, now, PastDeadline)
	}
	p.dispatch(now)
}
