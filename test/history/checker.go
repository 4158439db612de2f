package history

import (
	"crypto/sha256"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"

	"genesys-sidecar/caddymodule/sandbox"
)

// checker takes in what clients see and what the ledger says, and reports what
// does not go together.
type checker struct {
	out      io.Writer
	aside    io.Writer                           // what is no violation
	during   func(from, to time.Time) []incident // the chaos between two times
	attempts func(key string) []sandbox.Attempt  // what was sent up under a key

	repeat   string       // how the run is repeated
	fleet    bool         // several sidecars share a store
	pictures string       // the directory for what porcupine draws
	onWrong  func()       // called with each violation
	judged   atomic.Int64 // keys whose histories porcupine has judged
	steps    atomic.Int64 // of those histories

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

func newChecker(out io.Writer, during func(from, to time.Time) []incident, attempts func(key string) []sandbox.Attempt) *checker {
	return &checker{out: out, aside: out, during: during, attempts: attempts, calls: make(map[string]*call), recheck: make(map[*call]time.Time)}
}

// begin has a call known before it is sent.
func (k *checker) begin(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[c.hash] = c
	k.calls[c.otherHash] = c
}

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
	c.sightings = append(c.sightings, s)
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
	var other uint8
	if e.BodySHA256 == c.otherHash {
		other = 1
	}
	c.effects = append(c.effects, effect{e.ID, e.Key, other, e.Started, e.Finished})
	n := len(c.effects)
	c.mu.Unlock()
	switch {
	case n < 2, c.twice:
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
		fmt.Fprintf(k.aside, "excused, though executed more than once: %s", k.evidence(c))
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
		k.mu.Lock()
		c := k.calls[a.BodySHA256]
		k.mu.Unlock()
		if c != nil {
			byCall[c.hash] = append(byCall[c.hash], a)
		}
	}
	queue := make(chan *call)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for c := range queue {
				k.finishCall(c, byCall[c.hash])
			}
		})
	}
	for _, c := range k.all() {
		queue <- c
	}
	close(queue)
	workers.Wait()
}

// searchLimit is how long porcupine may look for an order of a key's history.
const searchLimit = 30 * time.Second

// finishCall judges a call of which all is known.
func (k *checker) finishCall(c *call, attempts []sandbox.Attempt) {
	c.mu.Lock()
	what := judgeTruth(c.key, c.effects, c.sightings)
	if what == "" {
		what = judgeAttempts(c.key, c.honored, attempts)
	}
	if what == "" && c.twice && len(k.during(c.span())) == 0 {
		what = judgeTwice(c.effects, c.sightings)
	}
	if what == "" {
		what = k.judgeOrder(c)
	}
	c.mu.Unlock()
	if what != "" {
		k.blame(c, what)
	}
}

// judgeOrder has porcupine judge the histories of a call's keys.
func (k *checker) judgeOrder(c *call) string {
	for _, key := range c.keys() {
		k.judged.Add(1)
		history := steps(key, k.fleet, c.honored, c.sightings, c.effects)
		k.steps.Add(int64(len(history)))
		picture := ""
		if k.pictures != "" {
			picture = filepath.Join(k.pictures, fmt.Sprintf("%s-%.4x.html", c.name, sha256.Sum256([]byte(key))))
		}
		switch linearize(c.orphaned(), history, searchLimit, picture) {
		case porcupine.Illegal:
			return "a history that no order of its steps explains"
		case porcupine.Unknown:
			return fmt.Sprintf("a history that could not be judged within %v", searchLimit)
		}
	}
	return ""
}

// all returns all calls, in the order of their names.
func (k *checker) all() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*call, 0, len(k.calls)/2)
	for hash, c := range k.calls {
		if hash == c.hash {
			all = append(all, c)
		}
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
	if k.onWrong != nil {
		k.onWrong()
	}
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
	for _, i := range k.during(from.Add(-3*time.Second), to) { // and shortly before
		fmt.Fprintf(&b, "  chaos: %v\n", i)
	}
	return b.String()
}
