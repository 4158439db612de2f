package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// checker takes in what clients see and what the ledger says, and reports what
// does not go together.
type checker struct {
	out      io.Writer
	near     func(from, to time.Time) []incident // the chaos between two times
	attempts func(key string) []sandbox.Attempt  // what was sent up under a key

	repeat string // how the run is repeated

	mu         sync.Mutex
	calls      map[string]*call    // guarded by mu; by the hash of the body
	violations []string            // guarded by mu; what each is, without whose
	excused    []string            // guarded by mu; see judgeEffects
	recheck    map[*call]time.Time // guarded by mu; when to judge keyless calls
}

// reported is how many violations are told in full. The rest is counted.
const reported = 20

// settled is how long after its latest effect a keyless call is judged: until
// then it is not known whether an answer was delivered.
const settled = drainTime + 5*time.Second

func newChecker(out io.Writer, near func(from, to time.Time) []incident, attempts func(key string) []sandbox.Attempt) *checker {
	return &checker{out: out, near: near, attempts: attempts, calls: make(map[string]*call), recheck: make(map[*call]time.Time)}
}

// begin has a call known before it is sent.
func (k *checker) begin(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[c.hash] = c
}

// kept bounds how many sightings of a call are kept that say nothing.
const kept = 40

// saw takes in what a client saw.
func (k *checker) saw(c *call, s *sighting) {
	c.mu.Lock()
	what := wrongAlone(s, c.key)
	for _, old := range c.sightings {
		if what == "" {
			what = wrong(old, s, c.honored)
		}
		if old.body == s.body {
			s.body = old.body // one copy is enough
		}
	}
	if s.kind > refused || len(c.sightings) < kept || what != "" {
		c.sightings = append(c.sightings, s)
	}
	c.mu.Unlock()
	if what != "" {
		k.blame(c, what)
	}
}

// ran takes in an effect from the ledger.
func (k *checker) ran(e sandbox.Effect) {
	k.mu.Lock()
	c := k.calls[e.BodySHA256]
	k.mu.Unlock()
	if c == nil {
		k.report("an effect of no call", e.ID)
		return
	}
	c.mu.Lock()
	c.effects = append(c.effects, effect{e.ID, e.Key, e.Started, e.Finished})
	n := len(c.effects)
	c.mu.Unlock()
	switch {
	case n < 2:
	case c.key != "":
		k.judge(c)
	default:
		k.mu.Lock()
		k.recheck[c] = time.Now().Add(settled)
		k.mu.Unlock()
	}
}

// judge judges the effects of a call.
func (k *checker) judge(c *call) {
	c.mu.Lock()
	what, excused := judgeEffects(c.key, c.effects, c.sightings)
	c.mu.Unlock()
	if what != "" {
		k.blame(c, what)
	}
	if excused {
		k.mu.Lock()
		k.excused = append(k.excused, c.title())
		k.mu.Unlock()
		fmt.Fprintf(k.out, "excused, though executed more than once: %s", k.evidence(c))
	}
}

// sweep judges the keyless calls whose time has come, or all.
func (k *checker) sweep(all bool) {
	var due []*call
	k.mu.Lock()
	for c, at := range k.recheck {
		if all || time.Now().After(at) {
			due = append(due, c)
			delete(k.recheck, c)
		}
	}
	k.mu.Unlock()
	for _, c := range due {
		k.judge(c)
	}
}

// finish judges all calls by the whole ledger.
func (k *checker) finish(attempts []sandbox.Attempt) {
	k.sweep(true)
	byCall := make(map[string][]sandbox.Attempt)
	for _, a := range attempts {
		byCall[a.BodySHA256] = append(byCall[a.BodySHA256], a)
	}
	for _, c := range k.all() {
		c.mu.Lock()
		what := judgeTruth(c.key, c.effects, c.sightings)
		if what == "" {
			what = judgeAttempts(c.key, c.honored, byCall[c.hash])
		}
		c.mu.Unlock()
		if what != "" {
			k.blame(c, what)
		}
	}
}

// all returns all calls, in the order of their names.
func (k *checker) all() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*call, 0, len(k.calls))
	for _, c := range k.calls {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *call) int { return strings.Compare(a.name, b.name) })
	return all
}

// blame reports a violation with all that is known of its call.
func (k *checker) blame(c *call, what string) {
	c.mu.Lock()
	again := c.blamed
	c.blamed = true
	c.mu.Unlock()
	if !again {
		k.report(what, k.evidence(c))
	}
}

// report reports a violation: what it is, and the evidence.
func (k *checker) report(what, evidence string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.violations = append(k.violations, what)
	if len(k.violations) <= reported {
		fmt.Fprintf(k.out, "VIOLATION %s: %s\n  to repeat: %s\n", what, strings.TrimSpace(evidence), k.repeat)
	}
}

// found returns the violations so far, and what was excused.
func (k *checker) found() (violations, excused []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.violations), slices.Clone(k.excused)
}

// evidence tells all that is known of a call.
func (k *checker) evidence(c *call) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", c.title())
	var from, to time.Time
	ordered := slices.SortedFunc(slices.Values(c.sightings), func(a, b *sighting) int { return a.begin.Compare(b.begin) })
	for i, s := range ordered {
		if i == 0 {
			from = s.begin
		}
		if s.end.After(to) {
			to = s.end
		}
		fmt.Fprintf(&b, "  %v\n", s)
	}
	keys := map[string]bool{c.key: c.key != ""}
	for _, e := range c.effects {
		fmt.Fprintf(&b, "  %v\n", e)
		keys[e.key] = true
	}
	for key, ok := range keys {
		if !ok {
			continue
		}
		for _, a := range k.attempts(key) {
			fmt.Fprintf(&b, "  attempt %d at %s: %s %d %s, executed %v, replayed %v, key %s\n",
				a.Number, clock(a.Time), a.Outcome, a.Status, a.Fault, a.Executed, a.Replayed, a.Key)
		}
	}
	for _, i := range k.near(from, to) {
		fmt.Fprintf(&b, "  chaos: %v\n", i)
	}
	return b.String()
}
