package history

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// bound is how soon everything has to work again when all is over.
const bound = 20 * time.Second

// serveAgain checks that each sidecar takes calls again by itself.
func (s *run) serveAgain(ctx context.Context) {
	for i := range s.fleet {
		c := &call{path: executePath, fault: "ok", name: fmt.Sprintf("history-end-%d", i)}
		c.body, c.other, c.key = bodyOf(c.name), bodyOf(c.name+"-other"), c.name
		c.hash, c.otherHash = hashOf(c.body), hashOf(c.other)
		s.checker.begin(c)
		start := time.Now()
		for {
			seen := s.send(c, c.key, 0, i, whole)
			s.see(c, seen)
			if seen.kind == known {
				break
			}
			if time.Since(start) > bound {
				s.checker.report(fmt.Sprintf("a sidecar does not serve %v after the end of all events", bound), fmt.Sprintf("sidecar %d: %v", i, seen))
				break
			}
			if !sleep(ctx, 100*time.Millisecond) {
				return
			}
		}
		fmt.Fprintf(s.out, "sidecar %d serves, %v after the end of all events\n", i, time.Since(s.over).Round(time.Millisecond))
	}
}

// askForAll asks for each key that was executed, at a sidecar each.
func (s *run) askForAll(ctx context.Context, effects []sandbox.Effect) {
	calls := make(map[string]*call)
	for _, c := range s.checker.all() {
		calls[c.hash], calls[c.otherHash] = c, c
	}
	queue := make(chan sandbox.Effect)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for e := range queue {
				c, other := calls[e.BodySHA256], uint8(0)
				if c != nil && e.BodySHA256 == c.otherHash {
					other = 1
				}
				if c != nil && !s.isOver(c) {
					s.askFor(ctx, c, e.Key, other)
				}
			}
		})
	}
	for _, e := range effects {
		if ctx.Err() != nil {
			break
		}
		queue <- e
	}
	close(queue)
	wg.Wait()
}

// askFor asks for a key that was executed until it is answered for.
func (s *run) askFor(ctx context.Context, c *call, key string, other uint8) {
	s.count.askedAtEnd.Add(1)
	for start := time.Now(); ; {
		seen := s.send(c, key, other, rand.IntN(len(s.fleet)), whole)
		s.see(c, seen)
		switch {
		case seen.kind == known:
			return
		case seen.kind == unknown && (!c.honored || time.Since(start) > bound):
			s.count.unknownAtEnd.Add(1)
			return
		case seen.kind == freed && !c.honored:
			s.checker.blame(c, "an executed key is free again")
			return
		case time.Since(start) > bound:
			s.checker.blame(c, fmt.Sprintf("an executed key is not answered for within %v", bound))
			return
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return
		}
	}
}

// forbidden is what no sidecar may log.
var forbidden = []string{"DATA RACE", "panic: ", "panicked", "fatal error: ", "Bearer ", clientSecret}

// checkLogs looks for what must not be in any sidecar's log.
func (s *run) checkLogs() error {
	for _, one := range s.fleet {
		log, err := os.ReadFile(one.logFile())
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
		for _, bad := range forbidden {
			if i := bytes.Index(log, []byte(bad)); i >= 0 {
				s.checker.report(fmt.Sprintf("a log with %q", bad), fmt.Sprintf("sidecar %d\n%s", one.number, log[max(0, i-300):min(len(log), i+4000)]))
			}
		}
	}
	return nil
}
