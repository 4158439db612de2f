package pacing

import "time"

const (
	// buckets is how many parts a window is counted in. A start counts until the
	// end of its bucket and a window after that, so that no more than the limit
	// start in any period as long as the window, however many that is.
	buckets = 100
	ring    = buckets + 1

	// recovery is how many windows it takes to get from nothing back to the whole
	// limit after the upstream has complained.
	recovery = 20

	// maxHold is the longest that one answer can stop everything for.
	maxHold = 24 * time.Hour
)

// budget says when calls may start. Two rules hold together: no more than the
// limit in any window, and even intervals but for a burst. The first alone would
// let everything through at once and then nothing for the rest of the window; the
// second alone would let the burst through on top of the limit.
//
// Its times are since the pacer's epoch. The zero budget does not limit.
type budget struct {
	starts int // 0: any number
	burst  int
	width  time.Duration // of a bucket

	counts [ring]int // by the bucket's number modulo ring
	latest int64     // the number of the latest bucket that is counted
	used   int       // the sum of counts

	// tat is when the starts there were would have ended at even intervals (GCRA's
	// theoretical arrival time). It is ahead of now by what is used of the burst.
	tat  time.Duration
	pace time.Duration // the interval that tat is at

	// full is when the window will have a place again, where somebody has asked
	// while it had none, and fullLeave what that one had to leave to others.
	full      time.Duration
	fullLeave int

	hold    time.Duration // nothing starts before
	low     int           // the limit when the upstream has complained; 0: it has not
	lowFrom time.Duration // from when on it rises again
}

// configure changes the limits. What has been started keeps counting.
func (b *budget) configure(now time.Duration, l Limits) {
	width := (l.Window + buckets - 1) / buckets
	if b.width != width && width > 0 {
		old := *b
		b.counts, b.used, b.latest, b.width = [ring]int{}, 0, int64(now/width), width
		if old.width > 0 {
			old.advance(now)
			for n := old.latest - buckets; n <= old.latest; n++ {
				if n < 0 {
					continue
				}
				// As if all had come at the end of theirs, which is the safe side.
				end := min(time.Duration(n+1)*old.width-1, now)
				if at := int64(end / width); at > b.latest-ring && at >= 0 {
					b.counts[at%ring] += old.counts[n%ring]
					b.used += old.counts[n%ring]
				}
			}
		}
	}
	if b.starts != l.Starts {
		b.low = 0
	}
	b.starts, b.burst, b.full = l.Starts, l.BurstSize(), 0
	b.settle(now)
}

// settle takes over an interval that has changed: what is used of the burst stays
// used, at the new rate.
func (b *budget) settle(now time.Duration) {
	if b.starts == 0 {
		return
	}
	limit := b.limit(now)
	interval := b.interval(limit)
	if interval == b.pace {
		return
	}
	if ahead := b.tat - now; ahead > 0 && b.pace > 0 {
		used := min(float64(ahead)/float64(b.pace), float64(min(b.burst, limit)))
		b.tat = now + time.Duration(used*float64(interval))
	}
	b.pace = interval
}

// BurstSize returns how many may start at once, which Burst says or leaves open.
func (l Limits) BurstSize() int {
	if l.Burst > 0 {
		return min(l.Burst, l.Starts)
	}
	return min(max(10, l.Starts/10), l.Starts)
}

// advance forgets what does not count any more at now.
func (b *budget) advance(now time.Duration) {
	if b.width == 0 {
		return
	}
	n := int64(now / b.width)
	if n-b.latest >= ring {
		b.counts, b.used, b.latest = [ring]int{}, 0, n
	}
	for ; b.latest < n; b.latest++ {
		oldest := (b.latest + 1) % ring
		b.used -= b.counts[oldest]
		b.counts[oldest] = 0
	}
	if b.low != 0 {
		b.settle(now)
	}
}

// limit returns how many may start within a window at present.
func (b *budget) limit(now time.Duration) int {
	if b.low == 0 {
		return b.starts
	}
	windows := max(0, now-b.lowFrom) / (buckets * b.width)
	return min(b.starts, b.low+int(min(windows, recovery))*b.step())
}

// step is by how much the limit rises again with each window.
func (b *budget) step() int { return max(1, b.starts/recovery) }

// interval returns the time between starts at the rate of limit.
func (b *budget) interval(limit int) time.Duration {
	return max(1, buckets*b.width/time.Duration(limit))
}

// reserve returns how many starts one who has had its share leaves to others.
func (b *budget) reserve(now time.Duration) int {
	burst := min(b.burst, b.limit(now))
	return min(max(1, burst/3), burst-1)
}

// schedule is when starts may come that are made as soon as they may.
type schedule struct {
	window   time.Duration // when the window next has a place for one
	at       time.Duration // when the one that was asked for may start
	interval time.Duration
	burst    int
}

// next returns when one call may start after k others have, all as soon as they
// may, with leave starts left over for others.
func (b *budget) next(now time.Duration, k, leave int) time.Duration {
	return b.schedule(now, k, leave).at
}

func (b *budget) schedule(now time.Duration, k, leave int) schedule {
	from := max(now, b.hold)
	if b.starts == 0 {
		return schedule{window: from, at: from}
	}
	b.advance(now)
	limit := b.limit(from)
	s := schedule{window: from, interval: b.interval(limit), burst: min(b.burst, limit)}

	// The j-th of them is due at even + j intervals, but no earlier than from.
	even := max(from, b.taken(from, s)) - time.Duration(s.burst-1-leave)*s.interval
	due := func(j int) time.Duration { return max(from, even+time.Duration(j)*s.interval) }

	places := limit - leave - b.used
	for n := b.latest - buckets; places <= k && n <= b.latest; n++ {
		count := 0
		if n >= 0 {
			count = b.counts[n%ring]
		}
		if count == 0 {
			continue
		}
		ends := time.Duration(n+ring) * b.width
		if places <= 0 {
			s.window = max(from, ends)
		}
		if j := max(0, places); places+count > 0 && due(j) < ends {
			even = ends - time.Duration(j)*s.interval
		}
		places += count
	}
	if places > k {
		s.at = due(k)
		return s
	}
	// Beyond that, each waits for one of the others to be a window ago.
	rounds := (k-places)/limit + 1
	s.at = due(max(0, k-rounds*limit)) + time.Duration(rounds)*ring*b.width
	return s
}

// ask tells whether a call may start now. If not, it returns when, and takes down
// that somebody wanted to.
func (b *budget) ask(now time.Duration, leave int) (at time.Duration, ok bool) {
	s := b.schedule(now, 0, leave)
	if s.at <= now {
		return now, true
	}
	if s.window > now {
		b.full, b.fullLeave = s.window, leave
	}
	return s.at, false
}

// taken returns tat at now. While the window is full no burst is saved up: what
// it then has room for comes at even intervals, too.
func (b *budget) taken(now time.Duration, s schedule) time.Duration {
	if b.full == 0 || b.full > now {
		return b.tat
	}
	return max(b.tat, b.full+time.Duration(s.burst-1-b.fullLeave)*s.interval)
}

// take counts a start at now.
func (b *budget) take(now time.Duration) {
	if b.starts == 0 {
		return
	}
	b.advance(now)
	b.counts[b.latest%ring]++
	b.used++
	limit := b.limit(now)
	s := schedule{interval: b.interval(limit), burst: min(b.burst, limit)}
	// (A shared budget may have let more through than is due here.)
	b.tat = min(max(b.taken(now, s), now), now+time.Duration(s.burst-1)*s.interval) + s.interval
	if b.full <= now {
		b.full = 0
	}
}

// move counts a start at now that was taken at at, if that still counts.
func (b *budget) move(now, at time.Duration) bool {
	if b.starts == 0 {
		return false
	}
	b.advance(now)
	n := int64(at / b.width)
	if n <= b.latest-ring || b.counts[n%ring] == 0 {
		return false
	}
	b.counts[n%ring]--
	b.counts[b.latest%ring]++
	return true
}

// giveBack undoes a start that was taken at at.
func (b *budget) giveBack(now, at time.Duration) {
	if b.starts == 0 || b.width == 0 {
		return
	}
	b.advance(now)
	if n := int64(at / b.width); n > b.latest-ring && b.counts[n%ring] > 0 {
		b.counts[n%ring]--
		b.used--
	}
	b.tat -= b.interval(b.limit(now))
	b.full = 0
}

// complain lets nothing start for d, since the upstream has counted more: so the
// limit becomes what was used of it, and rises again by a twentieth of what it
// was with each window. It falls to no less than one such step: a limit of 1,
// after the only call for a while was refused, would be a stop for a window,
// which the upstream has not asked for.
func (b *budget) complain(now, d time.Duration) {
	d = max(0, min(d, maxHold))
	b.hold = max(b.hold, now+d)
	if b.starts == 0 {
		return
	}
	b.advance(now)
	b.low = min(max(b.used, b.step()), b.limit(now))
	b.lowFrom = b.hold
	b.pace, b.full = b.interval(b.low), 0
	b.tat = b.hold + time.Duration(min(b.burst, b.low)-1)*b.interval(b.low) // no burst either
}
