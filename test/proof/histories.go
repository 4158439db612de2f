package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"genesys-sidecar/test/history"
	"genesys-sidecar/test/overlay"
)

// share is one store's part of the recorded histories.
type share struct {
	store             history.Store
	operations, kills float64 // of all
	clients           int
	every             time.Duration
	faults            []history.Fault
}

// shares are how the histories are divided.
var shares = []share{
	{history.Disk, 0.4, 0.45, 64, 500 * time.Millisecond, history.SwiftFaults},
	{history.Memory, 0.48, 0.4, 64, 500 * time.Millisecond, history.SwiftFaults},
	{history.Redis, 0.12, 0.15, 64, 600 * time.Millisecond, slices.Concat(history.SwiftFaults, history.SlowFaults)},
}

// histories records and judges what clients see of each store.
func (p *proof) histories(ctx, aborting context.Context) error {
	binary := filepath.Join(p.dir, "genesys-sidecar")
	if err := overlay.Build(ctx, p.dir, binary, p.set.race); err != nil {
		return err
	}
	var operations, kills, keys, steps int64
	var executions int
	for _, share := range shares {
		dir, err := p.subdirectory("history-" + string(share.store))
		if err != nil {
			return err
		}
		report, err := history.Run(ctx, aborting, history.Settings{
			Store:      share.store,
			Binary:     binary,
			Seed:       p.set.seed,
			Duration:   p.set.duration,
			Operations: int64(float64(p.set.operations) * share.operations),
			Kills:      int64(float64(p.set.kills)*share.kills + 0.5),
			Clients:    share.clients,
			Every:      share.every,
			Faults:     share.faults,
			Dir:        dir,
			Out:        p.out,
			Repeat:     p.set.command("histories"),
		})
		if err != nil {
			return err
		}
		operations, kills = operations+report.Operations, kills+report.Kills
		keys, steps, executions = keys+report.Keys, steps+report.Steps, executions+report.Executions
		p.fail("history, store "+string(share.store), report.Violations)
	}
	p.say("histories: %d operations and %d executions over %d kills; %d keys, %d steps judged by porcupine", operations, executions, kills, keys, steps)
	if operations < p.set.operations || kills < p.set.kills {
		p.fail("histories", []string{fmt.Sprintf("too few for %d operations and %d kills: give them more time with -duration", p.set.operations, p.set.kills)})
	}
	return nil
}

func (p *proof) subdirectory(name string) (string, error) {
	dir := filepath.Join(p.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("making a directory: %w", err)
	}
	return dir, nil
}
