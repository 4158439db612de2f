package disk

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// clock tells the time that records go by. A wall clock that is set forward by
// more than the retention would make every record look expired, and each call
// free to run again; so the clock looks at the wall once and goes on by the time
// that has passed. From one opening of the store to the next it goes on by the
// time that the system says has passed. Only where that is not known, after a
// restart of the machine, has the wall clock to be believed again (see rest).
type clock struct {
	base   time.Time            // the time when the clock was started
	steady func() time.Duration // the time passed since, less what the machine slept
	slept  atomic.Int64         // the latter, as of the last look
	rest   rest

	machine func() (wall time.Time, boot string, uptime time.Duration)
	began   time.Duration // uptime at base
	logger  *slog.Logger

	mu    sync.Mutex
	lead  time.Duration // guarded by mu; how far the wall clock was ahead at the last look
	jumps []jump        // guarded by mu; when it went further ahead, oldest first
}

// rest is the last time that the store was closed and nobody but the wall clock
// can tell for how long: that was set, or the machine was off, or both.
type rest struct {
	from, to time.Time // by the store's clock
}

// jump is a change of the wall clock's lead.
type jump struct {
	noticed time.Time // by the store's clock
	by      time.Duration
}

const (
	// restGrace is for how long, of running, what has expired during a rest is
	// kept all the same, at most.
	restGrace = time.Hour

	// clockInterval is how often the clock looks at the machine's.
	clockInterval = 5 * time.Second

	// leastJump is the least change of the wall clock that is no adjustment.
	leastJump = time.Second

	// notableJump is the least change, or rest, that an operator is told of.
	notableJump = time.Minute

	// maxJumps is how many jumps are told apart.
	maxJumps = 32
)

// clockNote is what the store keeps of its clock while it is closed.
type clockNote struct {
	Time   time.Time     `json:"time"` // by the store's clock
	Wall   time.Time     `json:"wall"`
	Boot   string        `json:"boot"`
	Uptime time.Duration `json:"uptime"`
	From   time.Time     `json:"rest_from,omitzero"`
	To     time.Time     `json:"rest_to,omitzero"`
}

// startClock starts a clock that goes on from note, the last one of it; zero:
// there was none.
func startClock(note clockNote, machine func() (time.Time, string, time.Duration), logger *slog.Logger) *clock {
	began := time.Now()
	c := &clock{machine: machine, logger: logger, steady: func() time.Duration { return time.Since(began) }}
	wall, boot, uptime := machine()
	c.began = uptime
	switch {
	case note.Time.IsZero():
		c.base = wall
	case boot != "" && boot == note.Boot && uptime >= note.Uptime:
		passed := uptime - note.Uptime
		c.base, c.rest = note.Time.Add(passed), rest{note.From, note.To}
		if set := wall.Sub(note.Wall) - passed; set.Abs() >= notableJump {
			logger.Warn("the wall clock was set while the store was closed; records go by the time that has passed",
				slog.Duration("by", set))
		}
	default:
		c.wake(note, wall)
	}
	c.lead = wall.Sub(c.base)
	if !note.Time.IsZero() {
		// What is from before may be older than the store's clock tells: by what
		// the wall clock was set meanwhile, or by all of its lead, of which it is
		// not known any more when it came about.
		if further := max(c.lead, c.lead-note.Wall.Sub(note.Time)); further >= leastJump {
			c.jumps = append(c.jumps, jump{c.base, further})
		}
	}
	return c
}

// wake sets the clock after a time of which only the wall clock tells how long it
// was. It never goes back, and where the wall clock was ahead before, it takes it
// to be ahead by as much now.
func (c *clock) wake(note clockNote, wall time.Time) {
	c.base = wall
	if ahead := note.Wall.Sub(note.Time); ahead > 0 {
		c.base = wall.Add(-ahead)
	}
	passed := c.base.Sub(note.Time)
	if passed <= 0 {
		c.base, c.rest = note.Time, rest{note.From, note.To}
		if passed <= -notableJump {
			c.logger.Warn("the wall clock is behind the time when the store was last used; records are kept for longer by as much",
				slog.Duration("by", -passed))
		}
		return
	}
	c.rest = rest{note.Time, c.base}
	if !note.To.IsZero() && note.Time.Before(note.To.Add(restGrace)) {
		c.rest.from = note.From // what was being kept then is kept on
	}
	if passed >= restGrace {
		c.logger.Warn("the machine was restarted, and only its wall clock tells for how long the store was closed; "+
			"what has expired meanwhile is kept for up to an hour more, lest the clock is wrong",
			slog.Duration("closed", passed))
	}
}

// Now tells the time.
func (c *clock) Now() time.Time {
	return c.base.Add(c.steady() + time.Duration(c.slept.Load()))
}

// expired tells whether rec counts as gone.
func (c *clock) expired(rec *idempotency.Record) bool { return !c.Now().Before(c.expiry(rec)) }

// expiry returns when rec counts as gone.
func (c *clock) expiry(rec *idempotency.Record) time.Time {
	r := c.rest
	if r.to.IsZero() || !rec.Expires.After(r.from) || !rec.Started.Before(r.to) || !rec.Finished.Before(r.to) {
		return rec.Expires
	}
	if kept := r.to.Add(min(restGrace, rec.Expires.Sub(r.from))); kept.After(rec.Expires) {
		return kept
	}
	return rec.Expires
}

// elapsed tells how long ago t is at the most, if the wall clock was set right
// whenever it was set forward: a machine that stood still cannot tell.
func (c *clock) elapsed(t time.Time) time.Duration {
	c.look()
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.Now().Sub(t)
	for _, j := range c.jumps {
		if j.noticed.After(t) {
			d += j.by
		}
	}
	return d
}

// look compares the clock with the machine's, and tells whether the wall clock
// was set since.
func (c *clock) look() (set bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall, _, uptime := c.machine()
	if slept := uptime - c.began - c.steady(); slept-time.Duration(c.slept.Load()) >= leastJump {
		c.slept.Store(int64(slept))
	}
	now := c.Now()
	by := wall.Sub(now) - c.lead
	if by.Abs() < leastJump {
		return false
	}
	c.lead += by
	if by > 0 {
		c.jumps = append(c.jumps, jump{now, by})
	}
	if len(c.jumps) > maxJumps {
		c.jumps[1].by += c.jumps[0].by
		c.jumps = c.jumps[1:]
	}
	if by.Abs() >= notableJump {
		c.logger.Warn("the wall clock was set; records go by the time that has passed", slog.Duration("by", by))
	}
	return true
}

// note returns what is to be kept of the clock.
func (c *clock) note() clockNote {
	wall, boot, uptime := c.machine()
	return clockNote{
		Time: c.base.Add(uptime - c.began), Wall: wall, Boot: boot, Uptime: uptime,
		From: c.rest.from, To: c.rest.to,
	}
}
