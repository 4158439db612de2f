package pacing

import (
	"container/list"
	"context"
	"math"
	"time"
)

// lane is what a waiter waits for. Who needs no place is not held up by those
// who wait for one.
type lane int

const (
	withPlace lane = iota // for a start and a place among the calls at a time
	startOnly
	lanes
)

// waiter is a call that waits for its turn. It is guarded by the pacer's mu
// until done is closed.
type waiter struct {
	ctx      context.Context
	scope    *scope
	lane     lane
	number   uint64 // in order of arrival
	since    time.Duration
	deadline time.Duration // never: none
	place    *list.Element // in its queue
	done     chan struct{} // closed once it has slot or err
	slot     *Slot
	err      error
}

const never = time.Duration(math.MaxInt64)

// scope is one of those whose calls are treated alike. It lives while it has
// calls waiting or under way, or has had some in the last few windows.
type scope struct {
	name     string
	queues   [lanes]list.List // of *waiter, in order of arrival
	waiting  int
	index    int // in Pacer.queued, while it has somebody waiting
	inFlight int

	// usage is how much it has had, less and less of it as time goes by: a start
	// is worth more the later it is, in place of all others being worth less,
	// which leaves their order as it is.
	usage  float64
	last   time.Duration // when it last started something
	active bool          // it counts among those who share the budget
}

// oldest returns the one that waits longest in a lane that is open.
func (s *scope) oldest(open [lanes]bool) *waiter {
	var oldest *waiter
	for l := range lanes {
		if front := s.queues[l].Front(); open[l] && front != nil {
			if w := front.Value.(*waiter); oldest == nil || w.number < oldest.number {
				oldest = w
			}
		}
	}
	return oldest
}

// newest returns the one that came last.
func (s *scope) newest() *waiter {
	var newest *waiter
	for l := range lanes {
		if back := s.queues[l].Back(); back != nil {
			if w := back.Value.(*waiter); newest == nil || w.number > newest.number {
				newest = w
			}
		}
	}
	return newest
}

// scope returns the one of that name, which from now on counts as active.
func (p *Pacer) scopeOf(name string, now time.Duration) *scope {
	s, ok := p.scopes[name]
	if !ok {
		s = &scope{name: name, last: -never}
		p.scopes[name] = s
	}
	if !s.active {
		s.active = true
		p.activeN++
	}
	return s
}

// memory is the time constant of usage.
func (p *Pacer) memory() time.Duration {
	if p.limits.Window > 0 {
		return p.limits.Window
	}
	return time.Minute
}

// worth returns what a start at now adds to the usage of its scope.
func (p *Pacer) worth(now time.Duration) float64 {
	x := float64(now-p.usageFrom) / float64(p.memory())
	if x > 50 { // long before it overflows
		p.rebase(now)
		x = 0
	}
	return math.Exp(x)
}

// rebase makes a start at now worth 1.
func (p *Pacer) rebase(now time.Duration) {
	factor := math.Exp(-float64(now-p.usageFrom) / float64(p.memory()))
	for _, s := range p.scopes {
		s.usage *= factor
	}
	p.usageFrom = now
}

// sweep forgets scopes that have not had anything for long. It looks at all of
// them, but not often.
func (p *Pacer) sweep(now time.Duration) {
	if now < p.sweepAt {
		return
	}
	memory := p.memory()
	p.sweepAt = now + memory/10
	p.activeN = 0
	for name, s := range p.scopes {
		idle := now - max(s.last, -memory*10)
		s.active = s.waiting > 0 || s.inFlight > 0 || idle < memory
		if s.active {
			p.activeN++
		} else if idle > 5*memory {
			delete(p.scopes, name)
		}
	}
}

// isHeavy tells whether s has had more than its share of the starts. One that is
// alone has not.
func (p *Pacer) isHeavy(s *scope, now time.Duration) bool {
	return p.limits.Starts > 0 && p.activeN > 1 &&
		s.usage/p.worth(now) > float64(p.budget.limit(now))/float64(p.activeN)
}

// untilHeavy returns how many starts s can have before it is heavy, where it is
// not; at least 1.
func (p *Pacer) untilHeavy(s *scope, now time.Duration) int {
	if p.limits.Starts == 0 || p.activeN < 2 || p.isHeavy(s, now) {
		return s.waiting
	}
	return max(1, p.budget.limit(now)/p.activeN-int(s.usage/p.worth(now)))
}

// leave returns how many starts s has to leave to others.
func (p *Pacer) leave(s *scope, now time.Duration) int {
	if !p.isHeavy(s, now) {
		return 0
	}
	return p.budget.reserve(now)
}

// leavePlaces returns how many places s has to leave to others.
func (p *Pacer) leavePlaces(s *scope) int {
	c := p.limits.Concurrency
	if c < 10 || p.activeN < 2 || s.inFlight <= c/p.activeN {
		return 0
	}
	return max(1, c/10)
}

// hasPlace tells whether a call of s may be under way besides those that are.
func (p *Pacer) hasPlace(s *scope) bool {
	return p.limits.Concurrency == 0 || p.inFlight+p.leavePlaces(s) < p.limits.Concurrency
}

// turn returns whose turn it is: of the scopes with somebody waiting who has a
// place, if it needs one, the one that has had least; of these, the one that has
// waited longest. nil: nobody's. only, unless nil, says which may come.
//
// It looks at all of them. There are at most as many as starts are asked for, and
// far fewer starts than that per second.
func (p *Pacer) turn(only func(*scope, lane) bool) *waiter {
	var first *waiter
	for _, s := range p.queued {
		if first != nil && s.usage > first.scope.usage {
			continue
		}
		open := [lanes]bool{withPlace: p.hasPlace(s), startOnly: true}
		if only != nil {
			for l := range lanes {
				open[l] = open[l] && only(s, l)
			}
		}
		w := s.oldest(open)
		if w != nil && (first == nil || s.usage < first.scope.usage || w.number < first.number) {
			first = w
		}
	}
	return first
}

// enqueue makes w wait.
func (p *Pacer) enqueue(w *waiter) {
	s := w.scope
	w.place = s.queues[w.lane].PushBack(w)
	if s.waiting == 0 {
		s.index = len(p.queued)
		p.queued = append(p.queued, s)
	}
	s.waiting++
	p.waiting++
}

// dequeue ends the waiting of w.
func (p *Pacer) dequeue(w *waiter) {
	s := w.scope
	s.queues[w.lane].Remove(w.place)
	w.place = nil
	p.waiting--
	if s.waiting--; s.waiting == 0 {
		last := p.queued[len(p.queued)-1]
		p.queued[s.index], last.index = last, s.index
		p.queued[len(p.queued)-1] = nil
		p.queued = p.queued[:len(p.queued)-1]
	}
}

// longest returns the scope that has most waiting.
func (p *Pacer) longest() *scope {
	longest := p.queued[0]
	for _, s := range p.queued {
		if s.waiting > longest.waiting {
			longest = s
		}
	}
	return longest
}

// ahead returns how many of those who wait start before one of s that comes now.
// It is about right, or, up to horizon, what is certain.
func (p *Pacer) ahead(s *scope, l lane, now, horizon time.Duration) int {
	worth := p.worth(now)
	later := 1.0 // what a start may be worth by then, other than now
	if horizon != 0 {
		later = math.Exp(min(50, float64(max(0, horizon-now))/float64(p.memory())))
	}
	// Those who wait for a place may have to for long.
	all := l == withPlace || p.hasPlace(s)
	count := func(s *scope) int {
		if all {
			return s.waiting
		}
		return s.queues[startOnly].Len()
	}
	own := count(s)
	n := own
	for _, o := range p.queued {
		if o == s {
			continue
		}
		more := (s.usage - o.usage) / worth
		if more > 0 {
			more /= later
		}
		n += min(count(o), max(0, int(math.Floor(min(more, 1e9)))+own+1))
	}
	return n
}
