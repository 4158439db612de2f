// Package storetest is the conformance suite of idempotency.Store. It reads as
// the specification: every subtest is named after what a store must do. A store
// of one's own runs it in a test:
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, storetest.Harness{
//			Open: func(t *testing.T, now func() time.Time) idempotency.Store {
//				return mystore.New(now)
//			},
//		})
//	}
//
// Run it with -race.
package storetest

import (
	"bytes"
	"context"
	"net/http"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// Harness opens the stores that the suite runs against.
type Harness struct {
	// Open returns an empty store that tells the time by now, which is safe for
	// concurrent use. It fails t where it cannot. The suite closes the store.
	//
	// A store whose records expire by a clock that cannot be replaced, such as
	// a server's, does not fit this suite.
	Open func(t *testing.T, now func() time.Time) idempotency.Store

	// Reopen returns a store with the records of the one that Open or Reopen
	// returned last to the same t, which the suite has closed. nil: the store's
	// records do not outlive it, and what that concerns is skipped.
	Reopen func(t *testing.T, now func() time.Time) idempotency.Store
}

// Run runs the suite against the stores that h opens, one for each subtest.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		tests []test
	}{
		{"claim", claimTests},
		{"finish", finishTests},
		{"release", releaseTests},
		{"expiry", expiryTests},
		{"unsettled", unsettledTests},
		{"tell", tellTests},
		{"fidelity", fidelityTests},
		{"context", contextTests},
		{"reopen", reopenTests},
		{"load", loadTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					test.run(t, newFixture(t, h))
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, f *fixture)
}

// epoch is when the clock of every fixture starts: nanoseconds included, since
// stores must keep them.
var epoch = time.Date(2026, 2, 3, 4, 5, 6, 123_456_789, time.UTC)

// fixture is an open store with a clock. Its methods fail the test on errors
// that the specification does not allow.
type fixture struct {
	idempotency.Store
	t   *testing.T
	h   Harness
	ctx context.Context

	mu  sync.Mutex
	now time.Time
}

func newFixture(t *testing.T, h Harness) *fixture {
	f := &fixture{t: t, h: h, ctx: context.Background(), now: epoch}
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

func (f *fixture) time() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// setTime sets the clock.
func (f *fixture) setTime(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = t
}

func (f *fixture) get(id idempotency.ID) *idempotency.Record {
	f.t.Helper()
	rec, err := f.Get(f.ctx, id)
	if err != nil {
		f.t.Fatalf("getting: %v", err)
	}
	return rec
}

// claim claims rec and fails the test if something stands in the way.
func (f *fixture) claim(rec *idempotency.Record, over idempotency.Owner) {
	f.t.Helper()
	if standing := f.tryClaim(rec, over); standing != nil {
		f.t.Fatalf("a record stands in the way of the claim: %v", show(standing))
	}
}

func (f *fixture) tryClaim(rec *idempotency.Record, over idempotency.Owner) *idempotency.Record {
	f.t.Helper()
	standing, err := f.Claim(f.ctx, rec, over)
	if err != nil {
		f.t.Fatalf("claiming: %v", err)
	}
	return standing
}

func (f *fixture) finish(rec *idempotency.Record) {
	f.t.Helper()
	if err := f.Finish(f.ctx, rec); err != nil {
		f.t.Fatalf("finishing: %v", err)
	}
}

func (f *fixture) release(id idempotency.ID, owner idempotency.Owner) {
	f.t.Helper()
	if err := f.Release(f.ctx, id, owner); err != nil {
		f.t.Fatalf("releasing: %v", err)
	}
}

func (f *fixture) settle(id idempotency.ID, owner idempotency.Owner) {
	f.t.Helper()
	if err := f.Settle(f.ctx, id, owner); err != nil {
		f.t.Fatalf("settling: %v", err)
	}
}

func (f *fixture) tell(id idempotency.ID, owner idempotency.Owner, told time.Time) {
	f.t.Helper()
	if err := f.Tell(f.ctx, id, owner, told); err != nil {
		f.t.Fatalf("telling: %v", err)
	}
}

// wantStored fails the test unless the store holds want.
func (f *fixture) wantStored(want *idempotency.Record) {
	f.t.Helper()
	wantSame(f.t, f.get(want.ID), want)
}

// wantAbsent fails the test if there is a record of id.
func (f *fixture) wantAbsent(id idempotency.ID) {
	f.t.Helper()
	if rec := f.get(id); rec != nil {
		f.t.Errorf("there is a record: %v", show(rec))
	}
}

// wantUnsettled fails the test unless exactly want is unsettled, in this order.
func (f *fixture) wantUnsettled(adoption idempotency.AdoptionID, want ...*idempotency.Record) {
	f.t.Helper()
	got, err := f.Unsettled(f.ctx, adoption)
	if err != nil {
		f.t.Fatalf("listing unsettled records: %v", err)
	}
	if len(got) != len(want) {
		f.t.Fatalf("%d records are unsettled, want %d", len(got), len(want))
	}
	for i := range got {
		wantSame(f.t, got[i], want[i])
	}
}

var process = idempotency.NewProcess()

// started returns a claim that name makes. It expires an hour after the epoch.
func started(name string) *idempotency.Record {
	return &idempotency.Record{
		ID:          idempotency.NewID("org", "scope", name),
		State:       idempotency.Started,
		Owner:       process.NewOwner(),
		Fingerprint: idempotency.Request{Method: "POST", Path: "/" + name}.Fingerprint(),
		Key:         name,
		UpstreamKey: idempotency.UpstreamKey("scope", name),
		Started:     epoch.Add(time.Nanosecond),
		Expires:     epoch.Add(time.Hour),
	}
}

// keyless is started for a call without a key.
func keyless(name string, adoption idempotency.AdoptionID) *idempotency.Record {
	rec := started(name)
	rec.Adoption = adoption
	return rec
}

func adoption(name string) idempotency.AdoptionID {
	return idempotency.NewAdoptionID("org", "scope", idempotency.Request{Path: "/" + name}.Fingerprint())
}

// done returns rec as it is after its call was answered.
func done(rec *idempotency.Record) *idempotency.Record {
	d := *rec
	d.State = idempotency.Done
	d.Finished = epoch.Add(3 * time.Second)
	d.Answer = &idempotency.Answer{
		Status: http.StatusOK,
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}}),
		Body:   []byte(`{"answer":"` + rec.Key + `"}`),
	}
	return &d
}

// unknown returns rec as it is after its call was lost.
func unknown(rec *idempotency.Record) *idempotency.Record {
	u := *rec
	u.State = idempotency.Unknown
	u.Finished = epoch.Add(2 * time.Second)
	u.Answer = nil
	return &u
}

// wantSame fails the test unless got is want.
func wantSame(t *testing.T, got, want *idempotency.Record) {
	t.Helper()
	switch {
	case got == nil:
		t.Errorf("there is no record, want %v", show(want))
	case !same(got, want):
		t.Errorf("got %v, want %v", show(got), show(want))
	}
}

// same tells whether two records are equal as far as stores promise: times by
// the instant, empty bodies whether nil or not.
func same(a, b *idempotency.Record) bool {
	return a.ID == b.ID && a.State == b.State && a.Owner == b.Owner &&
		a.Fingerprint == b.Fingerprint && a.Key == b.Key && a.UpstreamKey == b.UpstreamKey &&
		a.Honored == b.Honored && a.Adoption == b.Adoption &&
		a.Started.Equal(b.Started) && a.Finished.Equal(b.Finished) &&
		a.Told.Equal(b.Told) && a.Told.IsZero() == b.Told.IsZero() &&
		a.Expires.Equal(b.Expires) && sameAnswer(a.Answer, b.Answer)
}

func sameAnswer(a, b *idempotency.Answer) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Status == b.Status && a.Header == b.Header && bytes.Equal(a.Body, b.Body)
}
