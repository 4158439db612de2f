package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"genesys-sidecar/test/history"
	"genesys-sidecar/test/overlay"
)

// A checker that never fails proves nothing. Each mutant is the sidecar with one
// of its safeguards taken out; the checker has to find that out.

// mutant is a sidecar that breaks a promise.
type mutant struct {
	name     string
	edits    []overlay.Edit
	settings history.Settings
}

var mutants = []mutant{
	{
		name: "sends a call that is not durably claimed",
		edits: []overlay.Edit{{
			File: "caddymodule/store/disk/store.go",
			Old:  "if err = s.commit(b, err); err != nil {\n\t\treturn nil, fmt.Errorf(\"claiming record: %w\", err)",
			New:  "if err = errors.Join(err, b.Close()); err != nil {\n\t\treturn nil, fmt.Errorf(\"claiming record: %w\", err)",
		}},
	},
	{
		name: "answers before the answer is durable",
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/fly.go",
			Old:  "ours, err := g.record(rec, release)",
			New:  "ours, err := true, error(nil)\n\tgo func() { _, _ = g.record(rec, release) }()",
		}},
	},
	{
		name: "sends again what a crash has left behind",
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/claim.go",
			Old:  "if rec.Owner.Process() != g.process {\n\t\treturn false",
			New:  "if rec.Owner.Process() != g.process {\n\t\treturn true",
		}},
	},
	{
		name: "takes a 500 for final, and frees the key",
		edits: []overlay.Edit{{
			File: "caddymodule/genesys/verdict.go",
			Old:  "case s >= 500, s == http.StatusRequestTimeout:\n\t\treturn verdict{fate: Unknown}",
			New:  "case s >= 500, s == http.StatusRequestTimeout:\n\t\treturn verdict{fate: NotRun}",
		}},
	},
	{
		name: "sends again after a cut connection",
		edits: []overlay.Edit{{
			File: "caddymodule/genesys/verdict.go",
			Old:  "return verdict{fate: Unknown, again: honored}\n\t}\n\n\tafter",
			New:  "return verdict{fate: Unknown, again: true}\n\t}\n\n\tafter",
		}},
	},
	{
		name: "sends over another connection what a kept one brought no answer to", // as net/http does
		edits: []overlay.Edit{{
			File: "caddymodule/upstream/transport.go",
			Old:  "\tif err != nil {\n\t\t_ = c.Close()\n\t\treturn nil, err\n\t}\n\tbody := &answer",
			New: "\tif err != nil && c.used {\n\t\t_ = c.Close()\n\t\tif c, err = t.send(req, message.Bytes()); err != nil {\n\t\t\treturn nil, err\n\t\t}\n" +
				"\t\tresp, err = c.receive(req, maxHeader)\n\t}\n\tif err != nil {\n\t\t_ = c.Close()\n\t\treturn nil, err\n\t}\n\tbody := &answer",
		}},
	},
	{
		name: "tells another request's answer",
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/outcome.go",
			Old:  "if rec.Fingerprint != fp {",
			New:  "if false {",
		}},
	},
	{
		name: "takes two keyless callers who wait for one",
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/adopt.go",
			Old:  "if ward.attendedLocked(rec.ID) {",
			New:  "if false {",
		}},
	},
	{
		name: "frees the key when its outcome cannot be recorded",
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/recording.go",
			Old:  "switch recorded := g.keepRecording(rec, release); {",
			New:  "g.forget(claim.record, nil)\n\t\tswitch recorded := true; {",
		}},
		settings: history.Settings{Store: history.Redis, Events: []history.Deed{history.KillRedis, history.PauseRedis}, Every: time.Second},
	},
	{
		name: "lets anybody finish and release a claim",
		edits: []overlay.Edit{{
			File: "caddymodule/store/redis/scripts.go",
			Old:  "return h ~= '' and string.byte(h) == 1 and owner ~= string.rep('\\0', 16) and string.sub(h, 28, 43) == owner",
			New:  "return h ~= '' and string.byte(h) == 1",
		}},
		settings: history.Settings{Store: history.Redis, Every: time.Second},
	},
}

// catchTimes are how long the checker looks, one run after the other. Most of its
// checks come when a run is over.
var catchTimes = []time.Duration{6 * time.Second, 20 * time.Second, time.Minute, 2 * time.Minute}

// catch has the checker look at each mutant.
func (p *proof) catch(ctx, aborting context.Context) error {
	for i, m := range mutants {
		if !strings.Contains(m.name, p.set.mutant) {
			continue
		}
		dir, err := p.subdirectory(fmt.Sprintf("mutant-%d", i))
		if err != nil {
			return err
		}
		binary := filepath.Join(dir, "genesys-sidecar")
		if err := overlay.Build(ctx, dir, binary, false, m.edits...); err != nil {
			return err
		}
		start := time.Now()
		var report *history.Report
		for round, duration := range catchTimes {
			set := m.settings
			set.Binary, set.Seed, set.Duration, set.UntilWrong = binary, p.set.seed+uint64(round), duration, true
			set.Repeat = p.set.command("mutants")
			if set.Dir, err = p.subdirectory(fmt.Sprintf("mutant-%d-%d", i, round)); err != nil {
				return err
			}
			if set.Faults == nil {
				set.Faults = history.SwiftFaults
			}
			if set.Every == 0 {
				set.Every = 500 * time.Millisecond
			}
			if report, err = history.Run(ctx, aborting, set); err != nil {
				return err
			}
			if len(report.Violations) > 0 {
				break
			}
		}
		if len(report.Violations) == 0 {
			p.fail("mutants", []string{"nobody noticed a sidecar that " + m.name})
			continue
		}
		p.say("a sidecar that %s: caught after %v: %s", m.name, time.Since(start).Round(100*time.Millisecond), report.Violations[0])
	}
	return nil
}
