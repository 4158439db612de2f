package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// shape is a metric as a function of time.
type shape func(second float64) float64

// seconds samples a shape each second.
func seconds(n int, f shape) []point {
	points := make([]point, n)
	for i := range points {
		points[i] = point{time.Duration(i) * time.Second, f(float64(i))}
	}
	return points
}

// plus adds shapes up.
func plus(shapes ...shape) shape {
	return func(t float64) (sum float64) {
		for _, f := range shapes {
			sum += f(t)
		}
		return sum
	}
}

func flat(value float64) shape  { return func(float64) float64 { return value } }
func leak(second float64) shape { return func(t float64) float64 { return second * t } }

func sawtooth(period, height float64) shape {
	return func(t float64) float64 { return height * math.Mod(t, period) / period }
}

func step(at, height float64) shape {
	return func(t float64) float64 {
		if t < at {
			return 0
		}
		return height
	}
}

// noise is normally distributed, and a tenth of it is ten times as much upwards.
func noise(seed uint64, deviation float64) shape {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(float64) float64 {
		if r.IntN(10) == 0 {
			return 10 * deviation * r.Float64()
		}
		return deviation * r.NormFloat64()
	}
}

// tenth allows a tenth of what there was.
var tenth = rule{share: 0.1, floor: 1}

func TestWhatStaysTheSameDoesNotGrow(t *testing.T) {
	expect(t, tenth, false, seconds(100, flat(100)))
}

func TestNoiseDoesNotGrow(t *testing.T) {
	for seed := range uint64(50) {
		expect(t, tenth, false, seconds(60, plus(flat(100), noise(seed, 6))))
	}
}

func TestASawtoothDoesNotGrowWhereverItBegins(t *testing.T) {
	for _, period := range []int{7, 20, 33, 60} {
		for shift := 0; shift < period; shift += 3 {
			expect(t, tenth, false, seconds(450, func(s float64) float64 { return 100 + sawtooth(float64(period), 40)(s+float64(shift)) }))
		}
	}
}

func TestASingleStepDoesNotGrow(t *testing.T) {
	for at := range 150 {
		expect(t, tenth, false, seconds(150, plus(flat(100), step(float64(at), 30))))
	}
}

func TestWhatShrinksDoesNotGrow(t *testing.T) {
	expect(t, tenth, false, seconds(100, plus(flat(100), leak(-0.5))))
}

func TestWhatGrowsByLessThanTheFloorDoesNotGrow(t *testing.T) {
	expect(t, rule{share: 0.1, floor: 50}, false, seconds(100, plus(flat(100), leak(0.4))))
}

func TestALeakGrows(t *testing.T) {
	expect(t, tenth, true, seconds(100, plus(flat(100), leak(1))))
}

func TestASlowLeakGrowsUnderNoise(t *testing.T) {
	for seed := range uint64(50) {
		// A fifth more in the end, where each sample varies by half of that.
		expect(t, tenth, true, seconds(450, plus(flat(100), leak(20.0/450), noise(seed, 5))))
	}
}

func TestALeakGrowsUnderASawtooth(t *testing.T) {
	for shift := 0; shift < 60; shift += 3 {
		expect(t, tenth, true, seconds(450, plus(leak(40.0/450),
			func(s float64) float64 { return 100 + sawtooth(60, 40)(s+float64(shift)) })))
	}
}

func TestALeakGrowsWhereSamplesAreMissing(t *testing.T) {
	points := seconds(450, plus(flat(100), leak(30.0/450)))
	expect(t, tenth, true, slices.DeleteFunc(points, func(p point) bool { return p.at/time.Second%7 < 3 }))
}

func TestALeakThatIsFullBeforeTheSteadyStateDoesNotGrow(t *testing.T) {
	set := settings{duration: 100 * time.Second, store: "memory"}
	r := report{set: set, series: []*series{{metric: metric{rule: tenth}, points: seconds(100, func(s float64) float64 { return 100 + 10*min(s, 24) })}}}
	if err := r.judge(nil); err != nil {
		t.Fatal(err)
	}
	if grown := r.grown(); len(grown) > 0 {
		t.Errorf("it grows: %+v", r.verdicts)
	}
}

func TestTooFewSamplesAreNotJudged(t *testing.T) {
	set := settings{duration: 100 * time.Second, store: "memory"}
	r := report{set: set, series: []*series{{metric: heap, points: seconds(60, flat(100))}}}
	if err := r.judge(nil); err == nil {
		t.Errorf("35 of 75 samples were judged: %+v", r.verdicts)
	}
}

func TestALongRunIsCondensedToItsMedians(t *testing.T) {
	points := condense(seconds(3000, plus(leak(1), step(1500, 1e6))), 300)
	if len(points) != 300 || points[0].value != 4 || points[299].value != 1e6+2994 {
		t.Errorf("%d points from %v to %v", len(points), points[0], points[len(points)-1])
	}
}

func expect(t *testing.T, r rule, grows bool, points []point) {
	t.Helper()
	if v := r.judge(points); v.grows != grows {
		t.Errorf("grows: %v, want %v: %+v", v.grows, grows, v)
	}
}
