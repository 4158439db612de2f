package main

import (
	"context"
	"fmt"
	"os"
)

// filledStore is a directory with a store in it, which nobody uses.
type filledStore struct {
	dir     string
	keys    *keys
	records int
}

// steps returns the numbers of records that are shown.
func (b *bench) steps() []int {
	if b.quick {
		return []int{100, 1_000, 5_000}
	}
	return []int{1_000, 10_000, 100_000, 1_000_000}
}

// sectionRecords shows how throughput and memory grow with the number of
// records, each time in a new store. L1 is off, or it would be L1 that is shown.
func (b *bench) sectionRecords(ctx context.Context) error {
	g := growth{name: "records, L1 off"}
	var rows [][]string
	header := append(growthHeader("records"), "Go heap MB", "store MB", "filled with calls/s")
	for _, n := range b.steps() {
		b.progress("   %s records", thousands(n))
		row, all, err := b.recordsStep(ctx, n)
		if err != nil {
			return err
		}
		rows = append(rows, row)
		g.add(thousands(n), all)
		b.stopServers()
	}
	b.report.addTable("Growth with records (disk store, L1 off)", header, rows)
	b.report.growths = append(b.report.growths, g)
	return nil
}

// recordsStep measures a store of n records. The largest is left behind.
func (b *bench) recordsStep(ctx context.Context, n int) ([]string, []series, error) {
	dir, err := b.newDir("records")
	if err != nil {
		return nil, nil, err
	}
	s, err := b.startSidecar(ctx, sidecarConfig{store: diskStore, storeDir: dir, cacheOff: true})
	if err != nil {
		return nil, nil, err
	}
	bare, err := b.startCaddy(ctx, answerSize)
	if err != nil {
		return nil, nil, err
	}
	filling := freshCalls("sidecar, filling", &s.server)
	filled, err := b.turn(ctx, filling, load{connections: max(b.connections, 256), count: n, bodySize: requestSize})
	if err != nil {
		return nil, nil, err
	}
	heap, err := s.heap(ctx)
	if err != nil {
		return nil, nil, err
	}
	size, err := dirSize(dir)
	if err != nil {
		return nil, nil, err
	}
	// First the replays: fresh calls would make the records more.
	replays, err := b.duel(ctx, b.growthRounds(), b.load(),
		contender{name: "sidecar, replay from disk, L1 off", server: &s.server, keys: filling.keys.again(n), replayed: true},
		ownAnswers("Caddy respond", bare.respond))
	if err != nil {
		return nil, nil, err
	}
	calls, err := b.duel(ctx, b.growthRounds(), b.load(),
		freshCalls("sidecar, fresh, disk", &s.server),
		freshCalls("Caddy reverse_proxy", bare.proxy))
	if err != nil {
		return nil, nil, err
	}
	all := append(replays, calls...)
	row := append(growthRow(thousands(n), all), number(float64(heap)/megabyte), number(float64(size)/megabyte), number(filled.perSecond))

	if n == b.steps()[len(b.steps())-1] {
		b.fullStore = &filledStore{dir, filling.keys, n}
		return row, all, nil
	}
	s.stop()
	if !b.keep {
		if err := os.RemoveAll(dir); err != nil {
			return nil, nil, fmt.Errorf("removing a store: %w", err)
		}
	}
	return row, all, nil
}
