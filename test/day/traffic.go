package main

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// kind is a kind of caller.
type kind struct {
	name     string
	title    string        // for people
	patience time.Duration // for one request
	attempts int           // how many requests it makes for a call at the most
	backoff  time.Duration // before the second request; doubled with each. 0: none, whatever the answer says
	keyed    bool          // it sends an Idempotency-Key, the same with each request for a call
	handover bool          // it hands calls over where they are paced
}

// The kinds of callers, in the order in which they are reported.
var (
	screenPop = &kind{name: "pop", title: "screen pops", patience: 16 * time.Second, attempts: 3, backoff: time.Second}
	script    = &kind{name: "app", title: "agents' scripts", patience: 30 * time.Second, attempts: 4, backoff: time.Second, keyed: true}
	job       = &kind{name: "job", title: "hourly job", patience: 10 * time.Minute, attempts: 4, backoff: time.Second, keyed: true}
	reports   = &kind{name: "report", title: "hourly reports", patience: 10 * time.Minute, attempts: 4, backoff: time.Second, keyed: true, handover: true}
	noisy     = &kind{name: "noisy", title: "noisy neighbour", patience: time.Minute, attempts: 20, keyed: true}

	kinds = []*kind{screenPop, script, job, reports, noisy}
)

// call is a call that somebody means to make once.
type call struct {
	number  int
	at      time.Duration // since the day began
	kind    *kind
	caller  string        // its scope
	latency time.Duration // how long the action runs
}

// How many callers there are, and what they want.
const (
	pops    = 3
	popGap  = 6 * time.Second // between the calls of one, on average
	scripts = 4

	nightRate, dayRate, peakRate = 6.0, 80.0, 150.0 // calls of all scripts a minute

	leastJob, mostJob = 400, 600 // calls of the job and the reports together

	noisyRate = 10 * platformStarts / (pops + scripts + 3) // calls a minute: ten times a fair share
)

// scenario is what is played.
type scenario struct {
	seed   uint64
	length time.Duration
	opens  time.Duration   // what time it is when it begins
	bursts []time.Duration // when the job begins
	noisy  []time.Duration // when the neighbour begins to be noisy
	loud   time.Duration   // how long it is
}

// day is the whole one. The neighbour is noisy at both peaks.
func day(seed uint64) scenario {
	s := scenario{seed: seed, length: 24 * time.Hour, noisy: []time.Duration{clock(10, 20), clock(15, 20)}, loud: 15 * time.Minute}
	for h := range 24 {
		s.bursts = append(s.bursts, clock(h, 0))
	}
	return s
}

// quick is an hour, with all that happens in a day.
func quick(seed uint64) scenario {
	return scenario{
		seed:   seed,
		length: time.Hour,
		opens:  clock(12, 0),
		bursts: []time.Duration{clock(0, 0), clock(0, 45)},
		noisy:  []time.Duration{clock(0, 20)},
		loud:   5 * time.Minute,
	}
}

func clock(h, m int) time.Duration {
	return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute
}

// scriptRate is how many calls a minute the scripts make at a time of the day: little
// at night, more from 7 to 21 o'clock, and most around 10:30 and 15:30.
func scriptRate(at time.Duration) float64 {
	h := at.Hours()
	open := 1/(1+math.Exp(-(h-7.5)*3)) - 1/(1+math.Exp(-(h-20)*3))
	peak := math.Exp(-(h-10.5)*(h-10.5)/1.5) + math.Exp(-(h-15.5)*(h-15.5)/1.5)
	return nightRate + (dayRate-nightRate)*open + (peakRate-dayRate)*min(1, peak)
}

// calls returns those of the day, in their order. They depend on the seed alone.
func (s scenario) calls() []call {
	r := rand.New(rand.NewPCG(s.seed, 1))
	var all []call
	add := func(at time.Duration, k *kind, caller string) {
		if at < s.length {
			all = append(all, call{at: at, kind: k, caller: caller, latency: latency(r)})
		}
	}
	for n := range pops {
		for at := randomly(r, popGap); at < s.length; at += popGap/2 + randomly(r, popGap) {
			add(at, screenPop, fmt.Sprintf("%s%d", screenPop.name, n+1))
		}
	}
	for n := range scripts {
		// Poisson, by thinning out one of the highest rate.
		gap := time.Minute * scripts / time.Duration(peakRate)
		for at := time.Duration(0); at < s.length; {
			at += time.Duration(r.ExpFloat64() * float64(gap))
			if r.Float64() < scriptRate((s.opens+at)%clock(24, 0))/peakRate {
				add(at, script, fmt.Sprintf("%s%d", script.name, n+1))
			}
		}
	}
	for _, at := range s.bursts {
		n := leastJob + r.IntN(mostJob-leastJob+1)
		for i := range n {
			k := job
			if i*5 >= n*2 { // three fifths can wait for their answer
				k = reports
			}
			add(at+randomly(r, time.Second), k, k.name)
		}
	}
	for _, begins := range s.noisy {
		gap := time.Minute / noisyRate
		for at := begins; at < begins+s.loud; at += gap {
			add(at, noisy, noisy.name)
		}
	}
	slices.SortStableFunc(all, func(a, b call) int { return cmp.Compare(a.at, b.at) })
	for i := range all {
		all[i].number = i
	}
	return all
}

func randomly(r *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(r.Int64N(int64(most)))
}

// latency is how long an action runs: from 0.2 to 1.5 seconds, mostly little.
func latency(r *rand.Rand) time.Duration {
	const least, most = 200 * time.Millisecond, 1500 * time.Millisecond
	return least + time.Duration(math.Pow(r.Float64(), 2)*float64(most-least)).Round(time.Millisecond)
}

// condition is what else goes on at a time.
type condition int

const (
	calm       condition = iota
	besideJob            // within some minutes of its beginning
	besideLoud           // while the neighbour is noisy, and for some minutes after
	conditions
)

func (c condition) String() string {
	return [...]string{"otherwise", "while the hourly job runs", "beside the noisy neighbour"}[c]
}

// What goes on counts for so much longer.
const (
	jobLasts  = 6 * time.Minute
	noisyEcho = 5 * time.Minute
)

func (s scenario) condition(at time.Duration) condition {
	if s.isLoud(at) {
		return besideLoud
	}
	for _, begins := range s.bursts {
		if begins <= at && at < begins+jobLasts {
			return besideJob
		}
	}
	return calm
}

// isLoud tells whether a call that comes at at is beside the noisy neighbour.
func (s scenario) isLoud(at time.Duration) bool {
	for _, begins := range s.noisy {
		if begins <= at && at < begins+s.loud+noisyEcho {
			return true
		}
	}
	return false
}
