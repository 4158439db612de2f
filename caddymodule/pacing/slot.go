package pacing

import "time"

// Slot is the right to make one attempt. The nil Slot is that of a pacer that
// does not limit; its methods do nothing. They may be called concurrently.
type Slot struct {
	pacer   *Pacer
	scope   *scope
	lane    lane
	at      time.Duration // when it was given
	counted time.Duration // in the window of when it is; guarded by the pacer's mu
	paced   time.Duration
	local   bool // the start is from a budget of this process alone
	over    bool // guarded by the pacer's mu
}

const (
	// lateness is the part of a window by which a start may come later than it was
	// granted without a shared budget being told. A budget that is told of each
	// would be asked twice as often.
	lateness = 200

	// maxLate is how many of them it is told of at a time.
	maxLate = 1000
)

// Paced returns how long the slot was waited for.
func (s *Slot) Paced() time.Duration {
	if s == nil {
		return 0
	}
	return s.paced
}

// Sending says that the request leaves now, which may be some time after the slot
// was given: it counts in the windows from now on, as it does for the upstream.
func (s *Slot) Sending() {
	if s == nil {
		return
	}
	p := s.pacer
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	switch {
	case s.over:
	case s.local:
		if p.budget.move(now, s.counted) {
			s.counted = now
		}
	case p.isShared() && now-s.at > p.limits.Window/lateness && len(p.sharing.late) < maxLate:
		p.sharing.late = append(p.sharing.late, s.at)
		p.ask()
	}
}

// Leave says that the attempt is over: its place is free for another. Only the
// first call of Leave or Unused counts.
func (s *Slot) Leave() { s.end(false) }

// Unused says that nothing was sent: the start is given back as well, unless the
// budget is shared, of which another may have taken it for used by then.
func (s *Slot) Unused() { s.end(true) }

func (s *Slot) end(unused bool) {
	if s == nil {
		return
	}
	p := s.pacer
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish(s, unused, p.now())
}

// finish ends s.
func (p *Pacer) finish(s *Slot, unused bool, now time.Duration) {
	if s.over {
		return
	}
	s.over = true
	if unused && s.local {
		p.budget.giveBack(now, s.counted)
		s.scope.usage = max(0, s.scope.usage-p.worth(s.at))
	}
	if s.lane == withPlace {
		p.inFlight--
		s.scope.inFlight--
		if !unused {
			p.tookOnAverage(now - s.at)
		}
		p.placeFreed(now)
	}
	p.dispatch(now)
}

// tookOnAverage learns how long a place is taken.
func (p *Pacer) tookOnAverage(d time.Duration) {
	if p.took == 0 {
		p.took = d
		return
	}
	p.took += (d - p.took) / 8
}
