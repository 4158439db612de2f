package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// never is how long a call took that was not answered.
const never = time.Duration(math.MaxInt64)

// quantile returns what a share q of d is not above. d is sorted by it.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(math.Ceil(q*float64(len(d))))-1)]
}

// figures are what is told of some calls.
type figures struct {
	calls    int
	limited  int // answers 429 that their callers saw
	timeouts int // requests that their callers lost patience with
	errors   int // other answers that are none
	gaveUp   int // calls that were not answered
	p50, p99 time.Duration
}

// figures returns those of the calls that are chosen.
func (r *run) figures(choose func(c call) bool) figures {
	var f figures
	var took []time.Duration
	for i, c := range r.calls {
		if !choose(c) {
			continue
		}
		fate := &r.fates[i]
		f.calls++
		f.limited += fate.limited
		f.timeouts += fate.timeouts
		f.errors += fate.errors
		if fate.answered {
			took = append(took, fate.took)
		} else {
			f.gaveUp++
			took = append(took, never)
		}
	}
	f.p50, f.p99 = quantile(took, 0.5), quantile(took, 0.99)
	return f
}

func (r *run) ofKind(k *kind) figures {
	return r.figures(func(c call) bool { return c.kind == k })
}

// others returns the figures of all calls but the noisy neighbour's.
func (r *run) others() figures {
	return r.figures(func(c call) bool { return c.kind != noisy })
}

// handedOver returns how many calls were handed over, and how long that took in 99 %
// of them.
func (r *run) handedOver() (n int, p99 time.Duration) {
	var took []time.Duration
	for i := range r.fates {
		if d := r.fates[i].accepted; d > 0 {
			took = append(took, d)
		}
	}
	return len(took), quantile(took, 0.99)
}

// within returns what share of the calls of a kind that came beside the noisy
// neighbour was answered within d.
func (r *run) within(k *kind, d time.Duration) float64 {
	calls, answered := 0, 0
	for i, c := range r.calls {
		if c.kind == k && r.scenario.isLoud(c.at) {
			calls++
			if r.fates[i].answered && r.fates[i].took <= d {
				answered++
			}
		}
	}
	return float64(answered) / float64(max(1, calls))
}

// quiet returns the figures of screen pops that came in condition.
func (r *run) quiet(condition condition) figures {
	return r.figures(func(c call) bool { return c.kind == screenPop && r.scenario.condition(c.at) == condition })
}

// hour is what is told of an hour, or of another part of the day: the figures of
// the calls that came in it, but for the neighbour's, and what the platform saw in it.
type hour struct {
	at time.Duration // the time of the day
	figures
	calls      int // the neighbour's included
	executions int
	excess     int // requests beyond the platform's limit
	pops, jobs figures
}

// hours returns the run in parts of length each.
func (r *run) hours(length time.Duration) []hour {
	hours := make([]hour, r.scenario.length/length)
	at := func(t time.Duration) *hour { return &hours[min(len(hours)-1, int(t/length))] }
	for i := range hours {
		h := &hours[i]
		within := func(c call) bool { return int(c.at/length) == i }
		h.at = r.scenario.opens + time.Duration(i)*length
		h.figures = r.figures(func(c call) bool { return within(c) && c.kind != noisy })
		h.pops = r.figures(func(c call) bool { return within(c) && c.kind == screenPop })
		h.jobs = r.figures(func(c call) bool { return within(c) && c.kind == job })
	}
	for _, c := range r.calls {
		at(c.at).calls++
	}
	for _, e := range r.effects {
		at(e.Started.Sub(r.began)).executions++
	}
	for _, t := range r.platform.refused {
		at(t).excess++
	}
	return hours
}

// most returns how many executions there were at once at the most, and how many
// began while as many ran as the platform allows.
func (r *run) most() (most, beyond int) {
	type edge struct {
		at   time.Duration
		step int
	}
	edges := make([]edge, 0, 2*len(r.platform.spans))
	for _, s := range r.platform.spans {
		edges = append(edges, edge{s.from, 1}, edge{s.to, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.step, b.step)) // who ends makes room
	})
	running := 0
	for _, e := range edges {
		running += e.step
		most = max(most, running)
		if e.step > 0 && running > platformPlaces {
			beyond++
		}
	}
	return most, beyond
}

// busiest returns how many executions began within a window at the most.
func (r *run) busiest() int {
	started := make([]time.Duration, 0, len(r.effects))
	for _, e := range r.effects {
		started = append(started, e.Started.Sub(r.began))
	}
	slices.Sort(started)
	most, from := 0, 0
	for to, t := range started {
		for t-started[from] >= platformWindow {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// duplicates returns how many executions there were beyond one of each call. Each
// call has a body of its own.
func (r *run) duplicates() int {
	bodies := make(map[string]struct{}, len(r.effects))
	for _, e := range r.effects {
		bodies[e.BodySHA256] = struct{}{}
	}
	return len(r.effects) - len(bodies)
}

// wrong says what must not be.
func (r *run) wrong() (wrong []string) {
	say := func(format string, args ...any) {
		wrong = append(wrong, r.mode.String()+": "+fmt.Sprintf(format, args...))
	}
	if n := len(r.platform.refused); n != r.excess {
		say("the sandbox has counted %d requests beyond its limit, and answered %d", r.excess, n)
	}
	if r.excess == 0 && r.mode != paced {
		say("no request is beyond the limit, so that the traffic shows nothing")
	}
	if r.mode == direct {
		if r.others().limited == 0 {
			say("nobody sees a 429, so that the traffic shows nothing")
		}
		return wrong
	}
	if n := r.duplicates(); n > 0 {
		say("%d executions were repeated", n)
	}
	answered := 0
	for i := range r.fates {
		if r.fates[i].answered {
			answered++
		}
	}
	if answered > len(r.effects) {
		say("%d calls were answered, and %d executed", answered, len(r.effects))
	}
	if r.mode != paced {
		return wrong
	}
	if r.excess > 0 {
		say("%d requests were beyond the platform's limit", r.excess)
	}
	if n := r.busiest(); n > platformStarts {
		say("%d executions began within %v", n, platformWindow)
	}
	if n, _ := r.most(); n > platformPlaces {
		say("%d executions ran at once", n)
	}
	for _, k := range kinds {
		if k == noisy {
			continue // who asks for more than there is cannot have it
		}
		if f := r.ofKind(k); f.limited+f.timeouts+f.errors+f.gaveUp > 0 {
			say("%s: %d answers were 429, %d came too late, %d were other errors; %d calls were given up", k.title, f.limited, f.timeouts, f.errors, f.gaveUp)
		}
	}
	for i, c := range r.calls {
		if c.kind.handover && r.fates[i].accepted == 0 {
			say("call %d could not be handed over", c.number)
		}
	}
	alone, beside := r.quiet(calm), r.quiet(besideLoud)
	if alone.calls == 0 || beside.calls == 0 || beside.p99 > 2*alone.p99 {
		say("99 %% of screen pops are answered within %v, and within %v beside the noisy neighbour", seconds(alone.p99), seconds(beside.p99))
	}
	return wrong
}
