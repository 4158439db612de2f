package disk

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// handClock is a clock that tests set.
type handClock struct{ now atomic.Pointer[time.Time] }

func newClock(t time.Time) *handClock {
	c := new(handClock)
	c.set(t)
	return c
}

func (c *handClock) set(t time.Time) { c.now.Store(&t) }
func (c *handClock) time() time.Time { return *c.now.Load() }

// keys returns how many keys the database has besides its format.
func keys(t *testing.T, s *Store) (n int) {
	t.Helper()
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyspaceMeta + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return n
}

func expiring(i int, expires time.Time) *idempotency.Record {
	rec := claim(fmt.Sprint("expiring ", i))
	rec.Expires = expires
	rec.Adoption[0], rec.Adoption[31] = 0xff, byte(i)
	return rec
}

func TestSweepReclaimsExpiredRecordsAndTheirIndexes(t *testing.T) {
	start := time.Now()
	c := newClock(start)
	s := mustOpen(t, t.TempDir(), Options{Now: c.time, SweepInterval: -1})
	const n = 2*sweepBatch + 10
	for i := range n {
		rec := expiring(i, start.Add(time.Second))
		mustClaim(t, s, rec)
		if i%2 == 0 { // half of them live longer
			d := answered(rec)
			d.Expires = start.Add(2 * time.Second)
			if err := s.Finish(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Each has four, and one more while it is not done.
	if got := keys(t, s); got != 4*n+n/2 {
		t.Fatalf("there are %d keys, want %d", got, 4*n+n/2)
	}
	for _, step := range []struct {
		at             time.Duration
		removed, stays int
	}{
		{time.Second - 1, 0, 4*n + n/2},
		{time.Second, n / 2, 4 * n / 2},
		{time.Second, 0, 4 * n / 2},
		{2 * time.Second, n / 2, 0},
	} {
		c.set(start.Add(step.at))
		removed, err := s.sweep()
		if err != nil || removed != step.removed {
			t.Errorf("at %v %d were removed, want %d; %v", step.at, removed, step.removed, err)
		}
		if got := keys(t, s); got != step.stays {
			t.Errorf("at %v there are %d keys, want %d", step.at, got, step.stays)
		}
	}
}

func TestSweepRemovesEntriesThatLeadNowhere(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	if err := s.db.Set(expiryKey(time.Unix(1, 0), idempotency.ID{1}), nil, pebble.NoSync); err != nil {
		t.Fatal(err)
	}
	if n, err := s.sweep(); n != 0 || err != nil {
		t.Error(n, err)
	}
	if got := keys(t, s); got != 0 {
		t.Errorf("there are %d keys", got)
	}
}

func TestSweepRunsByItself(t *testing.T) {
	start := time.Now()
	c := newClock(start)
	s := mustOpen(t, t.TempDir(), Options{Now: c.time, SweepInterval: time.Millisecond})
	rec := expiring(0, start.Add(time.Second))
	mustClaim(t, s, rec)
	c.set(rec.Expires)
	for keys(t, s) > 0 {
		time.Sleep(time.Millisecond) // the test's own timeout bounds it
	}
}

func TestSweepLeavesWhatWasClaimedAgain(t *testing.T) {
	start := time.Now()
	c := newClock(start)
	s := mustOpen(t, t.TempDir(), Options{Now: c.time, SweepInterval: -1})
	mustClaim(t, s, expiring(0, start.Add(time.Second)))
	c.set(start.Add(time.Second))
	again := expiring(0, start.Add(time.Hour))
	mustClaim(t, s, again)
	if n, err := s.sweep(); n != 0 || err != nil {
		t.Error(n, err)
	}
	if rec, err := s.Get(ctx, again.ID); err != nil || rec == nil || rec.Owner != again.Owner {
		t.Errorf("got %v, %v", rec, err)
	}
}

func TestExpiryKeysSortByTime(t *testing.T) {
	times := []time.Time{
		{}, time.Unix(-1, 0), time.Unix(0, 0), time.Unix(0, 1), time.Now(),
		time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for i := range times[1:] {
		a, b := expiryKey(times[i], idempotency.ID{0xff}), expiryKey(times[i+1], idempotency.ID{})
		if string(a) >= string(b) {
			t.Errorf("%v does not sort before %v", times[i], times[i+1])
		}
	}
}
