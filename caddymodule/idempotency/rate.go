package idempotency

import (
	"sync"
	"time"
)

// rate counts what happens in the seconds of the last minute. The zero rate has
// counted nothing.
type rate struct {
	mu      sync.Mutex
	seconds [60]int // guarded by mu
	latest  int64   // guarded by mu; the second that was counted last, since 1970
	total   uint64  // guarded by mu
}

func (r *rate) add(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advanceLocked(now)
	r.seconds[r.latest%60]++
	r.total++
}

// all returns how much was ever counted.
func (r *rate) all() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

func (r *rate) lastMinute(now time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advanceLocked(now)
	for _, k := range r.seconds {
		n += k
	}
	return n
}

func (r *rate) advanceLocked(now time.Time) {
	to := now.Unix()
	for s := max(r.latest+1, to-59); s <= to; s++ {
		r.seconds[s%60] = 0
	}
	r.latest = max(r.latest, to)
}
