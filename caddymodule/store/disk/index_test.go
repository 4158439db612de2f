package disk

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// wantIndexes fails the test unless the indexes of listings have an entry for
// each record that belongs there, and no other.
func wantIndexes(t *testing.T, s *Store) {
	t.Helper()
	want := make(map[string]bool)
	_, err := s.eachRecord(func(rec *idempotency.Record) error {
		want[string(placeKey(keyspaceStarted, store.PositionOf(rec)))] = true
		if isOpen(rec) {
			want[string(placeKey(keyspaceOpen, store.PositionOf(rec)))] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, keyspace := range []byte{keyspaceStarted, keyspaceOpen} {
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyspace}, UpperBound: []byte{keyspace + 1}})
		if err != nil {
			t.Fatal(err)
		}
		for ok := it.First(); ok; ok = it.Next() {
			got[string(it.Key())] = true
		}
		if err := it.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("there are %d entries in the indexes, want %d", len(got), len(want))
	}
}

// checkedStore checks the indexes when it is closed.
type checkedStore struct {
	*Store
	t *testing.T
}

func (c checkedStore) Close() error {
	wantIndexes(c.t, c.Store)
	wantQueue(c.t, c.Store)
	if err := c.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
		c.t.Error(err)
	}
	wantIndexes(c.t, c.Store) // what was removed has not come back
	wantQueue(c.t, c.Store)
	return c.Store.Close()
}

var (
	fixtureStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fixtureTime  = func() time.Time { return fixtureStart }
)

// The stores in testdata were written by the code of format 2: at the end of one
// it was closed, at that of the other its process ended.
func TestAStoreOfFormat2IsTakenOver(t *testing.T) {
	for _, name := range []string{"format2", "format2.crashed"} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, "testdata/"+name)
			for range 2 {
				s := mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
				wantFixture(t, s)
				wantIndexes(t, s)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			s := mustOpen(t, dir, Options{Now: func() time.Time { return fixtureStart.Add(2 * time.Minute) }, SweepInterval: -1})
			if n, err := s.sweep(); n != 1 || err != nil {
				t.Errorf("%d records were swept, want 1; %v", n, err)
			}
			wantIndexes(t, s)
		})
	}
}

// wantFixture fails the test unless s has what the stores in testdata have, as it
// is at their time.
func wantFixture(t *testing.T, s *Store) {
	t.Helper()
	page, err := s.List(ctx, idempotency.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, rec := range page.Records {
		got = append(got, rec.Key+" "+rec.State.String())
	}
	// e was released.
	want := "i started, h done, g started, f started, d open, c unknown, b done, a started"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	tally, err := s.Tally(ctx)
	if want := map[idempotency.State]int{idempotency.Started: 4, idempotency.Unknown: 1, idempotency.Open: 1}; err != nil || !maps.Equal(tally, want) {
		t.Errorf("got %v, %v, want %v", tally, err, want)
	}
	if rec, err := s.Get(ctx, idempotency.NewID("", "", "b")); err != nil || rec == nil || string(rec.Answer.Body) != "answer of b" {
		t.Errorf("got %+v, %v", rec, err)
	}
}

func TestATakeOverThatWasCutShortIsStartedAgain(t *testing.T) {
	dir := copyDir(t, "testdata/format2")
	s := mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
	// As if only the first entries had been written, and one of them were of a
	// record that an older program has removed since.
	b := s.db.NewBatch()
	gone := store.PositionOf(claim("gone"))
	for _, err := range []error{
		b.Delete(placeKey(keyspaceStarted, idempotency.Position{
			Started: fixtureStart.Add(time.Second), ID: idempotency.NewID("", "", "b"),
		}), nil),
		b.Set(placeKey(keyspaceStarted, gone), nil, nil),
		b.Set(formatKey, binary.AppendUvarint(nil, 2), nil),
		b.Commit(pebble.Sync),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyspaceOpen}, UpperBound: []byte{keyspaceOpen + 1}})
	if err != nil {
		t.Fatal(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := s.db.SingleDelete(bytes.Clone(it.Key()), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
	wantFixture(t, s)
	wantIndexes(t, s)
}

func TestNoFaultOfTheDiskSpoilsATakeOver(t *testing.T) {
	// (Where Pebble fails to open a database after it has read a log, it may panic:
	// its table statistics go on with what it has closed. So this one has none.)
	for n := int64(0); ; n += 3 {
		dir := copyDir(t, "testdata/format2")
		disk, failed := failsAt(n)
		if s, err := open(dir, Options{Now: fixtureTime, SweepInterval: -1}, disk); err == nil {
			_ = s.Close()
		}
		s := mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
		wantFixture(t, s)
		wantIndexes(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if !failed.Load() {
			return
		}
	}
}

// Pebble reads a table's entries again when it merges tables, so what a
// SingleDelete has removed must stay removed wherever its entry was.
func TestWhatIsDoneStaysOutOfTheIndexWhereverItsEntryWas(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	rec := claim("a")
	for _, flushes := range []int{0, 1, 2, 3, 4, 7, 8, 15, 31} {
		step := 0
		after := func(err error) {
			t.Helper()
			if err == nil && flushes&(1<<step) != 0 {
				err = s.db.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			step++
		}
		mustClaim(t, s, rec)
		after(nil)
		unknown := *rec
		unknown.State = idempotency.Unknown
		after(s.Finish(ctx, &unknown))
		next := *rec
		next.Owner = process.NewOwner()
		_, err := s.Claim(ctx, &next, rec.Owner)
		after(err)
		rec = &next
		after(s.Finish(ctx, answered(rec)))
		wantIndexes(t, s)
		after(s.Release(ctx, rec.ID, rec.Owner))
		wantIndexes(t, s)
	}
	for range 2 {
		if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
			t.Fatal(err)
		}
		wantIndexes(t, s)
	}
}

func TestPlacesSortAsListingsDo(t *testing.T) {
	at := func(started time.Time, id byte) idempotency.Position {
		return idempotency.Position{Started: started, ID: idempotency.ID{id}}
	}
	places := []idempotency.Position{
		at(time.Time{}, 1), at(time.Unix(-1, 0), 1), at(time.Unix(0, 0), 0), at(time.Unix(0, 1), 0),
		at(fixtureStart, 1), at(fixtureStart, 2), at(fixtureStart.Add(1), 0), at(time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 0),
	}
	keys := make([][]byte, len(places))
	for i, p := range places {
		keys[i] = placeKey(keyspaceStarted, p)
		back, ok := keyPosition(keys[i])
		if clamped := i == 0 || i == len(places)-1; !ok || back.ID != p.ID || !clamped && !back.Started.Equal(p.Started) {
			t.Errorf("%v came back as %v", p, back)
		}
	}
	if !slices.IsSortedFunc(keys, bytes.Compare) {
		t.Errorf("the order is another: %x", keys)
	}
}
