package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// steadyRate is well below what anybody here can take, so that latencies are
// not those of a queue.
const steadyRate = 500

// sectionLatency measures what a caller waits for beyond the upstream and a
// proxy: two fsyncs, and the sidecar's own work.
func (b *bench) sectionLatency(ctx context.Context) error {
	sidecar, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return err
	}
	bare, err := b.startCaddy(ctx, answerSize)
	if err != nil {
		return err
	}
	contenders := []contender{
		freshCalls("sidecar, fresh, disk, 500/s", &sidecar.server),
		freshCalls("Caddy reverse_proxy, 500/s", bare.proxy),
	}
	l := b.load()
	l.perSecond = steadyRate
	l.duration *= 2 // or there are few latencies beyond the 99th percentile
	if err := b.warm(ctx, l, contenders); err != nil {
		return err
	}

	all := make([]series, len(contenders))
	var syncs []time.Duration
	var disk series // what the disk takes for two syncs when nothing else happens
	for range b.rounds {
		few, err := timeSyncs(filepath.Dir(sidecar.storeDir), 300/b.rounds+1)
		if err != nil {
			return err
		}
		syncs = append(syncs, few...)
		if err := b.round(ctx, l, contenders, all); err != nil {
			return err
		}
		floor, err := syncTwice(ctx, filepath.Dir(sidecar.storeDir), l)
		if err != nil {
			return err
		}
		disk = append(disk, floor)
	}

	fsync := milliseconds(median(syncs))
	b.report.addDetails(fmt.Sprintf("Calls at a steady %d/s", steadyRate),
		append(contenders, contender{name: "two fsyncs of 1 KiB and nothing else, 500/s"}), append(all, disk), -1)
	b.report.note("One fsync took %.2f ms: the median of %d times 1 KiB appended to a file beside the store, and fdatasync.", fsync, len(syncs))
	added := func(pick func(sample) time.Duration) spread {
		return compare(all[0], all[1], func(a, b sample) float64 { return milliseconds(pick(a) - pick(b)) })
	}
	for _, p := range []struct {
		name  string
		pick  func(sample) time.Duration
		slack float64
	}{
		{"p50", func(s sample) time.Duration { return s.p50 }, 0.2},
		{"p99", func(s sample) time.Duration { return s.p99 }, 1},
	} {
		b.report.add(target{
			what:    fmt.Sprintf("added latency of a fresh call, disk store, at %d/s, %s", steadyRate, p.name),
			against: "Caddy `reverse_proxy`, same rate",
			got:     added(p.pick), unit: "ms", limit: 2*fsync + p.slack, atMost: true,
			limitNote: fmt.Sprintf(" (2 fsyncs + %g ms)", p.slack),
		})
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
