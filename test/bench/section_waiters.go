package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// sectionWaiters has a thousand callers send the same call at once. It must run
// once, and all must have the answer soon after the first one has it.
func (b *bench) sectionWaiters(ctx context.Context) error {
	const callers = 1000
	s, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return err
	}
	if _, err := b.fill(ctx, &s.server, callers); err != nil { // to warm up
		return err
	}
	delay := time.Second
	if err := b.upstream.setDelay(ctx, delay); err != nil {
		return err
	}
	var reached, read []float64
	for range b.rounds {
		took, err := b.waitTogether(ctx, s, callers, delay, false)
		if err != nil {
			return err
		}
		read = append(read, milliseconds(took))
		if !knowsArrivals {
			continue
		}
		if took, err = b.waitTogether(ctx, s, callers, delay, true); err != nil {
			return err
		}
		reached = append(reached, milliseconds(took))
	}
	if err := b.upstream.setDelay(ctx, 0); err != nil {
		return err
	}
	const what = "1,000 callers of one call that takes 1 s"
	if knowsArrivals {
		b.report.atMost(what, "from the first answer that has reached its caller to the last", spreadOf(reached), 20, "ms")
	}
	b.report.atMost(what+", and share its cores with the sidecar", "from the first answer that its caller has read to the last", spreadOf(read), 20, "ms")
	return nil
}

// unread is how long callers who let their answers lie do so, beyond the call's time.
const unread = 500 * time.Millisecond

// waitTogether sends one call from many callers, and returns the time from the
// first answer to the last. With lie, callers let their answers lie until all should
// have come, and go by when the system has noted that they did: what reading takes
// is then not in the way of answers that are still to be sent.
func (b *bench) waitTogether(ctx context.Context, s *sidecar, callers int, delay time.Duration, lie bool) (time.Duration, error) {
	p := plan{address: s.address, request: s.request(requestSize), connections: callers, check: anyAnswer}
	p.request.setKey(newKeys())
	connections, err := p.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer closeAll(connections)
	unblock := context.AfterFunc(ctx, func() { closeAll(connections) })
	defer unblock()

	executedBefore, err := b.upstream.executions(ctx)
	if err != nil {
		return 0, err
	}
	arrivals := make([]*arrival, callers)
	if lie {
		for i, c := range connections {
			if arrivals[i], err = newArrival(c.Conn); err != nil {
				return 0, err
			}
		}
	}
	began := time.Now()
	answered := make([]time.Duration, callers)
	errs := make([]error, callers)
	replayed := make([]bool, callers)
	var all sync.WaitGroup
	for i, c := range connections {
		all.Go(func() {
			if errs[i] = c.rehearse(); errs[i] != nil {
				return
			}
			if _, errs[i] = c.Write(c.request.bytes); errs[i] != nil {
				return
			}
			if lie {
				time.Sleep(delay + unread)
				c.in.Reset(arrivals[i])
			}
			errs[i] = c.receive()
			answered[i] = time.Since(began)
			if lie {
				answered[i] = arrivals[i].at.Sub(began)
			}
			replayed[i] = string(c.answer.Header.Peek(s.mark.name)) == s.mark.value
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	executed, err := b.upstream.executions(ctx)
	if err != nil {
		return 0, err
	}
	if ran := executed - executedBefore; ran != 1 {
		return 0, fmt.Errorf("counting executions: the call ran %d times", ran)
	}
	first := 0
	for _, again := range replayed {
		if !again {
			first++
		}
	}
	earliest, latest := slices.Min(answered), slices.Max(answered)
	if first != 1 || earliest < delay {
		return 0, fmt.Errorf("checking answers: %d of them are first ones, the earliest came after %v", first, earliest)
	}
	b.progress("   first answer after %v, last one %v later", earliest, latest-earliest)
	return latest - earliest, nil
}
