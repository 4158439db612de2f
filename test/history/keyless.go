package history

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Of a keyless call, one request is sent at a time: two could both be meant, and
// the next follows when the caller of the one before has left. What may have
// reached that caller all the same decides whether the next may run anew. So the
// caller leaves by closing its half of the connection, which is what a server
// notices, and reads on.

// drainTime is for how long it reads on. A call is over after its deadline.
const drainTime = 20 * time.Second

// adoption is for how long a keyless call is repeated: well within the window of
// two minutes in which it can be adopted.
const adoption = 40 * time.Second

// makeKeyless sends a call without a key until it has an answer that will do.
func (c *client) makeKeyless(ctx context.Context, call *call) {
	c.checker.begin(call)
	c.count.calls.Add(1)
	c.count.keyless.Add(1)
	for end := time.Now().Add(adoption); time.Now().Before(end); {
		if !c.pace.wait(ctx) {
			return
		}
		s := c.sendKeyless(call, c.anySidecar(), c.timeout())
		switch {
		case s.kind == known, s.kind == unknown && !call.honored && c.random.IntN(2) == 0:
			c.past.add(call, s.key)
			return
		case s.kind == freed:
			// Not executed, or so it says: the next is another call, whose
			// caller may have it run.
		}
		if c.isOver(call) {
			return
		}
		if c.random.IntN(2) == 0 || s.kind == refused || s.unsent() { // or at once, as SDKs do
			if !sleep(ctx, c.pause()) {
				return
			}
		}
	}
	c.count.givenUp.Add(1)
}

// meanTwice makes a call that is meant twice: by two callers at the same time, who
// both stay. They are not to be taken for one.
func (c *client) meanTwice(ctx context.Context, call *call) {
	call.twice = true
	c.checker.begin(call)
	c.count.calls.Add(2)
	c.count.keyless.Add(2)
	var wg sync.WaitGroup
	for range 2 {
		if !c.pace.wait(ctx) {
			break
		}
		sidecar, delay := c.anySidecar(), time.Duration(c.random.IntN(10))*time.Millisecond
		wg.Go(func() {
			time.Sleep(delay)
			if s := c.sendKeyless(call, sidecar, whole); s.kind == known {
				c.past.add(call, s.key)
			}
		})
	}
	wg.Wait()
}

// sendKeyless sends a call on a connection of its own and waits for its answer, or
// leaves. If it leaves, it goes on to read in the background.
func (s *run) sendKeyless(c *call, sidecar int, timeout time.Duration) *sighting {
	begin := time.Now()
	fail := func(err error) *sighting {
		seen := &sighting{sidecar: sidecar, begin: begin, end: time.Now(), answer: answer{err: err.Error()}}
		s.see(c, seen)
		return seen
	}
	conn, err := net.DialTimeout("tcp", s.addressFor(c, sidecar), timeout)
	if err != nil {
		return fail(err)
	}
	if err := s.newRequest(context.Background(), c, "", 0, sidecar).Write(conn); err != nil {
		conn.Close()
		return fail(err)
	}
	type result struct {
		answer answer
		at     time.Time
	}
	answered := make(chan result, 1)
	go func() {
		defer conn.Close()
		a := receive(conn)
		answered <- result{a, time.Now()}
	}()

	seen := &sighting{sidecar: sidecar, begin: begin}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-answered:
		seen.answer, seen.end = r.answer, r.at
		s.see(c, seen)
		return seen
	case <-timer.C:
	}
	left := time.Now()
	_ = conn.(*net.TCPConn).CloseWrite()
	_ = conn.SetReadDeadline(left.Add(drainTime))
	s.drains.Go(func() {
		r := <-answered
		s.see(c, &sighting{
			sidecar: sidecar, begin: begin, end: r.at, left: left, answer: r.answer,
			stood: s.chaos.stood(sidecar, begin, r.at),
		})
	})
	return seen
}

// receive reads an answer off a connection.
func receive(conn net.Conn) answer {
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{err: err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{err: err.Error()}
	}
	return readAnswer(resp.StatusCode, resp.Header, body)
}
