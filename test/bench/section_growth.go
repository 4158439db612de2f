package main

import (
	"context"
	"fmt"
)

// growthRounds is how many rounds each step of a growth table gets: fewer, as
// there are many steps.
func (s settings) growthRounds() int { return (s.rounds + 1) / 2 }

// The growth of four contenders is shown, in this order: a replay and what it is
// measured by, a fresh call and what that is measured by.
const growReplay, growRespond, growFresh, growProxy = 0, 1, 2, 3

// growers starts the four. Replays and fresh calls each have a sidecar of their
// own, since fresh calls would drive the others' answers out of L1.
func (b *bench) growers(ctx context.Context, requestBody, answerBody int) ([]contender, error) {
	bare, err := b.startCaddy(ctx, answerBody)
	if err != nil {
		return nil, err
	}
	cached, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return nil, err
	}
	running, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return nil, err
	}
	const distinct = 500 // that L1 has room for, also if they are large
	known := freshCalls("sidecar, filling", &cached.server)
	if _, err := b.turn(ctx, known, load{connections: b.connections, count: distinct, bodySize: requestBody}); err != nil {
		return nil, err
	}
	return []contender{
		{name: "sidecar, replay from L1", server: &cached.server, keys: known.keys.again(distinct), replayed: true},
		ownAnswers("Caddy respond", bare.respond),
		freshCalls("sidecar, fresh, disk", &running.server),
		freshCalls("Caddy reverse_proxy", bare.proxy),
	}, nil
}

// growthHeader is that of the table whose rows growthRow makes.
func growthHeader(what string) []string {
	return []string{what, "replay/s", "of `respond`", "p99 ms", "fresh/s", "of `reverse_proxy`", "p99 ms", "RSS MB replay, fresh"}
}

func growthRow(step string, all []series) []string {
	perSecond := func(i int) string { return number(over(all[i], func(s sample) float64 { return s.perSecond })) }
	p99 := func(i int) string {
		return fmt.Sprintf("%.2f", over(all[i], func(s sample) float64 { return milliseconds(s.p99) }))
	}
	return []string{
		step,
		perSecond(growReplay), ratioText(speedRatio(all[growReplay], all[growRespond])), p99(growReplay),
		perSecond(growFresh), ratioText(speedRatio(all[growFresh], all[growProxy])), p99(growFresh),
		rssText(all[growReplay]) + ", " + rssText(all[growFresh]),
	}
}

// sectionConnections shows how throughput and memory grow with the number of
// connections.
func (b *bench) sectionConnections(ctx context.Context) error {
	contenders, err := b.growers(ctx, requestSize, answerSize)
	if err != nil {
		return err
	}
	g := growth{name: "connections"}
	var rows [][]string
	for _, n := range []int{1, 16, 64, 256} {
		b.progress("   %d connections", n)
		l := b.load()
		l.connections = n
		all, err := b.duel(ctx, b.growthRounds(), l, contenders...)
		if err != nil {
			return err
		}
		rows = append(rows, growthRow(fmt.Sprint(n), all))
		g.add(fmt.Sprint(n), all)
	}
	b.report.addTable("Growth with connections (replays from L1, fresh calls on disk)", growthHeader("connections"), rows)
	b.report.growths = append(b.report.growths, g)
	return nil
}

// sectionBodies shows how throughput and memory grow with the size of bodies,
// the requests' and the answers'.
func (b *bench) sectionBodies(ctx context.Context) error {
	g := growth{name: "KiB of body, request and answer"}
	var rows [][]string
	for _, size := range []int{300, 4 << 10, 64 << 10} {
		step := fmt.Sprintf("%.2g", float64(size)/(1<<10))
		b.progress("   %s KiB", step)
		if err := b.upstream.setSize(ctx, size); err != nil {
			return err
		}
		contenders, err := b.growers(ctx, size, size)
		if err != nil {
			return err
		}
		l := b.load()
		l.bodySize = size
		all, err := b.duel(ctx, b.growthRounds(), l, contenders...)
		if err != nil {
			return err
		}
		rows = append(rows, growthRow(step, all))
		g.add(step, all)
		b.stopServers()
	}
	b.report.addTable("Growth with bodies (replays from L1, fresh calls on disk)", growthHeader("KiB, request and answer"), rows)
	b.report.growths = append(b.report.growths, g)
	return b.upstream.setSize(ctx, answerSize)
}
