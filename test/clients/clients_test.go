package main

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"
)

// needClients makes a client that is not installed a failure: one that was not
// run is no success.
const needClients = "GENESYS_SIDECAR_NEED_CLIENTS"

func TestNoClientExecutesAnOrderTwiceThroughTheSidecar(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	src, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	o := options{
		only:     []string{"curl", "nethttp", "node-fetch", "requests"},
		quick:    true,
		parallel: 6,
		race:     raceDetector,
	}
	r, err := runAll(ctx, src, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.plays {
		for _, w := range p.wrongs() {
			t.Error(w)
		}
	}
	always := []string{"curl", "nethttp"}
	for _, a := range r.absent {
		if os.Getenv(needClients) != "" || slices.Contains(always, a.client.program) {
			t.Errorf("%s was not run: %s", a.client.name, a.why)
		} else {
			t.Logf("%s was not run: %s", a.client.name, a.why)
		}
	}
	// The faults are real ones: without the sidecar, they make every client
	// execute its order again.
	for _, p := range r.plays {
		if again := p.scenario.name == "slow" || p.scenario.name == "cut"; again && p.direct.executed < 2 {
			t.Errorf("%s, %s, %s: executed %d times without the sidecar", p.client.name, p.scenario.family, p.scenario.what, p.direct.executed)
		}
	}
}

func TestWhatIsWrongWithAClientIsFound(t *testing.T) {
	ok := end{status: 200, body: `{"executionId":"a","input":{"order":17}}`}
	unknown := end{status: 502, body: `{"outcome":"unknown"}`}
	once := scenario{family: execute, runs: 1}
	cut := scenario{family: execute, runs: 1, unknowable: true}
	for name, c := range map[string]struct {
		scenario        scenario
		direct, sidecar side
		wrong           bool
	}{
		"nothing":                        {once, side{[]end{ok}, counts{executed: 1}}, side{[]end{ok}, counts{executed: 1}}, false},
		"executed twice":                 {once, side{[]end{ok}, counts{executed: 2}}, side{[]end{ok}, counts{executed: 2}}, true},
		"meant twice":                    {scenario{runs: 2}, side{[]end{ok, ok}, counts{executed: 2}}, side{[]end{ok, ok}, counts{executed: 2}}, false},
		"meant twice, one was swallowed": {scenario{runs: 2}, side{[]end{ok, ok}, counts{executed: 2}}, side{[]end{ok, ok}, counts{executed: 1}}, true},
		"fails where it need not":        {once, side{[]end{ok}, counts{executed: 1}}, side{[]end{unknown}, counts{executed: 1}}, true},
		"fails where nobody can know":    {cut, side{[]end{ok}, counts{executed: 2}}, side{[]end{unknown}, counts{executed: 1}}, false},
		"is told of what never was":      {cut, side{[]end{ok}, counts{executed: 1}}, side{[]end{ok}, counts{}}, true},
		"hangs":                          {cut, side{[]end{ok}, counts{executed: 1}}, side{[]end{{hung: true}}, counts{executed: 1}}, true},
		"gets another body":              {once, side{[]end{ok}, counts{executed: 1}}, side{[]end{{status: 200, body: "?"}}, counts{executed: 1}}, true},
	} {
		p := &play{client: ready{client: clients[0]}, scenario: c.scenario, direct: c.direct, sidecar: c.sidecar}
		if wrong := p.wrongs(); len(wrong) > 0 != c.wrong {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}
