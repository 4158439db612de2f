package pacing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// counter is what calls of a test have come to. Its methods may be called
// concurrently.
type counter struct {
	p     *Pacer
	start time.Time
	ended <-chan struct{} // the test

	mu     sync.Mutex
	starts []time.Duration
	scopes map[string][]time.Duration
	order  []string
	late   []*LateError
	now    int // under way
	peak   int
}

// counting must be called inside the bubble that uses the result.
func counting(t *testing.T, c Config) *counter {
	p := New(nil)
	p.Configure(c)
	t.Cleanup(func() { p.Configure(Config{}) })
	return &counter{p: p, ended: t.Context().Done(), start: time.Now(), scopes: make(map[string][]time.Duration)}
}

// call makes a call of scope that takes takes.
func (c *counter) call(ctx context.Context, scope string, deadline time.Time, takes time.Duration) error {
	slot, err := c.p.Enter(ctx, scope, deadline)
	c.mu.Lock()
	if err != nil {
		var late *LateError
		if errors.As(err, &late) {
			c.late = append(c.late, late)
		}
		c.mu.Unlock()
		return err
	}
	at := time.Since(c.start)
	c.starts = append(c.starts, at)
	c.scopes[scope] = append(c.scopes[scope], at)
	c.order = append(c.order, scope)
	c.now++
	c.peak = max(c.peak, c.now)
	c.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-c.ended:
	}
	c.mu.Lock()
	c.now--
	c.mu.Unlock()
	slot.Leave()
	return nil
}

// burst makes n calls of scope that come now.
func (c *counter) burst(t *testing.T, n int, scope string, takes time.Duration) {
	for range n {
		go func() { _ = c.call(t.Context(), scope, time.Time{}, takes) }()
	}
	synctest.Wait()
}

// all returns when calls have started.
func (c *counter) all() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.starts)
}

// of returns when those of scope have.
func (c *counter) of(scope string) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.scopes[scope])
}

func (c *counter) wantStarts(t *testing.T, n int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.starts) != n {
		t.Errorf("%d calls started, want %d", len(c.starts), n)
	}
}

func (c *counter) wantWithin(t *testing.T, l Limits) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.starts)
	if n := most(c.starts, max(1, l.Window)); l.Starts > 0 && n > l.Starts {
		t.Errorf("%d starts within %v, with a limit of %d", n, l.Window, l.Starts)
	}
	if c.p.limits.Concurrency > 0 && c.peak > l.Concurrency {
		t.Errorf("%d at a time, with a limit of %d", c.peak, l.Concurrency)
	}
}

// minute is the platform's limit.
var minute = Limits{Starts: 300, Window: time.Minute}

func wantLate(t *testing.T, err error, reason Reason) *LateError {
	t.Helper()
	var late *LateError
	if !errors.As(err, &late) || late.Reason != reason {
		t.Fatalf("got %v, want that %s", err, reason)
	}
	return late
}

// fake is a budget shared in memory.
type fake struct {
	mu     sync.Mutex
	epoch  time.Time
	budget budget
	flying map[string]int
	shares int // how many share it; 0: as many as have told
	err    error
	slow   time.Duration
	takes  int
	holds  int
	late   int // how many starts came later than they were granted
	own    int // how many were made by a process by itself
}

// member is one process's way to a fake.
type member struct {
	*fake
	name string
}

func newFake() *fake { return &fake{epoch: time.Now(), flying: make(map[string]int)} }

// told returns how often it was asked, and how many calls member is said to have
// under way.
func (f *fake) told(member string) (takes, flying int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.takes, f.flying[member]
}

func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (m *member) Take(ctx context.Context, name string, l Limits, ask Ask) (Grant, error) {
	if m.slow > 0 {
		time.Sleep(m.slow)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takes++
	if m.err != nil {
		return Grant{}, m.err
	}
	if name == "" {
		return Grant{}, fmt.Errorf("no name")
	}
	now := time.Since(m.epoch)
	m.budget.configure(now, l)
	m.flying[m.name] = ask.InFlight
	for _, age := range ask.Late {
		m.late++
		m.budget.move(now, now-age)
	}
	for _, age := range ask.Own {
		m.own++
		m.budget.take(max(0, now-age))
	}
	others := 0
	for _, n := range m.flying {
		others += n
	}
	g := Grant{Limit: m.budget.limit(now), Sharers: max(m.shares, len(m.flying))}
	for g.Starts < ask.Want {
		if l.Concurrency > 0 && others+g.Starts+1+ask.LeaveConcurrency > l.Concurrency {
			break
		}
		at, ok := m.budget.ask(now, ask.Leave)
		if !ok {
			g.Wait = at - now
			break
		}
		m.budget.take(now)
		g.Starts++
	}
	m.flying[m.name] += g.Starts
	g.Used, g.InFlight = m.budget.used, others+g.Starts
	return g, nil
}

func (m *member) Hold(_ context.Context, _ string, _ Limits, d time.Duration) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds++
	m.budget.complain(time.Since(m.epoch), d)
	return m.err
}
