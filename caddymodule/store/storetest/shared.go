package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// patience is how long the suite waits for what must happen at some time.
const patience = 30 * time.Second

// SharedHarness opens the stores that RunShared runs against.
type SharedHarness struct {
	// Open returns n handles, as of n processes, on one empty store. It fails t
	// where it cannot. The suite has the handles join, and closes them. It
	// calls Open for several tests at a time.
	Open func(t *testing.T, n int) []idempotency.SharedStore

	// Lease is how long the store takes a process for alive that shows no sign
	// of life. The suite waits for it several times; a second is a good choice.
	Lease time.Duration
}

// RunShared runs the suite of idempotency.SharedStore against the stores that h
// opens, one for each subtest. It adds to Run, and does not replace it. It runs
// by the time of day, and waits for what it wants to see with patience.
//
// Where the interface leaves a choice, the suite wants this: the function that
// ends a watch may be called more than once, and Attend is true where the
// attendant is next already, so that it may be repeated.
func RunShared(t *testing.T, h SharedHarness) {
	for _, group := range []struct {
		name  string
		tests []sharedTest
	}{
		{"sharing", sharingTests},
		{"life", lifeTests},
		{"ping", pingTests},
		{"watch", watchTests},
		{"attend", attendTests},
		{"renew", renewTests},
		{"drop", dropTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					t.Parallel() // most of it is waiting
					test.run(t, openShared(t, h))
				})
			}
		})
	}
}

type sharedTest struct {
	name string
	run  func(t *testing.T, s *shared)
}

// members is how many processes share the store of each test.
const members = 3

// shared is a store that is open for several processes.
type shared struct {
	t       *testing.T
	ctx     context.Context
	lease   time.Duration
	epoch   time.Time
	a, b, c *member
}

// member is one process's handle. Its methods fail the test on errors that the
// specification does not allow.
type member struct {
	idempotency.SharedStore
	*shared
	process idempotency.Process
	before  atomic.Value // func(context.Context) error; what it does before it shows a sign of life
	closed  bool
}

func openShared(t *testing.T, h SharedHarness) *shared {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	s := &shared{t: t, ctx: ctx, lease: h.Lease, epoch: time.Now().UTC()}
	var all []*member
	for _, handle := range h.Open(t, members) {
		m := &member{SharedStore: handle, shared: s, process: idempotency.NewProcess()}
		t.Cleanup(m.leave)
		m.before.Store(func(context.Context) error { return nil })
		m.Join(m.process, func(ctx context.Context) error {
			return m.before.Load().(func(context.Context) error)(ctx)
		})
		all = append(all, m)
	}
	s.a, s.b, s.c = all[0], all[1], all[2]
	return s
}

// leave closes the handle, once.
func (m *member) leave() {
	m.t.Helper()
	if m.closed {
		return
	}
	m.closed = true
	if err := m.Close(); err != nil {
		m.t.Errorf("closing: %v", err)
	}
}

// eventually waits until done tells true.
func (s *shared) eventually(what string, done func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s: not so after %v", what, patience)
		}
	}
}

// started returns a claim that m's process makes. It expires after an hour.
func (m *member) started(name string) *idempotency.Record {
	rec := newClaim(name, m.epoch)
	rec.Owner = m.process.NewOwner()
	return rec
}

// keyless is started for a call without a key.
func (m *member) keyless(name string) *idempotency.Record {
	rec := m.started(name)
	rec.Adoption = adoption(name)
	return rec
}

func (m *member) get(id idempotency.ID) *idempotency.Record {
	m.t.Helper()
	rec, err := m.Get(m.ctx, id)
	if err != nil {
		m.t.Fatalf("getting: %v", err)
	}
	return rec
}

func (m *member) tryClaim(rec *idempotency.Record, over idempotency.Owner) *idempotency.Record {
	m.t.Helper()
	standing, err := m.Claim(m.ctx, rec, over)
	if err != nil {
		m.t.Fatalf("claiming: %v", err)
	}
	return standing
}

// claim claims rec and fails the test if something stands in the way.
func (m *member) claim(rec *idempotency.Record, over idempotency.Owner) {
	m.t.Helper()
	if standing := m.tryClaim(rec, over); standing != nil {
		m.t.Fatalf("a record stands in the way of the claim: %v", show(standing))
	}
}

func (m *member) finish(rec *idempotency.Record) {
	m.t.Helper()
	if err := m.Finish(m.ctx, rec); err != nil {
		m.t.Fatalf("finishing: %v", err)
	}
}

func (m *member) release(id idempotency.ID, owner idempotency.Owner) {
	m.t.Helper()
	if err := m.Release(m.ctx, id, owner); err != nil {
		m.t.Fatalf("releasing: %v", err)
	}
}

func (m *member) settle(id idempotency.ID, owner idempotency.Owner) {
	m.t.Helper()
	if err := m.Settle(m.ctx, id, owner); err != nil {
		m.t.Fatalf("settling: %v", err)
	}
}

func (m *member) tell(id idempotency.ID, owner idempotency.Owner, told time.Time) {
	m.t.Helper()
	if err := m.Tell(m.ctx, id, owner, told); err != nil {
		m.t.Fatalf("telling: %v", err)
	}
}

func (m *member) unsettled(id idempotency.AdoptionID) []*idempotency.Record {
	m.t.Helper()
	recs, err := m.Unsettled(m.ctx, id)
	if err != nil {
		m.t.Fatalf("listing unsettled records: %v", err)
	}
	return recs
}

func (m *member) life(p idempotency.Process) idempotency.Life {
	m.t.Helper()
	life, err := m.Life(m.ctx, p)
	if err != nil {
		m.t.Fatalf("asking for the life of a process: %v", err)
	}
	return life
}

func (m *member) ping(p idempotency.Process) bool {
	m.t.Helper()
	alive, err := m.Ping(m.ctx, p)
	if err != nil {
		m.t.Fatalf("pinging: %v", err)
	}
	return alive
}

func (m *member) attend(id idempotency.ID, was, next idempotency.Owner) bool {
	m.t.Helper()
	done, err := m.Attend(m.ctx, id, was, next)
	if err != nil {
		m.t.Fatalf("attending: %v", err)
	}
	return done
}

// wantStored fails the test unless m sees want.
func (m *member) wantStored(want *idempotency.Record) {
	m.t.Helper()
	m.wantSame(m.get(want.ID), want)
}

// wantAbsent fails the test if m sees a record of id.
func (m *member) wantAbsent(id idempotency.ID) {
	m.t.Helper()
	if rec := m.get(id); rec != nil {
		m.t.Errorf("there is a record: %v", show(rec))
	}
}

// wantUnsettled fails the test unless m sees exactly want, in this order.
func (m *member) wantUnsettled(adoption idempotency.AdoptionID, want ...*idempotency.Record) {
	m.t.Helper()
	got := m.unsettled(adoption)
	if len(got) != len(want) {
		m.t.Fatalf("%d records are unsettled, want %d", len(got), len(want))
	}
	for i := range got {
		m.wantSame(got[i], want[i])
	}
}

// wantSame fails the test unless got is want.
func (s *shared) wantSame(got, want *idempotency.Record) {
	s.t.Helper()
	switch {
	case got == nil:
		s.t.Errorf("there is no record, want %v", show(want))
	case !same(got, want):
		s.t.Errorf("got %v, want %v", show(got), show(want))
	}
}

// wantNotOwner fails the test unless err is ErrNotOwner.
func (s *shared) wantNotOwner(err error) {
	s.t.Helper()
	if !errors.Is(err, idempotency.ErrNotOwner) {
		s.t.Errorf("got the error %v, want %q", err, idempotency.ErrNotOwner)
	}
}
