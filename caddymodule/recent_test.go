package caddymodule

import (
	"testing"
	"time"
)

func TestTheLastHourHasEachMinuteOnce(t *testing.T) {
	var r recent
	start := time.Unix(1_800_000_000/60*60, 0)
	for i := range 90 { // the first half hour is overwritten
		r.add(start.Add(time.Duration(i)*time.Minute), endExecuted, time.Second)
	}
	now := start.Add(90 * time.Minute)
	hour := r.last(now)
	if len(hour) != recentMinutes {
		t.Fatalf("%d minutes", len(hour))
	}
	for i, m := range hour {
		if want := start.Unix()/60 + int64(31+i); m.number != want {
			t.Errorf("minute %d is %d, want %d", i, m.number, want)
		}
		if running := i == recentMinutes-1; running != (m.count() == 0) {
			t.Errorf("minute %d has %d calls", i, m.count())
		}
	}
	if later := r.last(now.Add(2 * time.Hour)); later[0].count() != 0 || later[59].count() != 0 {
		t.Error("two hours later it still has calls")
	}
}

func TestPercentilesAreOffByAnEighthAtMost(t *testing.T) {
	var r recent
	now := time.Unix(1_800_000_000, 0)
	for i := range 1000 {
		r.add(now, endReplayed, time.Duration(i+1)*time.Millisecond)
	}
	m := r.last(now)[recentMinutes-1]
	for p, want := range map[float64]time.Duration{.5: 500 * time.Millisecond, .99: 990 * time.Millisecond, .001: time.Millisecond} {
		got := m.percentile(p)
		if off := (got - want).Abs(); off > want/8 {
			t.Errorf("p%v is %v, want %v", 100*p, got, want)
		}
	}
	if (&minute{}).percentile(.5) != 0 {
		t.Error("a minute without calls has a percentile")
	}
}

func TestDurationsBeyondTheBinsAreKept(t *testing.T) {
	if bin := binOf(0); bin != 0 {
		t.Errorf("0 is in bin %d", bin)
	}
	if bin := binOf(24 * time.Hour); bin != recentBins-1 {
		t.Errorf("a day is in bin %d", bin)
	}
	if longest := binOf(5 * time.Minute); longest == recentBins-1 {
		t.Error("the longest call that is to be expected is beyond the bins")
	}
}
