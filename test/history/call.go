package history

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	executePath = "/api/v2/integrations/actions/custom_-_history/execute" // ignores keys
	invokePath  = "/api/v2/dataactions/actions/custom_-_history/invoke"   // honors keys
)

// call is a logical call: what a person wants to have happen once. Each has a
// body of its own, by which the ledger tells whose effect is whose.
type call struct {
	name    string
	path    string
	key     string // "" for a keyless call
	body    string
	hash    string // of the body, as the ledger writes it
	fault   string
	honored bool
	twice   bool   // two callers at a time mean it, each for itself
	home    string // the address of the only sidecar that knows of it; "": all do

	other     string // another body that is sent under the same key, now and then
	otherHash string

	mu        sync.Mutex
	sightings []*sighting // guarded by mu
	effects   []effect    // guarded by mu
	blamed    bool        // guarded by mu; one report of a call is enough
}

// Fault is what the upstream does to a call, as the sandbox names it, with %v for
// a time up to Most. A weight says how likely it is. What decides the outcome of a
// call that will be sent again for it strikes once: the call has to come to an end.
type Fault struct {
	Weight  int
	Execute string        // where keys are ignored; "": not there
	Invoke  string        // where they are honored; "": not there
	Most    time.Duration // of %v
}

// Faults are those with which calls take as long as they do in life.
var Faults = []Fault{
	{45, "ok", "ok", 0},
	{20, "slow=%v", "slow=%v; times=1", 900 * time.Millisecond},
	{8, "stall=%v", "stall=%v; times=1", 900 * time.Millisecond},
	{2, "stall=2500ms", "stall=2500ms; times=1", 0}, // it still runs when the lease of its sidecar is over
	{5, "execute-then-drop", "execute-then-drop; times=1", 0},
	{5, "slow=%v, execute-then-drop", "slow=%v; times=1, execute-then-drop; times=1", 900 * time.Millisecond},
	{4, "drop-before", "drop-before; times=1", 0},
	{4, "truncate", "truncate; times=1", 0},
	{4, "500-after", "500-after; times=1", 0},
	{4, "500-before", "502-before; times=1", 0},
	{3, "503-retry-after=1; times=1", "503-retry-after=1; times=1", 0},
	{2, "401; times=1", "401; times=1", 0},
	{2, "422-remote", "", 0},
	{2, "slow=%v, large=20000", "slow=%v; times=1, large=20000", 900 * time.Millisecond},
	{1, "slow=6s; times=1", "slow=6s; times=1", 0}, // longer than an attempt may take
}

// SwiftFaults are those with which many calls are made in little time.
var SwiftFaults = []Fault{
	{60, "ok", "ok", 0},
	{10, "slow=%v", "slow=%v; times=1", 100 * time.Millisecond},
	{5, "slow=%v", "slow=%v; times=1", 700 * time.Millisecond},
	{10, "stall=%v", "stall=%v; times=1", 100 * time.Millisecond},
	{4, "execute-then-drop", "execute-then-drop; times=1", 0},
	{3, "drop-before", "drop-before; times=1", 0},
	{3, "truncate", "truncate; times=1", 0},
	{3, "500-after", "500-after; times=1", 0},
	{2, "500-before", "502-before; times=1", 0},
	{1, "401; times=1", "401; times=1", 0},
	{2, "422-remote", "", 0},
}

// SlowFaults are those that outlast the lease of a sidecar in a fleet.
var SlowFaults = []Fault{
	{2, "stall=2500ms", "stall=2500ms; times=1", 0},
	{1, "slow=6s; times=1", "slow=6s; times=1", 0}, // longer than an attempt may take
}

// newCall draws a call.
func newCall(r *rand.Rand, faults []Fault, name string, keyless bool) *call {
	c := &call{name: name, path: executePath, body: bodyOf(name), other: bodyOf(name + "-other")}
	if r.IntN(2) == 0 {
		c.path, c.honored = invokePath, true
	}
	c.hash, c.otherHash = hashOf(c.body), hashOf(c.other)
	if !keyless {
		c.key = name
	}
	for c.fault == "" {
		c.fault = drawFault(r, faults, c.honored)
	}
	return c
}

func bodyOf(name string) string { return fmt.Sprintf(`{"input":{"history":%q}}`, name) }

// hashOf is what the ledger has in place of a body.
func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func drawFault(r *rand.Rand, faults []Fault, honored bool) string {
	total := 0
	for _, f := range faults {
		total += f.Weight
	}
	n := r.IntN(total)
	for _, f := range faults {
		if n -= f.Weight; n >= 0 {
			continue
		}
		text := f.Execute
		if honored {
			text = f.Invoke
		}
		if strings.Contains(text, "%v") {
			text = fmt.Sprintf(text, fmt.Sprintf("%dms", 1+r.Int64N(f.Most.Milliseconds())))
		}
		return text
	}
	return ""
}

// title names the call to a reader of a report.
func (c *call) title() string {
	key := "key " + c.key
	if c.key == "" {
		key = "no key"
	}
	return fmt.Sprintf("%s (%s, %s, %s)", c.name, c.path[strings.LastIndexByte(c.path, '/')+1:], key, c.fault)
}

// keys returns the keys that are known to belong to the call.
func (c *call) keys() []string {
	if c.key != "" {
		return []string{c.key}
	}
	var keys []string
	for _, s := range c.sightings {
		if s.key != "" && !slices.Contains(keys, s.key) {
			keys = append(keys, s.key)
		}
	}
	for _, e := range c.effects {
		if !slices.Contains(keys, e.key) {
			keys = append(keys, e.key)
		}
	}
	return keys
}

// orphaned tells whether a request for the call may have claimed a key that it
// was not told.
func (c *call) orphaned() bool {
	return c.key == "" && slices.ContainsFunc(c.sightings, func(s *sighting) bool { return s.kind <= refused && s.asked == "" && !s.unsent() })
}

// span is when the requests were made that did not ask for a key.
func (c *call) span() (from, to time.Time) {
	for _, s := range c.sightings {
		if s.asked != "" {
			continue
		}
		if from.IsZero() || s.begin.Before(from) {
			from = s.begin
		}
		if s.end.After(to) {
			to = s.end
		}
	}
	return from, to
}
