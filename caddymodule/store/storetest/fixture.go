package storetest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// slack is how much earlier or later than by the real clock records may expire
// in a store that has a clock of its own.
const slack = 5 * time.Millisecond

// fixture is an open store with a clock. Its methods fail the test on errors
// that the specification does not allow.
type fixture struct {
	idempotency.Store
	t     *testing.T
	h     Harness
	ctx   context.Context
	epoch time.Time     // when the clock starts: nanoseconds included, since stores must keep them
	life  time.Duration // how long records live whose expiry is waited for

	// Of a store with a clock of its own, and used by the test's goroutine only:
	expiries map[idempotency.ID]time.Time // of the records that the test has stored
	longest  time.Duration                // that storing one took
	late     bool                         // one was stored when another should have been there, and was gone

	mu  sync.Mutex
	now time.Time
}

func newFixture(t *testing.T, h Harness) *fixture {
	f := &fixture{
		t:        t,
		h:        h,
		ctx:      context.Background(),
		epoch:    time.Date(2026, 2, 3, 4, 5, 6, 123_456_789, time.UTC),
		life:     time.Hour,
		expiries: make(map[idempotency.ID]time.Time),
	}
	if h.RealTime {
		f.epoch = time.Now().UTC().Truncate(time.Millisecond).Add(-543_211)
		f.life = 2 * time.Second
	}
	f.now = f.epoch
	f.Store = h.Open(t, f.time)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return f
}

// reopen closes the store and opens it again, or skips the test.
func (f *fixture) reopen() {
	f.t.Helper()
	if f.h.Reopen == nil {
		f.t.Skip("records do not outlive this store")
	}
	if err := f.Close(); err != nil {
		f.t.Fatalf("closing: %v", err)
	}
	f.Store = f.h.Reopen(f.t, f.time)
}

// time is the store's clock.
func (f *fixture) time() time.Time {
	if f.h.RealTime {
		return time.Now()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// setTime sets the clock, or waits until it is surely t for the store too.
func (f *fixture) setTime(t time.Time) {
	f.mu.Lock()
	f.now = t
	f.mu.Unlock()
	if f.h.RealTime {
		// Records may live longer by as long as they took to get to the store.
		time.Sleep(time.Until(t.Add(f.longest + slack)))
	}
}

// setTimeBefore sets the clock to the last instant before t. A real clock is
// somewhere before t anyway, or the test is too slow: see excused.
func (f *fixture) setTimeBefore(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = t.Add(-time.Nanosecond)
}

// excused tells whether a failure may be due to the real clock: a record that
// the test has to do with while it is there may be gone already.
func (f *fixture) excused() bool {
	if !f.h.RealTime {
		return false
	}
	if f.late {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, expiry := range f.expiries {
		if expiry.After(f.now) && time.Now().After(expiry.Add(-slack)) {
			return true
		}
	}
	return false
}

// errorf fails the test, or skips it where that was too slow.
func (f *fixture) errorf(format string, args ...any) {
	f.t.Helper()
	if f.excused() {
		f.t.Skipf("this machine is too slow for the test, which saw: "+format, args...)
	}
	f.t.Errorf(format, args...)
}

// fatalf is errorf, and ends the test.
func (f *fixture) fatalf(format string, args ...any) {
	f.t.Helper()
	f.errorf(format, args...)
	f.t.FailNow()
}

// stored notes that rec was stored, by a call that began at the given time.
func (f *fixture) stored(rec *idempotency.Record, began time.Time) {
	f.late = f.excused()
	f.expiries[rec.ID] = rec.Expires
	f.longest = max(f.longest, time.Since(began))
}

func (f *fixture) get(id idempotency.ID) *idempotency.Record {
	f.t.Helper()
	rec, err := f.Get(f.ctx, id)
	if err != nil {
		f.fatalf("getting: %v", err)
	}
	return rec
}

// claim claims rec and fails the test if something stands in the way.
func (f *fixture) claim(rec *idempotency.Record, over idempotency.Owner) {
	f.t.Helper()
	if standing := f.tryClaim(rec, over); standing != nil {
		f.fatalf("a record stands in the way of the claim: %v", show(standing))
	}
}

func (f *fixture) tryClaim(rec *idempotency.Record, over idempotency.Owner) *idempotency.Record {
	f.t.Helper()
	began := time.Now()
	standing, err := f.Claim(f.ctx, rec, over)
	if err != nil {
		f.fatalf("claiming: %v", err)
	}
	if standing == nil {
		f.stored(rec, began)
	}
	return standing
}

func (f *fixture) finish(rec *idempotency.Record) {
	f.t.Helper()
	began := time.Now()
	if err := f.Finish(f.ctx, rec); err != nil {
		f.fatalf("finishing: %v", err)
	}
	f.stored(rec, began)
}

func (f *fixture) release(id idempotency.ID, owner idempotency.Owner) {
	f.t.Helper()
	if err := f.Release(f.ctx, id, owner); err != nil {
		f.fatalf("releasing: %v", err)
	}
}

func (f *fixture) settle(id idempotency.ID, owner idempotency.Owner) {
	f.t.Helper()
	if err := f.Settle(f.ctx, id, owner); err != nil {
		f.fatalf("settling: %v", err)
	}
}

func (f *fixture) tell(id idempotency.ID, owner idempotency.Owner, told time.Time) {
	f.t.Helper()
	if err := f.Tell(f.ctx, id, owner, told); err != nil {
		f.fatalf("telling: %v", err)
	}
}

// wantStored fails the test unless the store holds want.
func (f *fixture) wantStored(want *idempotency.Record) {
	f.t.Helper()
	f.wantSame(f.get(want.ID), want)
}

// wantAbsent fails the test if there is a record of id.
func (f *fixture) wantAbsent(id idempotency.ID) {
	f.t.Helper()
	if rec := f.get(id); rec != nil {
		f.errorf("there is a record: %v", show(rec))
	}
}

// wantUnsettled fails the test unless exactly want is unsettled, in this order.
func (f *fixture) wantUnsettled(adoption idempotency.AdoptionID, want ...*idempotency.Record) {
	f.t.Helper()
	got, err := f.Unsettled(f.ctx, adoption)
	if err != nil {
		f.fatalf("listing unsettled records: %v", err)
	}
	if len(got) != len(want) {
		f.fatalf("%d records are unsettled, want %d", len(got), len(want))
	}
	for i := range got {
		f.wantSame(got[i], want[i])
	}
}

// wantNotOwner fails the test unless err is ErrNotOwner.
func (f *fixture) wantNotOwner(err error) {
	f.t.Helper()
	if !errors.Is(err, idempotency.ErrNotOwner) {
		f.errorf("got the error %v, want %q", err, idempotency.ErrNotOwner)
	}
}

// wantSame fails the test unless got is want.
func (f *fixture) wantSame(got, want *idempotency.Record) {
	f.t.Helper()
	switch {
	case got == nil:
		f.errorf("there is no record, want %v", show(want))
	case !same(got, want):
		f.errorf("got %v, want %v", show(got), show(want))
	}
}

// started returns a claim that name makes. It expires an hour after the epoch.
func (f *fixture) started(name string) *idempotency.Record { return newClaim(name, f.epoch) }

// keyless is started for a call without a key.
func (f *fixture) keyless(name string, adoption idempotency.AdoptionID) *idempotency.Record {
	rec := f.started(name)
	rec.Adoption = adoption
	return rec
}

// mortal is keyless with an adoption of its own, and expires so that the test
// can wait for it.
func (f *fixture) mortal(name string) *idempotency.Record {
	rec := f.keyless(name, adoption(name))
	rec.Expires = f.time().Add(f.life)
	return rec
}
