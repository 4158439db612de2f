package history

import (
	"context"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// chaos does what the schedule says.
type chaos struct {
	fleet  []*sidecar
	redis  *redistest.Server
	log    io.Writer
	blame  func(what, evidence string) // reports what no event may lead to
	count  *counters
	start  time.Time
	events []event

	mu   sync.Mutex
	done []incident // guarded by mu
}

// incident is an event that has come about, or has begun to.
type incident struct {
	event
	began, ended time.Time // ended: zero while it lasts
	err          error
}

func (i incident) String() string {
	text := i.event.String() + ", began " + clock(i.began)
	if !i.ended.IsZero() {
		text += ", over " + clock(i.ended)
	}
	if i.err != nil {
		text += ": " + i.err.Error()
	}
	return text
}

// clock writes a time of day, as the logs do.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// run has all events come about until ctx ends, and returns once everything runs
// again that is to.
func (c *chaos) run(ctx context.Context) {
	targets := make(map[int]chan event)
	var wg sync.WaitGroup
	for target := redis; target < len(c.fleet); target++ {
		events := make(chan event, len(c.events))
		targets[target] = events
		wg.Go(func() { // an event that took long has the target's next one wait
			for e := range events {
				if ctx.Err() == nil {
					c.happen(ctx, e)
				}
			}
		})
	}
	for _, e := range c.events {
		if !sleep(ctx, time.Until(c.start.Add(e.at))) {
			break
		}
		targets[e.target] <- e
	}
	for _, events := range targets {
		close(events)
	}
	wg.Wait()
}

// happen has one event come about, from beginning to end.
func (c *chaos) happen(ctx context.Context, e event) {
	c.mu.Lock()
	n := len(c.done)
	c.done = append(c.done, incident{event: e, began: time.Now()})
	c.mu.Unlock()
	c.count.events.Add(1)
	err := c.do(ctx, e)
	if err != nil {
		c.blame("an event went wrong", err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[n].ended, c.done[n].err = time.Now(), err
	fmt.Fprintln(c.log, c.done[n])
}

func (c *chaos) do(ctx context.Context, e event) error {
	switch e.deed {
	case KillRedis:
		c.count.redis.Add(1)
		if err := c.redis.Kill(); err != nil {
			return err
		}
		sleep(ctx, e.length)
		return c.redis.Restart()
	case PauseRedis:
		c.count.redis.Add(1)
		if err := c.redis.Pause(); err != nil {
			return err
		}
		sleep(ctx, e.length)
		return c.redis.Resume()
	}
	s := c.fleet[e.target]
	switch e.deed {
	case KillSidecar:
		c.count.kills.Add(1)
		s.kill()
	case StopSidecar:
		c.count.stops.Add(1)
		if err := s.stop(); err != nil {
			c.blame("an event went wrong", err.Error())
		}
	case ReloadSidecar:
		c.count.reloads.Add(1)
		return s.reload()
	case PauseSidecar:
		c.count.pauses.Add(1)
		if err := s.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		sleep(ctx, e.length)
		return s.signal(syscall.SIGCONT)
	}
	sleep(ctx, e.length)
	return s.start()
}

// during returns what happened between two times.
func (c *chaos) during(from, to time.Time) []incident {
	c.mu.Lock()
	defer c.mu.Unlock()
	var during []incident
	for _, i := range c.done {
		if i.began.Before(to) && (i.ended.IsZero() || i.ended.After(from)) {
			during = append(during, i)
		}
	}
	return during
}

// stood returns for how long a sidecar was paused by events between two times.
func (c *chaos) stood(sidecar int, from, to time.Time) (d time.Duration) {
	for _, i := range c.during(from, to) {
		if i.deed == PauseSidecar && i.target == sidecar {
			d += i.length
		}
	}
	return d
}

// sleep waits, and tells whether it waited it all out.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
