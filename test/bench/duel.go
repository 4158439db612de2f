package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/valyala/fasthttp"
)

// contender is a server under one kind of load.
type contender struct {
	name     string
	server   *server
	keys     *keys
	replayed bool // every answer is one that was told before
	runs     bool // every request makes the upstream execute something
	slow     bool // it takes seconds even for one request
}

// slowTurn is how many times as long as another's the turn of a slow contender is:
// else it would be a single request of each connection.
const slowTurn = 5

// load is how contenders are driven.
type load struct {
	connections int
	duration    time.Duration
	count       int // in place of duration
	bodySize    int // of a request
	perSecond   int // 0: as fast as answers come
}

// load returns the load of a turn, where a section does not say otherwise.
func (b *bench) load() load {
	return load{connections: b.connections, duration: b.duration, bodySize: requestSize}
}

// turn drives a contender once. It fails unless every answer is as it should be
// and the upstream has executed each call that had to run, and each once.
func (b *bench) turn(ctx context.Context, c contender, l load) (sample, error) {
	p := plan{
		address:     c.server.address,
		request:     c.server.request(l.bodySize),
		keys:        c.keys,
		connections: l.connections,
		duration:    l.duration,
		count:       l.count,
		check:       c.check(),
	}
	if c.slow {
		p.duration *= slowTurn
	}
	executedBefore, err := b.upstream.executions(ctx)
	if err != nil {
		return sample{}, err
	}
	before, generatorBefore := c.server.used(), usageOf(os.Getpid(), false)
	var o outcome
	if l.perSecond > 0 {
		o, err = p.runAt(ctx, l.perSecond)
	} else {
		o, err = p.run(ctx)
	}
	if err != nil {
		return sample{}, fmt.Errorf("driving %s: %w", c.name, err)
	}
	generatorAfter := usageOf(os.Getpid(), false)
	c.server.rest(ctx)
	after := c.server.used()
	executed, err := b.upstream.executions(ctx)
	if err != nil {
		return sample{}, err
	}
	want := 0
	if c.runs {
		want = o.requests
	}
	if got := executed - executedBefore; got != want {
		return sample{}, fmt.Errorf("driving %s: %d requests made the upstream execute %d calls, not %d", c.name, o.requests, got, want)
	}
	return newSample(o, before, after, generatorBefore, generatorAfter), nil
}

// check returns what is asked of each of the contender's answers.
func (c contender) check() func(*fasthttp.Response) error {
	mark := c.server.mark
	if mark.name == "" {
		return anyAnswer
	}
	return func(answer *fasthttp.Response) error {
		got := answer.Header.Peek(mark.name)
		if replayed := string(got) == mark.value; replayed != c.replayed {
			return fmt.Errorf("checking an answer: it has %s: %q", mark.name, got)
		}
		return nil
	}
}

// anyAnswer is a check that takes every answer with status 200.
func anyAnswer(*fasthttp.Response) error { return nil }

// duel drives contenders in turn, round after round, and returns the samples of
// each in their order.
func (b *bench) duel(ctx context.Context, rounds int, l load, contenders ...contender) ([]series, error) {
	if err := b.warm(ctx, l, contenders); err != nil {
		return nil, err
	}
	all := make([]series, len(contenders))
	for range rounds {
		if err := b.round(ctx, l, contenders, all); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// warm drives contenders for a moment, and forgets what came of it.
func (b *bench) warm(ctx context.Context, l load, contenders []contender) error {
	l.duration = min(l.duration, 500*time.Millisecond)
	for _, c := range contenders {
		if c.slow {
			continue
		}
		if _, err := b.turn(ctx, c, l); err != nil {
			return err
		}
	}
	return nil
}

// round gives each contender its turn, and adds a sample to the series of each.
func (b *bench) round(ctx context.Context, l load, contenders []contender, all []series) error {
	for i, c := range contenders {
		s, err := b.turn(ctx, c, l)
		if err != nil {
			return err
		}
		all[i] = append(all[i], s)
		b.progress("   round %d  %-50s %9.0f/s  p50 %-8v p99 %v", len(all[i]), c.name, s.perSecond, s.p50, s.p99)
	}
	return nil
}

// freshCalls returns a contender whose every call runs.
func freshCalls(name string, s *server) contender {
	return contender{name: name, server: s, keys: newKeys(), runs: true}
}

// ownAnswers returns a contender that makes up its answers.
func ownAnswers(name string, s *server) contender {
	return contender{name: name, server: s, keys: newKeys()}
}

// fill makes a server remember the answers to n calls.
func (b *bench) fill(ctx context.Context, s *server, n int) (*keys, error) {
	c := freshCalls(s.name, s)
	_, err := b.turn(ctx, c, load{connections: max(b.connections, 256), count: n, bodySize: requestSize})
	if err != nil {
		return nil, fmt.Errorf("filling %s: %w", s.name, err)
	}
	return c.keys, nil
}

// toldAgain returns a contender whose every answer is one of n that it gave
// before.
func (b *bench) toldAgain(ctx context.Context, name string, s *server, n int) (contender, error) {
	known, err := b.fill(ctx, s, n)
	if err != nil {
		return contender{}, err
	}
	return contender{name: name, server: s, keys: known.again(n), replayed: true}, nil
}
