package main

import "fmt"

// family is a family of endpoints.
type family string

const (
	execute family = "execute" // ignores keys
	invoke  family = "invoke"  // honors keys
)

// path returns where the action with id is.
func (f family) path(id string) string {
	if f == invoke {
		return "/api/v2/dataactions/actions/" + id + "/invoke"
	}
	return "/api/v2/integrations/actions/" + id + "/execute"
}

// body returns an order.
func (f family) body() string {
	if f == invoke {
		return `{"input":{"order":17,"refund":50}}`
	}
	return `{"order":17,"refund":50}`
}

// scenario is what happens to an order.
type scenario struct {
	name  string
	what  string // happens, for the table
	fault string // the sandbox's
	// unknowable says that whoever asks an upstream that ignores keys cannot
	// know whether the order was executed.
	unknowable bool
	keyed      bool // the order has an Idempotency-Key
	family     family
	timeout    string // of the client, in seconds
	tries      int    // of the app
	warm       bool   // on a connection that was used before
	runs       int    // how often the client is run, each for an order of its own
	quick      bool   // belongs to the quick variant
}

// scenarioKind is what scenarios differ in besides what goes wrong.
type scenarioKind struct {
	family family
	keyed  bool
}

// tries is how often an app, or a client that repeats by itself, sends an order.
const tries = 4

const (
	patient   = "10"
	impatient = "1" // with an upstream that takes 2.5 s
)

var scenarios = makeScenarios()

func makeScenarios() []scenario {
	faults := []scenario{
		{name: "ok", what: "nothing wrong", quick: true},
		{name: "twice", what: "two equal orders, both meant", runs: 2},
		{name: "gzip", what: "the answer is gzipped", fault: "gzip", quick: true},
		{name: "slow", what: "each answer takes 2.5 s, the client waits 1 s", fault: "slow=2500ms", timeout: impatient, quick: true},
		{name: "cut", what: "the connection is cut after execution, once", fault: "execute-then-drop; times=1", unknowable: true, quick: true},
		{name: "cut-always", what: "the connection is cut after execution, each time", fault: "execute-then-drop", unknowable: true},
		{name: "truncate", what: "the answer is cut in its middle, once", fault: "truncate; times=1", unknowable: true},
		{name: "stale", what: "a kept connection is closed after execution; the app does not repeat", fault: "early-close; times=1", unknowable: true, warm: true, tries: 1},
		{name: "500", what: "500 after execution, once", fault: "500-after; times=1", unknowable: true},
		{name: "504", what: "504 after execution, once", fault: "504-after; times=1", unknowable: true, quick: true},
		{name: "502", what: "502 from in between, once; not executed", fault: "502; times=1", unknowable: true},
		{name: "503", what: "503 with Retry-After, once; not executed", fault: "503-retry-after=1; times=1"},
		{name: "401", what: "the token has expired: 401, once", fault: "401; times=1"},
	}
	// What a key changes is told by those that it could help with.
	worth := map[scenarioKind]map[string]bool{
		{execute, true}: {"slow": true, "cut": true, "stale": true},
		{invoke, false}: {"ok": true, "slow": true, "cut": true, "stale": true, "504": true},
		{invoke, true}:  {"slow": true, "cut": true, "stale": true},
	}
	var all []scenario
	for _, f := range []family{execute, invoke} {
		for _, keyed := range []bool{false, true} {
			for _, s := range faults {
				if worth := worth[scenarioKind{f, keyed}]; worth != nil && !worth[s.name] {
					continue
				}
				s.family, s.keyed = f, keyed
				s.timeout = or(s.timeout, patient)
				if s.tries == 0 {
					s.tries = tries
				}
				s.runs = max(s.runs, 1)
				s.quick = s.quick && !keyed
				all = append(all, s)
			}
		}
	}
	return all
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// id returns the id of the action that the client c orders directly or through
// the sidecar. Each has its own, so that the ledger can tell them apart.
func (s scenario) id(c client, through bool) string {
	way, key := "direct", "keyless"
	if through {
		way = "sidecar"
	}
	if s.keyed {
		key = "keyed"
	}
	return fmt.Sprintf("custom_-_%s.%s.%s.%s.%s", c.slug(), s.family, s.name, key, way)
}

// certain says whether the sidecar can know what became of the order.
func (s scenario) certain() bool { return !s.unknowable || s.family == invoke }
