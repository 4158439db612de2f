package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestPercentileIsTheNearestRank(t *testing.T) {
	hundred := make([]uint32, 100)
	for i := range hundred {
		hundred[i] = uint32(i + 1)
	}
	for _, c := range []struct {
		of    []uint32
		share float64
		want  time.Duration
	}{
		{nil, 0.5, 0},
		{[]uint32{7}, 0.5, 7},
		{[]uint32{7}, 0.999, 7},
		{[]uint32{1, 2}, 0.5, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 0.999, 100},
		{hundred, 1, 100},
	} {
		if got := percentile(c.of, c.share); got != c.want*time.Microsecond {
			t.Errorf("percentile of %d values at %g: %v, want %dµs", len(c.of), c.share, got, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v: %g, want %g", c.of, got, c.want)
		}
	}
}

// A ratio is that of each round, not that of medians: here the machine was
// slow for both in the second round.
func TestRatiosArePairedByRound(t *testing.T) {
	a := series{{perSecond: 100}, {perSecond: 20}, {perSecond: 90}}
	b := series{{perSecond: 200}, {perSecond: 10}, {perSecond: 60}}
	if got, want := speedRatio(a, b), (spread{1.5, 0.5, 2}); got != want {
		t.Errorf("ratio %v, want %v", got, want)
	}
}

func TestTargets(t *testing.T) {
	once := func(v float64) spread { return spread{v, v, v} }
	for _, c := range []struct {
		t    target
		want bool
	}{
		{target{got: once(0.9), limit: 0.9}, true},
		{target{got: once(0.89), limit: 0.9}, false},
		{target{got: once(10), limit: 10, atMost: true}, true},
		{target{got: once(10.1), limit: 10, atMost: true}, false},
		{target{got: spread{median: 1, lowest: 0.5, highest: 2}, limit: 0.9}, true},
	} {
		if got := c.t.met(); got != c.want {
			t.Errorf("%+v: met %v, want %v", c.t, got, c.want)
		}
	}
}

func TestFreshKeysAreNeverTheSame(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	for range 3 { // contenders
		k := newKeys()
		for range 2 { // rounds
			var connections sync.WaitGroup
			for range 4 {
				connections.Go(func() {
					request := newTemplate("a", "/", "{}", "Idempotency-Key: "+keyPlace)
					for range 500 {
						request.setKey(k)
						key := string(request.bytes[request.keys[0]:][:len(keyPlace)])
						mu.Lock()
						if seen[key] {
							t.Errorf("key %s is there twice", key)
						}
						seen[key] = true
						mu.Unlock()
					}
				})
			}
			connections.Wait()
		}
	}
	if len(seen) != 3*2*4*500 {
		t.Errorf("%d keys", len(seen))
	}
}

func TestReplaysTakeAllKeysInTurn(t *testing.T) {
	fresh := newKeys()
	key := make([]byte, len(keyPlace))
	known := map[string]int{}
	for range 1000 {
		fresh.put(key)
		known[string(key)] = 0
	}
	again := fresh.again(1000)
	for range 3000 {
		again.put(key)
		if _, ok := known[string(key)]; !ok {
			t.Fatalf("key %s was never sent", key)
		}
		known[string(key)]++
	}
	for key, times := range known {
		if times != 3 {
			t.Errorf("key %s was sent %d times again, want 3", key, times)
		}
	}
}

func TestTheKeyIsSetWhereverItStands(t *testing.T) {
	request := newTemplate("a", "/", `{"key": "`+keyPlace+`"}`, "Idempotency-Key: "+keyPlace)
	copied := request.clone()
	copied.setKey(newKeys())
	if n := strings.Count(string(copied.bytes), keyPlace); n != 0 {
		t.Errorf("%d of the keys are not set in %q", n, copied.bytes)
	}
	if n := strings.Count(string(request.bytes), keyPlace); n != 2 {
		t.Errorf("the original was changed: %q", request.bytes)
	}
}

func TestBodiesHaveTheirSize(t *testing.T) {
	for _, size := range []int{requestSize, 4 << 10, 64 << 10} {
		if got := len(jsonBody(size)); got != size {
			t.Errorf("a request's body of %d bytes has %d", size, got)
		}
		if got := len(sampleAnswer(size)); got != size {
			t.Errorf("an answer of %d bytes has %d", size, got)
		}
	}
}

func TestOnlyAFullRunReplacesResultsUnasked(t *testing.T) {
	for args, want := range map[string]bool{
		"":                     true,
		"-rounds 3":            true,
		"-quick":               false,
		"-run fresh":           false,
		"-run fresh -out some": true,
	} {
		set, err := parseFlags(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		if got := set.out != ""; got != want {
			t.Errorf("%q writes results: %v, want %v", args, got, want)
		}
	}
}

func TestTheChartIsXML(t *testing.T) {
	r := report{targets: []target{
		{what: "a < b & c", against: "`x`", got: spread{0.9, 0.8, 1}, limit: 0.5},
		{what: "far beyond", against: "the tutorial's program", got: spread{500, 400, 600}, limit: 300},
		{what: "not in it", unit: "ms", got: spread{1, 1, 1}, limit: 1},
	}}
	g := growth{name: "connections"}
	for range 3 {
		g.add("1", []series{{{perSecond: 4}}, {{perSecond: 3}}, {{perSecond: 2}}, {{perSecond: 1}}})
	}
	r.growths = append(r.growths, g)
	chart := r.chart()
	for d := xml.NewDecoder(strings.NewReader(chart)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, chart)
		}
	}
	if strings.Contains(chart, "NaN") || strings.Contains(chart, "not in it") {
		t.Errorf("the chart is wrong:\n%s", chart)
	}
}
