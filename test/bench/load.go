package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// plan is some load for one address: requests that follow each other on each of
// some connections, until the time is over or all have been sent.
type plan struct {
	address     string
	request     template
	keys        *keys
	connections int
	duration    time.Duration // how long requests are started
	count       int           // how many are; 0: as many as the duration allows
	check       func(*fasthttp.Response) error
}

// longest is how long nothing may happen on a connection, whatever it is that is
// measured.
const longest = 2 * time.Minute

// outcome is what came of a load.
type outcome struct {
	requests  int
	elapsed   time.Duration
	latencies []uint32 // in microseconds, sorted
}

// connection sends requests, one at a time. A request that fails is not sent
// again: it would be two.
type connection struct {
	net.Conn
	request template
	in      *bufio.Reader
	answer  fasthttp.Response
	check   func(*fasthttp.Response) error
	took    []uint32
	renewed time.Time // when its deadline was last moved
}

// dial opens all connections of a plan, which are closed when ctx ends.
func (p plan) dial(ctx context.Context) ([]*connection, error) {
	var dialer net.Dialer
	connections := make([]*connection, p.connections)
	for i := range connections {
		conn, err := dialer.DialContext(ctx, "tcp", p.address)
		if err == nil {
			err = conn.SetDeadline(time.Now().Add(p.duration + longest))
		}
		if err != nil {
			closeAll(connections[:i])
			return nil, fmt.Errorf("connecting: %w", err)
		}
		connections[i] = &connection{
			Conn:    conn,
			request: p.request.clone(),
			in:      bufio.NewReaderSize(conn, 8<<10),
			check:   p.check,
			took:    make([]uint32, 0, 1<<14),
			renewed: time.Now(),
		}
	}
	context.AfterFunc(ctx, func() { closeAll(connections) })
	return connections, nil
}

func closeAll(connections []*connection) {
	for _, c := range connections {
		_ = c.Close()
	}
}

// rehearse reads an answer that nobody has sent, so that whatever memory reading
// one takes is there: who measures a burst of answers would else measure how fast
// the system hands out a thousand connections' pages.
func (c *connection) rehearse() error {
	c.in.Reset(strings.NewReader(fmt.Sprintf(
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%*s", answerSize, answerSize, "")))
	if err := c.answer.Read(c.in); err != nil {
		return fmt.Errorf("rehearsing an answer: %w", err)
	}
	c.in.Reset(c.Conn)
	return nil
}

// receive reads an answer and checks it.
func (c *connection) receive() error {
	if err := c.answer.Read(c.in); err != nil {
		return fmt.Errorf("reading an answer: %w", err)
	}
	if status := c.answer.StatusCode(); status != fasthttp.StatusOK {
		body := c.answer.Body()
		return fmt.Errorf("reading an answer: it has status %d: %.300s", status, body)
	}
	return c.check(&c.answer)
}

// renew moves the connection's deadline, though not with every answer.
func (c *connection) renew(now time.Time) error {
	if now.Sub(c.renewed) < time.Second {
		return nil
	}
	c.renewed = now
	if err := c.SetDeadline(now.Add(longest)); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	return nil
}

// note remembers how long a request took.
func (c *connection) note(took time.Duration) { c.took = append(c.took, uint32(took.Microseconds())) }

// run sends the load, and returns when the last answer is there.
func (p plan) run(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connections, err := p.dial(ctx)
	if err != nil {
		return outcome{}, err
	}

	var left atomic.Int64
	left.Store(int64(p.count))
	began := time.Now()
	var all sync.WaitGroup
	for _, c := range connections {
		all.Go(func() {
			for sent := began; p.count > 0 || sent.Sub(began) < p.duration; {
				if p.count > 0 && left.Add(-1) < 0 {
					return
				}
				c.request.setKey(p.keys)
				if _, err := c.Write(c.request.bytes); err != nil {
					cancel(fmt.Errorf("sending a request: %w", err))
					return
				}
				if err := c.receive(); err != nil {
					cancel(err)
					return
				}
				now := time.Now()
				c.note(now.Sub(sent))
				sent = now
				if err := c.renew(now); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	elapsed := time.Since(began)
	if err := context.Cause(ctx); err != nil {
		return outcome{}, err
	}
	return gather(connections, elapsed), nil
}

// gather puts together what the connections have noted.
func gather(connections []*connection, elapsed time.Duration) outcome {
	o := outcome{elapsed: elapsed}
	for _, c := range connections {
		o.latencies = append(o.latencies, c.took...)
	}
	o.requests = len(o.latencies)
	slices.Sort(o.latencies)
	return o
}
