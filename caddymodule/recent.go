package caddymodule

import (
	"math"
	"sync"
	"time"
)

// lastHour has what came of the calls of the last hour, minute by minute.
var lastHour recent

const (
	recentMinutes = 60

	// Durations are kept in bins that grow by a quarter each, from 50 µs to
	// some 5 minutes: a percentile is off by an eighth at most.
	recentBins  = 72
	firstBin    = 50 * time.Microsecond
	growthOfBin = 1.25
)

// recent is a ring of minutes. Its zero value is empty. It is safe for
// concurrent use.
type recent struct {
	mu      sync.Mutex
	minutes [recentMinutes]minute // guarded by mu; at its number modulo their number
}

// minute is what came of the calls that ended in one minute.
type minute struct {
	number int64 // since 1970
	ended  [endings]uint32
	took   [recentBins]uint32
}

// add notes a call that has ended at end after took.
func (r *recent) add(end time.Time, e ending, took time.Duration) {
	number := end.Unix() / 60
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.minutes[number%recentMinutes]
	if m.number != number {
		*m = minute{number: number}
	}
	m.ended[e]++
	m.took[binOf(took)]++
}

// last returns the last hour up to now, oldest minute first. Those without calls
// are there as well.
func (r *recent) last(now time.Time) []minute {
	last := now.Unix() / 60
	r.mu.Lock()
	defer r.mu.Unlock()
	hour := make([]minute, 0, recentMinutes)
	for number := last - recentMinutes + 1; number <= last; number++ {
		m := r.minutes[number%recentMinutes]
		if m.number != number {
			m = minute{number: number}
		}
		hour = append(hour, m)
	}
	return hour
}

// binOf returns the bin of d.
func binOf(d time.Duration) int {
	if d <= firstBin {
		return 0
	}
	bin := math.Log(float64(d)/float64(firstBin)) / math.Log(growthOfBin)
	return min(int(math.Ceil(bin)), recentBins-1)
}

// count returns how many calls there were.
func (m *minute) count() (n uint32) {
	for _, ended := range m.ended {
		n += ended
	}
	return n
}

// percentile returns how long the calls took of which p of all (0 to 1) took no
// longer, or 0 if there were none.
func (m *minute) percentile(p float64) time.Duration {
	rank := uint32(math.Ceil(p * float64(m.count())))
	var seen uint32
	for bin, n := range m.took {
		if seen += n; seen >= rank && seen > 0 {
			return time.Duration(float64(firstBin) * math.Pow(growthOfBin, float64(bin)-.5))
		}
	}
	return 0
}
