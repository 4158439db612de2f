package history

import (
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// counters are what a run is told in.
type counters struct {
	calls, keyless, givenUp        atomic.Int64
	requests, lost, refused, freed atomic.Int64
	unavailable, unknown, replayed atomic.Int64
	reused, unsent                 atomic.Int64
	events, kills, stops, pauses   atomic.Int64
	reloads, redis, askedAtEnd     atomic.Int64
	unknownAtEnd                   atomic.Int64
}

// line is how far a run is.
func (n *counters) line(elapsed time.Duration, effects, violations int) string {
	return fmt.Sprintf("%5s  %d calls, %d executed, %d requests: %d replays, %d unknown, %d times 503, %d without an answer; %d kills, %d stops, %d pauses, %d reloads, %d of redis; %d violations",
		elapsed.Round(time.Second), n.calls.Load(), effects, n.requests.Load(), n.replayed.Load(), n.unknown.Load(), n.unavailable.Load(), n.lost.Load(),
		n.kills.Load(), n.stops.Load(), n.pauses.Load(), n.reloads.Load(), n.redis.Load(), violations)
}

// Report is what a run came to.
type Report struct {
	Store      Store
	Seed       uint64
	Operations int64    // requests that were recorded, with what came of them
	Executions int      // by the ledger
	Kills      int64    // of sidecars, with kill -9
	Keys       int64    // whose history porcupine has judged
	Steps      int64    // of those histories
	Violations []string // in the order of their discovery

	rows []row
}

type row struct {
	value any
	what  string
}

func (r *run) report(sum sandbox.Summary) *Report {
	n := &r.count
	violations, excused := r.checker.found()
	report := &Report{
		Store: r.set.Store, Seed: r.set.Seed, Operations: n.requests.Load(), Executions: sum.Effects, Kills: n.kills.Load(),
		Keys: r.checker.judged.Load(), Steps: r.checker.steps.Load(), Violations: violations,
	}
	report.rows = []row{
		{n.calls.Load(), fmt.Sprintf("calls, of which %d without a key", n.keyless.Load())},
		{sum.Effects, "executions"},
		{sum.Attempts, fmt.Sprintf("attempts that reached the upstream; it replayed %d and refused %d for a conflict", sum.Replays, sum.Conflicts)},
		{n.requests.Load(), "requests of clients: the recorded operations"},
		{n.replayed.Load(), "replays, or answers shared"},
		{n.unknown.Load(), "answers that the outcome is unknown"},
		{n.freed.Load(), "answers that leave the key free"},
		{n.reused.Load(), "refusals since the key is another request's"},
		{n.refused.Load(), fmt.Sprintf("other refusals, of which %d are 503", n.unavailable.Load())},
		{n.lost.Load(), "requests without an answer: the caller left, or its connection was lost"},
		{n.givenUp.Load(), "calls given up"},
		{n.kills.Load(), "kills of a sidecar"},
		{n.stops.Load(), "stops of a sidecar"},
		{n.pauses.Load(), "pauses of a sidecar"},
		{n.reloads.Load(), "reloads of a sidecar"},
		{n.redis.Load(), "kills and pauses of Redis"},
		{n.askedAtEnd.Load(), fmt.Sprintf("keys asked for at the end, of which %d are unknown", n.unknownAtEnd.Load())},
		{report.Keys, fmt.Sprintf("histories judged by porcupine, of %d steps", report.Steps)},
		{len(excused), "keyless calls executed more than once, as they may be"},
		{len(violations), "violations"},
	}
	if sum.ForgottenAttempts > 0 {
		report.rows = append(report.rows, row{sum.ForgottenAttempts, "attempts that the sandbox has forgotten: whether keys were sent again is not checked of them"})
	}
	violations = slices.Sorted(slices.Values(violations))
	for len(violations) > 0 {
		what := violations[0]
		others := slices.IndexFunc(violations, func(v string) bool { return v != what })
		if others < 0 {
			others = len(violations)
		}
		report.rows = append(report.rows, row{others, "of " + what})
		violations = violations[others:]
	}
	return report
}

// table writes what a run came to.
func (r *Report) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.rows {
		fmt.Fprintf(t, "%v\t  %s\n", row.value, row.what)
	}
	_ = t.Flush()
}
