package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// queued returns a call that was handed over for later.
func queued(name string) *idempotency.Record {
	rec := claim(name)
	rec.State = idempotency.Queued
	rec.Deferred = &idempotency.Deferred{Since: rec.Started, Method: "POST", URL: "/x", Body: []byte(name)}
	copy(rec.Deferred.Lane[:], name)
	return rec
}

// mustEnqueue returns rec as the store has it.
func mustEnqueue(t testing.TB, s *Store, rec *idempotency.Record) *idempotency.Record {
	t.Helper()
	if standing, err := s.Enqueue(ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); err != nil || standing != nil {
		t.Fatalf("enqueuing %s: %v, %v", rec.Key, standing, err)
	}
	kept, err := s.Get(ctx, rec.ID)
	if err != nil || kept == nil {
		t.Fatalf("getting %s: %v, %v", rec.Key, kept, err)
	}
	return kept
}

// start claims a queued call for sending.
func start(t testing.TB, s *Store, rec *idempotency.Record) *idempotency.Record {
	t.Helper()
	next := *rec
	next.State, next.Owner = idempotency.Started, process.NewOwner()
	if standing, err := s.Claim(ctx, &next, rec.Owner); standing != nil || err != nil {
		t.Fatalf("starting %s: %v, %v", rec.Key, standing, err)
	}
	return &next
}

// ended returns rec, which was handed over, as it is once answered.
func ended(rec *idempotency.Record) *idempotency.Record {
	d := answered(rec)
	d.Deferred = nil
	return d
}

// wantQueue fails the test unless the tickets in memory are those of the database.
func wantQueue(t *testing.T, s *Store) {
	t.Helper()
	loaded := s.database
	if err := loaded.loadTickets(); err != nil {
		t.Fatal(err)
	}
	list := func(q *queue) map[idempotency.Ticket]bool {
		tickets, err := q.After("", 1<<30, nil)
		if err != nil {
			t.Fatal(err)
		}
		all := make(map[idempotency.Ticket]bool)
		for _, ticket := range tickets {
			all[ticket] = true
		}
		return all
	}
	if got, want := list(s.queue), list(loaded.queue); !maps.Equal(got, want) {
		t.Errorf("there are %d tickets in memory, want %d", len(got), len(want))
	}
	if got, want := s.queue.Depth(), loaded.queue.Depth(); got != want {
		t.Errorf("in memory it is %+v deep, want %+v", got, want)
	}
}

// wantTicketOfEach fails the test unless there is a ticket for each call that is
// queued, and a record for each ticket.
func wantTicketOfEach(t *testing.T, s *Store) {
	t.Helper()
	wantQueue(t, s)
	want := make(map[idempotency.Place]idempotency.ID)
	_, err := s.eachRecord(func(rec *idempotency.Record) error {
		if rec.Deferred != nil {
			want[rec.Deferred.Place] = rec.ID
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	tickets, err := s.Tickets(ctx, onlyPart, "", 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[idempotency.Place]idempotency.ID)
	for _, ticket := range tickets {
		got[ticket.Place] = ticket.ID
	}
	if !maps.Equal(got, want) {
		t.Errorf("there are the tickets %v, want %v", got, want)
	}
}

// formatOf returns the format that the database says it has.
func formatOf(t *testing.T, s *Store) uint64 {
	t.Helper()
	value, err := s.get(formatKey)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := binary.Uvarint(value)
	return v
}

func TestAnOlderProgramIsRefusedFromTheFirstRecordOnThatItDoesNotKnow(t *testing.T) {
	paced := claim("paced")
	paced.Journal.Attempts = []idempotency.Attempt{{Paced: time.Second}}
	for name, test := range map[string]struct {
		write func(*testing.T, *Store)
		want  uint64
	}{
		"answers":                     {func(t *testing.T, s *Store) { fill(t, s, 2) }, format},
		"a call that was handed over": {func(t *testing.T, s *Store) { mustEnqueue(t, s, queued("a")) }, formatRecent},
		"an attempt that was paced":   {func(t *testing.T, s *Store) { mustClaim(t, s, paced) }, formatRecent},
		"a call that is gone again": {func(t *testing.T, s *Store) {
			kept := mustEnqueue(t, s, queued("a"))
			if err := s.Release(ctx, kept.ID, kept.Owner); err != nil {
				t.Fatal(err)
			}
		}, formatRecent},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{})
			test.write(t, s)
			for range 2 {
				if got := formatOf(t, s); got != test.want {
					t.Errorf("the format is %d, want %d", got, test.want)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = mustOpen(t, dir, Options{})
			}
		})
	}
}

func TestAStoreOfFormat2TakesCallsForLater(t *testing.T) {
	dir := copyDir(t, "testdata/format2")
	s := mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
	rec := queued("later")
	rec.Started, rec.Expires = fixtureStart.Add(-time.Hour), fixtureStart.Add(time.Hour)
	mustEnqueue(t, s, rec)
	if got := formatOf(t, s); got != formatRecent {
		t.Errorf("the format is %d, want %d", got, formatRecent)
	}
	wantIndexes(t, s)
	wantTicketOfEach(t, s)
}

func TestARequestThatWaitsIsNotKeptInMemory(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	check := func(when string) {
		t.Helper()
		for i := range s.stripes {
			if n := len(s.stripes[i].running); n > 0 {
				t.Errorf("%s, %d records are in memory", when, n)
			}
		}
	}
	kept := mustEnqueue(t, s, queued("a"))
	check("queued")
	back := *start(t, s, kept)
	back.State = idempotency.Queued
	if err := s.Finish(ctx, &back); err != nil {
		t.Fatal(err)
	}
	check("put back")
}

func TestTheSweepTakesTheTicketsOfWhatHasExpired(t *testing.T) {
	c := newClock(time.Now())
	s := mustOpen(t, t.TempDir(), Options{Now: c.time, SweepInterval: -1})
	for i := range 10 {
		mustEnqueue(t, s, queued(fmt.Sprint(i)))
	}
	stays := queued("stays")
	stays.Expires = stays.Expires.Add(time.Hour)
	mustEnqueue(t, s, stays)
	c.set(time.Now().Add(90 * time.Minute))
	if n, err := s.sweep(); n != 10 || err != nil {
		t.Errorf("%d records were swept, want 10; %v", n, err)
	}
	wantTicketOfEach(t, s)
	if d, err := s.Depth(ctx); err != nil || d.Calls != 1 {
		t.Errorf("it is %+v deep, %v, want one call", d, err)
	}
}

func TestWhatIsDamagedInATicketIsNoticedWhenTheStoreIsOpened(t *testing.T) {
	for name, entry := range map[string][2][]byte{
		"a key that is too short":   {{keyspaceTicket, 1}, make([]byte, ticketSize)},
		"a value that is too short": {ticketKey(7), make([]byte, ticketSize-1)},
		"a size below nothing":      {ticketKey(7), append(make([]byte, ticketSize-8), 0xff, 0, 0, 0, 0, 0, 0, 0)},
		"an epoch that is none":     {epochKey, {0xff}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{})
			if err := errors.Join(s.db.Set(entry[0], entry[1], pebble.Sync), s.Close()); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want damage", err)
			}
		})
	}
}

func TestRequestsAreSealedAndReadWithAnyKeyOfTheRing(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Keyring: ring(t, 1)})
	rec := queued("a")
	rec.Deferred.URL, rec.Deferred.Body = canary+"-url", []byte(canary+"-body")
	rec.Deferred.Header = idempotency.NewHeader(map[string][]string{"X": {canary + "-header"}})
	first := mustEnqueue(t, s, rec)
	if err := s.SetKeyring(ring(t, 2, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.SetKeyring(ring(t, 2)); !errors.As(err, new(*store.KeysMissingError)) {
		t.Errorf("the key of a call that waits can be left out: %v", err)
	}
	second := mustEnqueue(t, s, queued("b"))
	if err := errors.Join(s.db.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if holdsCanary(t, dir) {
		t.Error("a request can be read in the directory")
	}
	s = mustOpen(t, dir, Options{Keyring: ring(t, 2, 1)})
	for _, kept := range []*idempotency.Record{first, second} {
		got, err := s.Get(ctx, kept.ID)
		if err != nil || got == nil || string(got.Deferred.Body) != string(kept.Deferred.Body) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	wantQueue(t, s)
}

func TestAfterAPurgeNothingIsLeftOfRequestsThatHaveEnded(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	for i := range 20 {
		rec := queued(fmt.Sprint("secret ", i))
		rec.Deferred.Body = secretBody()
		kept := mustEnqueue(t, s, rec)
		if i%2 == 0 {
			if err := s.Finish(ctx, ended(start(t, s, kept))); err != nil {
				t.Fatal(err)
			}
		} else if err := s.Release(ctx, kept.ID, kept.Owner); err != nil {
			t.Fatal(err)
		}
	}
	if secretIn(t, s.dir, ".log") == 0 {
		t.Fatal("the secret was never there")
	}
	if err := s.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	if n := secretIn(t, s.dir, ""); n > 0 {
		t.Errorf("the secret is in %d files", n)
	}
	wantTicketOfEach(t, s)
}
