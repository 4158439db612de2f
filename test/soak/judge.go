package main

import (
	"slices"
	"time"
)

// point is a sample of one metric.
type point struct {
	at    time.Duration // since the start
	value float64
}

// rule is how much a metric may grow.
type rule struct {
	share float64 // of what it was
	floor float64 // and at least this
}

// verdict is what came of a series. See the package's documentation for what it
// is made of.
type verdict struct {
	first, middle, last float64 // medians of the steady part's thirds
	slope               float64 // growth over the steady part, by the Theil-Sen slope
	allowed             float64
	grows               bool
}

// fewest is how many samples a verdict takes.
const fewest = 9

// judge tells whether a metric grew over the steady part of a run, which has as
// many samples as it takes.
func (r rule) judge(steady []point) verdict {
	third := len(steady) / 3
	v := verdict{
		first:  medianOf(steady[:third]),
		middle: medianOf(steady[third : len(steady)-third]),
		last:   medianOf(steady[len(steady)-third:]),
	}
	v.slope = theilSen(steady) * float64(steady[len(steady)-1].at-steady[0].at)
	v.allowed = max(r.floor, r.share*v.first)
	// The middles of the first and the last third are two thirds of it all apart, and
	// those of neighbours one.
	v.grows = v.slope > v.allowed && 1.5*(v.last-v.first) > v.allowed &&
		3*min(v.middle-v.first, v.last-v.middle) > v.allowed/2
	return v
}

// mostPoints bounds the work of theilSen, which looks at all pairs.
const mostPoints = 300

// theilSen returns the median slope between all pairs of points, per nanosecond.
func theilSen(points []point) float64 {
	points = condense(points, mostPoints)
	var slopes []float64
	for i, a := range points {
		for _, b := range points[i+1:] {
			if b.at > a.at {
				slopes = append(slopes, (b.value-a.value)/float64(b.at-a.at))
			}
		}
	}
	return median(slopes)
}

// condense returns n points at most, each the median of its neighbours.
func condense(points []point, n int) []point {
	if len(points) <= n {
		return points
	}
	condensed := make([]point, n)
	for i := range condensed {
		part := points[i*len(points)/n : (i+1)*len(points)/n]
		condensed[i] = point{part[len(part)/2].at, medianOf(part)}
	}
	return condensed
}

func medianOf(points []point) float64 {
	values := make([]float64, len(points))
	for i, p := range points {
		values[i] = p.value
	}
	return median(values)
}

// median returns the middle one of values, or the lower of the middle two, so that it
// is one of them. It sorts them.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
