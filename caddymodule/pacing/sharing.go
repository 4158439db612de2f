package pacing

import (
	"context"
	"log/slog"
	"time"
)

const (
	pollEvery   = 50 * time.Millisecond // where no time is known at which more can start
	reportEvery = 2 * time.Second       // how many calls are under way
	retryEvery  = time.Second           // after an error
	takeTimeout = time.Second
)

// sharing is what a pacer knows of the budget that it shares. It is guarded by
// the pacer's mu.
type sharing struct {
	running bool          // there is a goroutine that asks
	wake    chan struct{} // has it look again
	failed  bool          // the last ask did
	last    Grant
	heardAt time.Duration // when that was
	left    int           // Ask.Leave of the last ask that got less than it wanted

	askAt     time.Duration // no earlier is asked for more
	reportAt  time.Duration // then at the latest is told how many are under way
	reported  int           // how many were
	exhausted bool          // askAt is when the budget has the next start

	// What the budget is yet to be told of.
	late []time.Duration // when starts were granted that have come later
	own  []time.Duration // when there were starts from the share
}

func (s *sharing) forget() {
	s.failed, s.exhausted, s.last, s.askAt, s.reported, s.late, s.own = false, false, Grant{}, 0, 0, nil, nil
}

// share returns the limits of a process that is left to itself.
func (s *sharing) share(c Config) Limits {
	l := c.Limits
	part := func(n int) int {
		switch {
		case n == 0:
			return 0
		case c.Share > 0 && l.Starts > 0:
			return max(1, int(int64(n)*int64(min(c.Share, l.Starts))/int64(l.Starts)))
		default:
			return max(1, n/max(1, s.last.Sharers))
		}
	}
	return Limits{Starts: part(l.Starts), Window: l.Window, Burst: part(l.Burst), Concurrency: part(l.Concurrency)}
}

// next returns when a call may start after k others, as far as that is known.
func (s *sharing) next(now time.Duration, k, leave int, l Limits) time.Duration {
	if !s.exhausted || s.askAt <= now || leave < s.left || l.Starts == 0 {
		return now
	}
	limit := l.Starts
	if s.last.Limit > 0 {
		limit = min(limit, s.last.Limit)
	}
	return s.askAt + time.Duration(k)*(l.Window/time.Duration(limit))
}

// arrival has the budget asked at once for one that could get what the last one
// that asked could not.
func (s *sharing) arrival(now time.Duration, light bool) {
	if s.askAt > now && (!s.exhausted || light && s.left > 0) {
		s.askAt = now
	}
}

// isShared tells whether it is the shared budget that decides.
func (p *Pacer) isShared() bool { return p.config.Shared != nil && !p.sharing.failed }

// placeFreed takes down that there is a place more, for others as well.
func (p *Pacer) placeFreed(now time.Duration) {
	if p.config.Shared == nil {
		return
	}
	s := &p.sharing
	if p.limits.Concurrency > 0 {
		s.reportAt = min(s.reportAt, now+pollEvery)
	}
	if !s.exhausted && !s.failed {
		s.askAt = min(s.askAt, now)
	}
	p.ask()
}

// ask sees to it that the shared budget is asked for what is needed.
func (p *Pacer) ask() {
	if !p.sharing.running {
		if !p.needsShared() {
			return
		}
		p.sharing.running = true
		go p.share()
		return
	}
	select {
	case p.sharing.wake <- struct{}{}:
	default:
	}
}

// needsShared tells whether the shared budget has to hear of this process.
func (p *Pacer) needsShared() bool {
	if p.config.Shared == nil || !p.active.Load() {
		return false
	}
	return p.waiting > 0 || p.inFlight > 0 || len(p.sharing.late) > 0 ||
		p.sharing.reported > 0 && p.limits.Concurrency > 0 && !p.sharing.failed
}

// share asks the shared budget for as long as that is needed.
func (p *Pacer) share() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if !p.needsShared() {
			p.sharing.running = false
			return
		}
		now := p.now()
		if due := p.askDue(); due > now {
			p.mu.Unlock()
			timer.Reset(due - now)
			select {
			case <-timer.C:
			case <-p.sharing.wake:
			}
			p.mu.Lock()
			continue
		}
		p.askOnce(now)
	}
}

// askDue returns when the shared budget is to be asked.
func (p *Pacer) askDue() time.Duration {
	s := &p.sharing
	if s.failed {
		return s.askAt
	}
	if len(s.late) > 0 {
		return 0 // before more are granted
	}
	due := never
	if p.waiting > 0 && p.turn(nil) != nil {
		due = max(s.askAt, p.budget.hold)
	}
	if p.inFlight > 0 || s.reported > 0 {
		due = min(due, s.reportAt)
	}
	return due
}

// askOnce asks once. It gives up the pacer's mu meanwhile.
func (p *Pacer) askOnce(now time.Duration) {
	s := &p.sharing
	c := p.config
	limits := c.Limits
	request := Ask{InFlight: p.inFlight}
	late, own := s.late, s.own
	s.late, s.own = nil, nil
	request.Late, request.Own = ages(late, now), ages(own, now)
	var eligible, sameLane func(*scope, lane) bool
	if w := p.turn(nil); w != nil && !s.failed && max(s.askAt, p.budget.hold) <= now {
		request.Leave = p.leave(w.scope, now)
		if w.lane == withPlace {
			request.LeaveConcurrency = p.leavePlaces(w.scope)
		} else {
			limits.Concurrency = 0
		}
		sameLane = func(_ *scope, l lane) bool { return l == w.lane }
		// What is granted is for those that have to leave no more.
		eligible = func(o *scope, l lane) bool {
			return l == w.lane && p.leave(o, p.now()) <= request.Leave &&
				(l != withPlace || p.leavePlaces(o) <= request.LeaveConcurrency)
		}
		for _, o := range p.queued {
			if eligible(o, w.lane) {
				request.Want += min(o.queues[w.lane].Len(), p.untilHeavy(o, now))
			}
		}
		if limits.Concurrency > 0 {
			request.Want = min(request.Want, limits.Concurrency-p.inFlight)
		}
	}

	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), takeTimeout)
	grant, err := c.Shared.Take(ctx, c.Name, limits, request)
	cancel()
	p.mu.Lock()
	now = p.now()
	if p.config.Shared != c.Shared || p.config.Name != c.Name {
		return // it is another's by now
	}
	if err != nil {
		s.late, s.own = append(late, s.late...), append(own, s.own...)
		p.fail(now, err)
		return
	}
	s.last, s.heardAt = grant, now
	s.reported, s.reportAt = request.InFlight, now+reportEvery
	if p.limits.Concurrency > 0 && p.inFlight < request.InFlight {
		s.reportAt = now + pollEvery // some have ended meanwhile
	}
	if s.failed {
		s.failed = false
		p.log.Info("the shared budget can be had again", slog.Int("sharers", grant.Sharers))
		p.apply(now)
		p.callAt(never, now)
		s.askAt = now
		return
	}
	if request.Want == 0 {
		return
	}
	for n := 0; n < grant.Starts; {
		w := p.turn(eligible)
		if w == nil {
			w = p.turn(sameLane) // those have left meanwhile
		}
		if w == nil {
			break
		}
		if p.start(w, now, false) {
			n++
		}
	}
	s.exhausted, s.left, s.askAt = false, 0, now
	if grant.Starts < request.Want {
		s.left = request.Leave
		s.exhausted = grant.Wait > 0
		s.askAt = now + pollEvery
		if s.exhausted {
			s.askAt = now + grant.Wait
		}
	}
}

// ages returns how long ago at now each of times was.
func ages(times []time.Duration, now time.Duration) []time.Duration {
	ages := make([]time.Duration, len(times))
	for i, at := range times {
		ages[i] = now - at
	}
	return ages
}

// spent takes down a start from the share, which the shared budget is told of once
// it answers again. Those that count no more by then are forgotten.
func (s *sharing) spent(now time.Duration, l Limits) {
	if len(s.own) >= max(1, l.Starts) {
		s.own = s.own[1:]
	}
	s.own = append(s.own, now)
}

// fail goes on with the process's share, until the shared budget can be had.
func (p *Pacer) fail(now time.Duration, err error) {
	s := &p.sharing
	s.askAt = now + retryEvery
	if !s.failed {
		s.failed, s.exhausted = true, false
		p.apply(now)
		p.log.Warn("the shared budget does not answer; this process goes on with its share",
			slog.Int("starts", p.limits.Starts), slog.Duration("window", p.limits.Window),
			slog.Int("concurrency", p.limits.Concurrency), slog.Any("error", err))
	}
	p.dispatch(now)
}

// holdShared tells the others what the upstream has answered.
func (p *Pacer) holdShared(c Config, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), takeTimeout)
	defer cancel()
	if err := c.Shared.Hold(ctx, c.Name, c.Limits, min(d, maxHold)); err != nil {
		p.log.Warn("telling the shared budget of a 429", slog.Any("error", err))
	}
}
