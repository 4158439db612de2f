package pacing

import (
	"math/rand/v2"
	"testing"
	"time"
)

// most returns how many of the starts, which are in order, are in the fullest
// period of the length window.
func most(starts []time.Duration, window time.Duration) int {
	n, from := 0, 0
	for i, at := range starts {
		for at-starts[from] >= window {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

// budgetOf returns a budget at now.
func budgetOf(now time.Duration, l Limits) *budget {
	b := new(budget)
	b.configure(now, l)
	return b
}

// saturate takes every start that there is up to until.
func (b *budget) saturate(now, until time.Duration, leave int) (starts []time.Duration) {
	for now <= until {
		at, ok := b.ask(now, leave)
		if ok {
			b.take(now)
			starts = append(starts, now)
			continue
		}
		now = at
	}
	return starts
}

func FuzzNoWindowHasMoreStartsThanTheLimit(f *testing.F) {
	f.Add(uint64(1), uint16(300), uint32(60_000), uint16(0), uint8(0))
	f.Add(uint64(2), uint16(1), uint32(1), uint16(1), uint8(3))
	f.Add(uint64(3), uint16(7), uint32(1234), uint16(3), uint8(100))
	f.Add(uint64(4), uint16(2500), uint32(60_000), uint16(2500), uint8(10))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, ms uint32, burst uint16, gaps uint8) {
		l := Limits{Starts: 1 + int(n)%3000, Window: time.Duration(1+ms%3_600_000) * time.Millisecond}
		l.Burst = min(int(burst), l.Starts)
		r := rand.New(rand.NewPCG(seed, seed))
		now := time.Duration(r.Int64N(int64(time.Hour)))
		b := budgetOf(now, l)
		var starts []time.Duration
		for range 6000 {
			switch {
			case r.IntN(1000) < int(gaps):
				now += time.Duration(r.Int64N(int64(2 * l.Window)))
			default:
				now += time.Duration(r.Int64N(1 + 3*int64(l.Window)/int64(l.Starts)))
			}
			leave := 0
			if r.IntN(3) == 0 {
				leave = b.reserve(now)
			}
			want := b.next(now, 0, leave)
			at, ok := b.ask(now, leave)
			if ok != (at <= now) || at != max(now, want) {
				t.Fatalf("asked at %v: %v, %v; it was to be %v", now, at, ok, want)
			}
			if ok {
				b.take(now)
				starts = append(starts, now)
				if r.IntN(50) == 0 {
					b.giveBack(now, now)
					starts = starts[:len(starts)-1]
				}
			} else if r.IntN(3) == 0 {
				now = at
			}
			if r.IntN(2000) == 0 {
				b.complain(now, time.Duration(r.Int64N(int64(l.Window))))
			}
		}
		if got := most(starts, l.Window); got > l.Starts {
			t.Errorf("%d starts within %v, with a limit of %d", got, l.Window, l.Starts)
		}
	})
}

func TestABurstIsFollowedByEvenStartsAtTheWholeRate(t *testing.T) {
	l := Limits{Starts: 300, Window: time.Minute}
	b := budgetOf(0, l)
	starts := b.saturate(0, 10*time.Minute, 0)
	if n := starts[29]; n != 0 || starts[30] == 0 {
		t.Errorf("the burst is another: the 30th at %v, the 31st at %v", n, starts[30])
	}
	// After the first window nothing comes at once, nor is there a gap longer than
	// a bucket and an interval.
	for i := 1; i < len(starts); i++ {
		gap := starts[i] - starts[i-1]
		if starts[i-1] > l.Window && (gap < 200*time.Millisecond || gap > 800*time.Millisecond) {
			t.Fatalf("%v between two starts at %v", gap, starts[i])
		}
	}
	if n := len(starts); n < 10*300*985/1000 {
		t.Errorf("%d starts in ten minutes of 300", n)
	}
	if n := most(starts, l.Window); n > 300 {
		t.Errorf("%d starts in a window", n)
	}
}

func TestWhatIsForetoldIsWhatHappens(t *testing.T) {
	for name, l := range map[string]Limits{
		"as is":        {Starts: 300, Window: time.Minute},
		"one":          {Starts: 1, Window: time.Second},
		"no burst":     {Starts: 20, Window: time.Second, Burst: 1},
		"all at once":  {Starts: 20, Window: time.Second, Burst: 20},
		"odd":          {Starts: 7, Window: 1234567 * time.Nanosecond},
		"many":         {Starts: 2500, Window: time.Minute},
		"of long":      {Starts: 100, Window: 24 * time.Hour},
		"little burst": {Starts: 50, Window: time.Minute, Burst: 3},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				now := time.Duration(r.Int64N(int64(l.Window)))
				b := budgetOf(now, l)
				for range r.IntN(2 * l.Starts) { // a past
					now += time.Duration(r.Int64N(int64(2 * l.Window / time.Duration(l.Starts))))
					if _, ok := b.ask(now, 0); ok {
						b.take(now)
					}
				}
				k := r.IntN(2 * l.Starts)
				foretold := b.next(now, k, 0)
				copied := *b
				starts := copied.saturate(now, now+5*l.Window, 0)
				// Beyond what the window holds already, to within its buckets.
				tolerance := time.Duration(0)
				if k >= l.Starts-b.used {
					tolerance = 2*b.width + b.interval(l.Starts)
				}
				if d := (foretold - starts[k]).Abs(); d > tolerance {
					t.Fatalf("start %d comes %v after now, %v was foretold", k, starts[k]-now, foretold-now)
				}
			}
		})
	}
}

func TestAReserveIsLeftToOthersInBothRules(t *testing.T) {
	l := Limits{Starts: 30, Window: time.Minute, Burst: 9}
	b := budgetOf(0, l)
	leave := b.reserve(0)
	if leave != 3 {
		t.Fatalf("the reserve is %d", leave)
	}
	if n := len(b.saturate(0, 0, leave)); n != 6 {
		t.Errorf("%d of a burst of 9 were taken with 3 to leave", n)
	}
	if n := len(b.saturate(0, 0, 0)); n != 3 {
		t.Errorf("%d were left", n)
	}
	b = budgetOf(0, l)
	if n := len(b.saturate(0, time.Minute-1, leave)); n != 27 {
		t.Errorf("%d of 30 were taken with 3 to leave", n)
	}
	if n := len(b.saturate(time.Minute-1, time.Minute-1, 0)); n != 3 {
		t.Errorf("%d were left in the window", n)
	}
}

func TestWhatIsGivenBackCanBeTakenAgain(t *testing.T) {
	b := budgetOf(0, Limits{Starts: 5, Window: time.Minute, Burst: 5})
	b.saturate(0, 0, 0)
	if _, ok := b.ask(0, 0); ok {
		t.Fatal("there is a sixth")
	}
	b.giveBack(0, 0)
	if n := len(b.saturate(0, 0, 0)); n != 1 {
		t.Errorf("%d could be taken again", n)
	}
}

func TestAComplaintLowersTheLimitAndItRisesAgain(t *testing.T) {
	l := Limits{Starts: 100, Window: 10 * time.Second, Burst: 100}
	b := budgetOf(0, l)
	for range 40 {
		b.take(0)
	}
	b.complain(0, 20*time.Second)
	if at, ok := b.ask(0, 0); ok || at != 20*time.Second {
		t.Errorf("the next may start at %v", at)
	}
	starts := b.saturate(20*time.Second, 20*time.Second, 0)
	if len(starts) != 1 {
		t.Errorf("%d start at once when the hold ends", len(starts))
	}
	for _, c := range []struct {
		at   time.Duration
		want int
	}{{20 * time.Second, 40}, {29 * time.Second, 40}, {30 * time.Second, 45}, {100 * time.Second, 80}, {500 * time.Second, 100}} {
		if got := b.limit(c.at); got != c.want {
			t.Errorf("at %v the limit is %d, want %d", c.at, got, c.want)
		}
	}
	starts = b.saturate(20*time.Second, 30*time.Second-1, 0)
	if n := len(starts); n < 35 || n > 40 {
		t.Errorf("%d starts in the first window after it", n)
	}
}

func TestALimitDoesNotFallBelowItsStepNorIsAHoldLongerThanADay(t *testing.T) {
	b := budgetOf(0, Limits{Starts: 300, Window: time.Minute})
	b.take(0)
	b.complain(0, 1000*time.Hour)
	if b.limit(0) != 15 || b.hold != 24*time.Hour {
		t.Errorf("the limit is %d, the hold %v", b.limit(0), b.hold)
	}
}

func TestNewLimitsCountWhatWasStartedUnderTheOld(t *testing.T) {
	b := budgetOf(0, Limits{Starts: 100, Window: 10 * time.Second, Burst: 100})
	starts := b.saturate(0, 0, 0)
	b.configure(time.Second, Limits{Starts: 100, Window: 3 * time.Second, Burst: 100})
	starts = append(starts, b.saturate(time.Second, 20*time.Second, 0)...)
	if n := most(starts, 3*time.Second); n > 100 {
		t.Errorf("%d starts within the new window", n)
	}
	if starts[100] > 5*time.Second {
		t.Errorf("the first under the new limits comes at %v", starts[100])
	}
}
