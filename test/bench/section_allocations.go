package main

import "context"

// sectionAllocations counts what a request leaves to the garbage collector,
// beyond what Caddy itself does.
func (b *bench) sectionAllocations(ctx context.Context) error {
	bare, err := b.startCaddy(ctx, answerSize)
	if err != nil {
		return err
	}
	cached, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return err
	}
	replay, err := b.toldAgain(ctx, "replay from L1", &cached.server, distinctReplays)
	if err != nil {
		return err
	}
	contenders := []contender{
		ownAnswers("Caddy respond", bare.respond),
		freshCalls("Caddy reverse_proxy", bare.proxy),
		replay,
	}
	const respond, proxy, replayed = 0, 1, 2
	for _, s := range stores {
		sidecar, err := b.startSidecar(ctx, sidecarConfig{store: s})
		if err != nil {
			return err
		}
		contenders = append(contenders, freshCalls("fresh call, "+s.name+" store", &sidecar.server))
	}

	counts := make([][]float64, len(contenders))
	for round := range b.rounds + 1 {
		for i, c := range contenders {
			n, err := b.allocations(ctx, c)
			if err != nil {
				return err
			}
			if round > 0 { // the first one is to warm up
				counts[i] = append(counts[i], n)
			}
		}
	}

	beyond := func(i, bare int) spread {
		differences := make([]float64, b.rounds)
		for round := range differences {
			differences[round] = counts[i][round] - counts[bare][round]
		}
		return spreadOf(differences)
	}
	b.report.atMost("allocations of a replay from L1", "beyond Caddy `respond`", beyond(replayed, respond), 10, "allocations")
	rows := [][]string{}
	for i, c := range contenders {
		rows = append(rows, []string{c.name, number(median(counts[i]))})
		if i <= replayed {
			continue
		}
		b.report.atMost("allocations of a "+c.name, "beyond Caddy `reverse_proxy`", beyond(i, proxy), 60, "allocations")
		b.report.atMost("allocations of a "+c.name, "beyond Caddy `respond`", beyond(i, respond), 60, "allocations")
	}
	b.report.addTable("Allocations", []string{"one request", "heap allocations in the process"}, rows)
	return nil
}

// allocations returns how many a request of the contender makes.
func (b *bench) allocations(ctx context.Context, c contender) (float64, error) {
	const requests = 10_000
	before, err := c.server.memstats(ctx)
	if err != nil {
		return 0, err
	}
	idle, err := c.server.memstats(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := b.turn(ctx, c, load{connections: 16, count: requests, bodySize: requestSize}); err != nil {
		return 0, err
	}
	after, err := c.server.memstats(ctx)
	if err != nil {
		return 0, err
	}
	asking := idle.Mallocs - before.Mallocs
	n := float64(after.Mallocs-idle.Mallocs-asking) / requests
	b.progress("   %-44s %6.1f allocations", c.name, n)
	return n, nil
}
