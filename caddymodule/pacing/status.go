package pacing

import (
	"cmp"
	"slices"
	"time"
)

// Status is how a pacer stands.
type Status struct {
	Limits Limits // those that are configured

	// Limit is how many calls may start within a window at present: less than
	// Limits.Starts after a 429, or where a shared budget fails. Used is how many
	// have, those of other processes included where the budget is shared.
	Limit, Used int

	// InFlight is how many calls are under way that take a place, likewise.
	InFlight int

	Waiting int           // how many calls wait in this process
	Queue   int           // how many may
	Scopes  []ScopeStatus // whose they are, the most first, at most 10
	Oldest  time.Duration // how long the one has waited that has waited longest

	// NextSlot is how long it is until the next call can start as far as that is
	// a matter of time. It is the next of those that wait, if any does.
	NextSlot time.Duration

	Held time.Duration // how long nothing starts, after a 429

	// Shared tells that the budget is shared and can be had, Fallback that it is
	// and cannot. Sharers is how many processes shared it last.
	Shared, Fallback bool
	Sharers          int
}

// ScopeStatus is how many calls of a scope wait.
type ScopeStatus struct {
	Scope   string
	Waiting int
}

// Status returns how the pacer stands. It is the zero Status where nothing is
// limited.
func (p *Pacer) Status() Status {
	if !p.Active() {
		return Status{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.budget.advance(now)
	s := Status{
		Limits:   p.config.Limits,
		Limit:    p.budget.limit(now),
		Used:     p.budget.used,
		InFlight: p.inFlight,
		Waiting:  p.waiting,
		Queue:    p.config.Queue,
		Held:     max(0, p.budget.hold-now),
		Shared:   p.isShared(),
		Fallback: p.config.Shared != nil && p.sharing.failed,
		Sharers:  p.sharing.last.Sharers,
	}
	next := p.budget.next(now, 0, 0)
	if s.Shared {
		// What others have had is as of the last answer. That is forgotten when it
		// cannot be true any more.
		next = max(now, p.budget.hold, p.sharing.next(now, 0, 0, p.limits))
		if now < p.sharing.heardAt+p.limits.Window || p.limits.Window == 0 {
			s.Used, s.InFlight = max(s.Used, p.sharing.last.Used), max(s.InFlight, p.sharing.last.InFlight)
			if p.sharing.last.Limit > 0 {
				s.Limit = p.sharing.last.Limit
			}
		}
	}
	s.NextSlot = next - now
	for _, o := range p.queued {
		s.Scopes = append(s.Scopes, ScopeStatus{o.name, o.waiting})
		s.Oldest = max(s.Oldest, now-o.oldest([lanes]bool{true, true}).since)
	}
	slices.SortFunc(s.Scopes, func(a, b ScopeStatus) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Scope, b.Scope))
	})
	s.Scopes = s.Scopes[:min(len(s.Scopes), 10)]
	return s
}
