package main

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

// table writes what a run came to.
func (n *counters) table(w io.Writer, sum sandbox.Summary, excused int, violations []string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(value any, what string) { fmt.Fprintf(t, "%v\t  %s\n", value, what) }
	row(n.calls.Load(), fmt.Sprintf("calls, of which %d without a key", n.keyless.Load()))
	row(sum.Effects, "executions")
	row(sum.Attempts, fmt.Sprintf("attempts that reached the upstream; it replayed %d and refused %d for a conflict", sum.Replays, sum.Conflicts))
	row(n.requests.Load(), "requests of clients")
	row(n.replayed.Load(), "replays, or answers shared")
	row(n.unknown.Load(), "answers that the outcome is unknown")
	row(n.freed.Load(), "answers that leave the key free")
	row(n.refused.Load(), fmt.Sprintf("refusals, of which %d are 503", n.unavailable.Load()))
	row(n.lost.Load(), "requests without an answer: the caller left, or its connection was lost")
	row(n.givenUp.Load(), "calls given up")
	row(n.kills.Load(), "kills of a sidecar")
	row(n.stops.Load(), "stops of a sidecar")
	row(n.pauses.Load(), "pauses of a sidecar")
	row(n.reloads.Load(), "reloads of a sidecar")
	row(n.redis.Load(), "kills and pauses of Redis")
	row(n.askedAtEnd.Load(), fmt.Sprintf("keys asked for at the end, of which %d are unknown", n.unknownAtEnd.Load()))
	row(excused, "keyless calls executed more than once, as they may be")
	row(len(violations), "violations")
	slices.Sort(violations)
	for len(violations) > 0 {
		what := violations[0]
		others := slices.IndexFunc(violations, func(v string) bool { return v != what })
		if others < 0 {
			others = len(violations)
		}
		row(others, "of "+what)
		violations = violations[others:]
	}
	_ = t.Flush()
}
