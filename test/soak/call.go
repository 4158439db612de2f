package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

const (
	executePath = "/api/v2/integrations/actions/custom_-_soak/execute" // ignores keys
	invokePath  = "/api/v2/dataactions/actions/custom_-_soak/invoke"   // honors keys
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

	mu        sync.Mutex
	sightings []*sighting // guarded by mu
	effects   []effect    // guarded by mu
	blamed    bool        // guarded by mu; one report of a call is enough
}

// faults are what the upstream is asked to do with a call, as likely as their
// weight says. What decides the outcome of a call that will be sent again for it
// strikes once: the call has to come to an end.
var faults = []struct {
	weight  int
	execute string // "": not where keys are ignored
	invoke  string // "": not where keys are honored
}{
	{45, "ok", "ok"},
	{20, "slow=%v", "slow=%v; times=1"},
	{8, "stall=%v", "stall=%v; times=1"},
	{2, "stall=2500ms", "stall=2500ms; times=1"}, // it still runs when the lease of its sidecar is over
	{5, "execute-then-drop", "execute-then-drop; times=1"},
	{5, "slow=%v, execute-then-drop", "slow=%v; times=1, execute-then-drop; times=1"},
	{4, "drop-before", "drop-before; times=1"},
	{4, "truncate", "truncate; times=1"},
	{4, "500-after", "500-after; times=1"},
	{4, "500-before", "502-before; times=1"},
	{3, "503-retry-after=1; times=1", "503-retry-after=1; times=1"},
	{2, "401; times=1", "401; times=1"},
	{2, "422-remote", ""},
	{2, "slow=%v, large=20000", "slow=%v; times=1, large=20000"},
	{1, "slow=6s; times=1", "slow=6s; times=1"}, // longer than an attempt may take
}

// newCall draws a call.
func newCall(r *rand.Rand, name string, keyless bool) *call {
	c := &call{name: name, path: executePath, body: fmt.Sprintf(`{"input":{"soak":%q}}`, name)}
	if r.IntN(2) == 0 {
		c.path, c.honored = invokePath, true
	}
	c.hash = hashOf(c.body)
	if !keyless {
		c.key = name
	}
	for c.fault == "" {
		c.fault = drawFault(r, c.honored)
	}
	return c
}

// hashOf is what the ledger has in place of a body.
func hashOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return hex.EncodeToString(sum[:])
}

func drawFault(r *rand.Rand, honored bool) string {
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	n := r.IntN(total)
	for _, f := range faults {
		if n -= f.weight; n >= 0 {
			continue
		}
		text := f.execute
		if honored {
			text = f.invoke
		}
		if strings.Contains(text, "%v") {
			text = fmt.Sprintf(text, fmt.Sprintf("%dms", 20+r.IntN(900)))
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
