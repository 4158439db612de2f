package main

import (
	"slices"
	"time"
)

// percentile returns the latency that the given share of all did not exceed.
// The latencies are sorted microseconds.
func percentile(sorted []uint32, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	// Nearest rank: the smallest one that at least this share are not above.
	rank := int(share * float64(len(sorted)))
	if float64(rank) < share*float64(len(sorted)) {
		rank++
	}
	return time.Duration(sorted[min(max(rank, 1), len(sorted))-1]) * time.Microsecond
}

// median returns the middle one of values, or the mean of the middle two.
func median[T ~int64 | ~float64](values []T) T {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// spread is what several rounds have found.
type spread struct{ median, lowest, highest float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	return spread{median(values), slices.Min(values), slices.Max(values)}
}

// sample is what one turn of one contender has found.
type sample struct {
	requests       int
	perSecond      float64
	p50, p99, p999 time.Duration
	cpu            time.Duration // of one request, in the contender's processes
	generator      time.Duration // of one request, in this process
	rss            int64
	knowsUsage     bool
	knowsTail      bool // there were enough requests for p99.9 to mean something
}

// newSample returns what came of a turn during which usages went from before to
// after.
func newSample(o outcome, before, after, generatorBefore, generatorAfter usage) sample {
	n := time.Duration(max(o.requests, 1))
	return sample{
		requests:   o.requests,
		perSecond:  float64(o.requests) / o.elapsed.Seconds(),
		p50:        percentile(o.latencies, 0.5),
		p99:        percentile(o.latencies, 0.99),
		p999:       percentile(o.latencies, 0.999),
		cpu:        (after.cpu - before.cpu) / n,
		generator:  (generatorAfter.cpu - generatorBefore.cpu) / n,
		rss:        after.rss,
		knowsUsage: before.known && after.known,
		knowsTail:  o.requests >= 1000,
	}
}

// series are the samples of one contender, one for each round.
type series []sample

// over returns the median of what pick finds in each sample.
func over[T ~int64 | ~float64](s series, pick func(sample) T) T {
	values := make([]T, len(s))
	for i := range s {
		values[i] = pick(s[i])
	}
	return median(values)
}

// compare pairs two contenders' samples of the same rounds.
func compare(a, b series, with func(a, b sample) float64) spread {
	values := make([]float64, min(len(a), len(b)))
	for i := range values {
		values[i] = with(a[i], b[i])
	}
	return spreadOf(values)
}

// speedRatio returns how many times as many requests a answers as b does.
func speedRatio(a, b series) spread {
	return compare(a, b, func(a, b sample) float64 {
		if b.perSecond == 0 {
			return 0
		}
		return a.perSecond / b.perSecond
	})
}
