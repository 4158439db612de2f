package history

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// whole is longer than any call takes.
const whole = 20 * time.Second

// repeats bounds how often a client sends a call before it gives up.
const repeats = 40

// makeKeyed sends a call with a key, at times several at once and at different
// sidecars, until it has an answer that will do.
func (c *client) makeKeyed(ctx context.Context, call *call) {
	c.checker.begin(call)
	c.count.calls.Add(1)
	mixed := c.random.IntN(10) == 0 // somebody uses the key for something else
	for range repeats {
		copies := 1
		if c.random.IntN(10) < 3 {
			copies = 2 + c.random.IntN(3)
		}
		seen := make([]*sighting, copies)
		var wg sync.WaitGroup
		for i := range copies {
			sidecar, timeout, delay, other := c.anySidecar(), c.timeout(), time.Duration(0), uint8(0)
			if mixed && c.random.IntN(2) == 0 {
				other = 1
			}
			if i > 0 && c.random.IntN(2) == 0 {
				delay = time.Duration(c.random.IntN(50)) * time.Millisecond
			}
			if !c.pace.wait(ctx) && i == 0 {
				return
			}
			wg.Go(func() {
				time.Sleep(delay)
				seen[i] = c.send(call, call.key, other, sidecar, timeout)
				c.see(call, seen[i])
			})
		}
		wg.Wait()
		for _, s := range seen {
			// Where keys are honored, what is unknown can still be found out.
			if s.kind == known || s.kind == unknown && !call.honored || s.slug == "key-reused" {
				c.past.add(call, call.key)
				return
			}
		}
		if c.isOver(call) {
			return
		}
		if !sleep(ctx, c.pause()) {
			return
		}
	}
	c.count.givenUp.Add(1)
}

// timeout is how long a client waits for an answer: at times so short that it
// leaves as soon as the call is claimed, or sent.
func (c *client) timeout() time.Duration {
	switch n := c.random.IntN(10); {
	case n < 2:
		return time.Duration(1+c.random.IntN(40)) * time.Millisecond
	case n < 5:
		return time.Duration(40+c.random.IntN(700)) * time.Millisecond
	default:
		return whole
	}
}

// send sends a call, or the other body, under a key and waits for its answer, or
// leaves.
func (s *run) send(c *call, key string, other uint8, sidecar int, timeout time.Duration) *sighting {
	seen := &sighting{sidecar: sidecar, asked: key, other: other, begin: time.Now()}
	defer func() { seen.end = time.Now() }()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	req := s.newRequest(ctx, c, key, other, sidecar)
	resp, err := s.http.Do(req)
	if err != nil {
		seen.err = err.Error()
		return seen
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		seen.err = err.Error()
		return seen
	}
	seen.answer = readAnswer(resp.StatusCode, resp.Header, body)
	return seen
}

// newRequest returns a request for a call, which net/http cannot repeat by itself.
func (s *run) newRequest(ctx context.Context, c *call, key string, other uint8, sidecar int) *http.Request {
	text := c.body
	if other != 0 {
		text = c.other
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.addressFor(c, sidecar)+c.path, io.NopCloser(strings.NewReader(text)))
	if err != nil {
		panic(err) // it is made of constants
	}
	req.ContentLength = int64(len(text))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sandbox-Fault", c.fault)
	req.Header.Set("Sandbox-Call", c.name)
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return req
}

// addressFor is where a sidecar is to be asked for a call.
func (s *run) addressFor(c *call, sidecar int) string {
	if c.home != "" {
		return c.home
	}
	return s.fleet[sidecar].address()
}
