package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"genesys-sidecar/test/overlay"
)

// mutant is a sidecar that leaks.
type mutant struct {
	name  string
	store string
	grows string // the metric that has to show it
	edits []overlay.Edit
}

// mutants are the leaks that have to be noticed.
var mutants = []mutant{
	{
		name: "leaves a goroutine behind with each call", store: "disk", grows: goroutines.name,
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/fly.go",
			Old:  "\tf.bind(claim.record)\n\tf.ours.Store(true)\n",
			New:  "\tf.bind(claim.record)\n\tf.ours.Store(true)\n\tgo func() { select {} }()\n",
		}},
	},
	{
		name: "never closes the body of a 5xx", store: "disk", grows: files.name,
		edits: []overlay.Edit{{
			File: "caddymodule/genesys/try.go",
			Old:  "req := newRequest(ctx, r, n)",
			New:  "req := newRequest(context.WithoutCancel(ctx), r, n)", // whose end would close it
		}, {
			File: "caddymodule/genesys/try.go",
			Old:  "\tbody, err := readAnswer(resp, r.Method, p.MaxBody+1)\n",
			New:  "\tif resp.StatusCode >= 500 {\n\t\treturn a, reply\n\t}\n\tbody, err := readAnswer(resp, r.Method, p.MaxBody+1)\n",
		}},
	},
	{
		name: "keeps every answer on the heap", store: "disk", grows: heap.name,
		edits: []overlay.Edit{{
			File: "caddymodule/idempotency/gate.go",
			Old:  "const trust = 24 * time.Hour\n",
			New:  "const trust = 24 * time.Hour\n\nvar every []*Outcome\n",
		}, {
			File: "caddymodule/idempotency/fly.go",
			Old:  "\tout = told(rec, result)\n",
			New:  "\tout = told(rec, result)\n\tg.mu.Lock()\n\tevery = append(every, out)\n\tg.mu.Unlock()\n",
		}},
	},
	{
		name: "never sweeps its disk store", store: "disk", grows: storeSize.name,
		edits: []overlay.Edit{{
			File: "caddymodule/store/disk/sweep.go",
			Old:  "n, err := s.sweep()",
			New:  "n, err := 0, error(nil)",
		}},
	},
	{
		name: "gives nothing back that has expired in its memory store", store: "memory", grows: heap.name,
		edits: []overlay.Edit{{
			File: "caddymodule/store/memory/store.go",
			Old:  "func (s *Store) reclaimLocked(n int) (removed int) {\n",
			New:  "func (s *Store) reclaimLocked(n int) (removed int) {\n\tn = 0\n",
		}},
	},
	{
		name: "has Redis keep everything for a day", store: "redis", grows: redisKeys.name,
		edits: []overlay.Edit{{
			File: "caddymodule/store/redis/store.go",
			Old:  "left := rec.Expires.Sub(s.options.Now())",
			New:  "left := 24 * time.Hour",
		}},
	},
}

// candidates are the sidecar as it is, which must not fail within the same time, and
// the mutants.
func candidates() []mutant {
	return append([]mutant{{name: "is as it should be", store: "disk"}}, mutants...)
}

// soakMutants soaks each candidate.
func soakMutants(ctx context.Context, set settings, out io.Writer) error {
	var missed []string
	for _, m := range candidates() {
		if !strings.Contains(m.name, set.mutant) {
			continue
		}
		fmt.Fprintf(out, "== a sidecar that %s\n", m.name)
		report, err := m.soak(ctx, set, out)
		if err != nil {
			return err
		}
		report.print(out)
		wrong := strings.Join(report.wrong(), "; ")
		switch {
		case m.grows == "" && wrong != "":
			missed = append(missed, "the sidecar as it is: "+wrong)
		case m.grows != "" && !slices.Contains(report.grown(), m.grows):
			missed = append(missed, "nobody noticed a sidecar that "+m.name)
		}
		fmt.Fprintln(out)
	}
	if len(missed) > 0 {
		return errors.New(strings.Join(missed, "; "))
	}
	return nil
}

// soak builds the mutant and soaks it.
func (m mutant) soak(ctx context.Context, set settings, out io.Writer) (_ *report, err error) {
	dir, err := os.MkdirTemp("", "genesys-sidecar-soak-")
	if err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	set.store = m.store
	if set.binary, err = set.build(ctx, dir, m.edits...); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		return nil, fmt.Errorf("making a directory: %w", err)
	}
	return soak(ctx, set, filepath.Join(dir, "run"), out)
}
