package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// runAt sends the load at a steady rate, whether answers come or not. Latencies
// count from the moment at which a request was due: an answer that is late
// delays requests that come after it, and they are not excused for that.
//
// One goroutine sends all requests, each on a connection that is idle. It keeps
// to the time better than a timer for each connection would.
func (p plan) runAt(ctx context.Context, perSecond int) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connections, err := p.dial(ctx)
	if err != nil {
		return outcome{}, err
	}

	idle := make(chan *connection, len(connections))
	due := make(map[*connection]chan time.Time, len(connections))
	var receivers sync.WaitGroup
	for _, c := range connections {
		times := make(chan time.Time, 1)
		due[c] = times
		idle <- c
		receivers.Go(func() {
			for at := range times {
				if err := c.receive(); err != nil {
					cancel(err)
					return
				}
				c.note(time.Since(at))
				idle <- c
			}
		})
	}

	began := time.Now()
	err = p.pace(began, perSecond, func(at time.Time) error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c := <-idle:
			c.request.setKey(p.keys)
			due[c] <- at
			if _, err := c.Write(c.request.bytes); err != nil {
				return fmt.Errorf("sending a request: %w", err)
			}
			return nil
		}
	})
	if err != nil {
		cancel(err)
	}
	for _, times := range due {
		close(times)
	}
	receivers.Wait()
	elapsed := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return outcome{}, err
	}
	return gather(connections, elapsed), nil
}

// pace calls send at a steady rate for as long as the plan says.
func (p plan) pace(began time.Time, perSecond int, send func(due time.Time) error) error {
	runtime.LockOSThread() // so that sleeping holds up nobody else
	defer runtime.UnlockOSThread()
	interval := time.Second / time.Duration(perSecond)
	for at := began; at.Sub(began) < p.duration; at = at.Add(interval) {
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			preciseSleep(wait)
		}
		if err := send(at); err != nil {
			return err
		}
	}
	return nil
}
