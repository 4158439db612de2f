package disk

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// counted returns what the tally says of adoption, and how many entries the
// database has for it.
func counted(t *testing.T, s *Store, a idempotency.AdoptionID) (tally, entries int) {
	t.Helper()
	ids, err := s.list(unsettledPrefix(a), after(unsettledPrefix(a)), -1)
	if err != nil {
		t.Fatal(err)
	}
	return int(s.unsettled.count(a).Load()), len(ids)
}

// TestTheTallyFollowsEveryChange fails if a count becomes too low, which would
// hide an orphan and run its call twice, or stays too high, which would make it
// useless.
func TestTheTallyFollowsEveryChange(t *testing.T) {
	start := time.Now()
	c := newClock(start)
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{Now: c.time, SweepInterval: -1})
	a, other := idempotency.AdoptionID{1}, idempotency.AdoptionID{2}
	keyless := func(name string) *idempotency.Record {
		rec := claim(name)
		rec.Adoption = a
		rec.Expires = start.Add(time.Minute)
		mustClaim(t, s, rec)
		return rec
	}
	check := func(what string, want int) {
		t.Helper()
		if tally, entries := counted(t, s, a); tally != want || entries != want {
			t.Errorf("%s: the tally says %d, the database %d, want %d", what, tally, entries, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	one, two := keyless("one"), keyless("two")
	check("two claims", 2)
	must(s.Finish(ctx, answered(one)))
	check("one is finished", 2)
	must(s.Settle(ctx, one.ID, one.Owner))
	must(s.Settle(ctx, one.ID, one.Owner))
	check("one is settled, twice", 1)
	must(s.Tell(ctx, two.ID, two.Owner, start))
	check("the other is told", 1)
	must(s.Release(ctx, two.ID, two.Owner))
	must(s.Release(ctx, two.ID, two.Owner))
	check("the other is released, twice", 0)

	three := keyless("three")
	again := *three
	again.Owner = process.NewOwner()
	if standing, err := s.Claim(ctx, &again, three.Owner); standing != nil || err != nil {
		t.Fatal(standing, err)
	}
	check("a claim over a claim", 1)
	must(s.Settle(ctx, again.ID, again.Owner))
	check("that is settled before it is finished", 0)
	must(s.Finish(ctx, answered(&again)))
	check("and then finished", 0)

	four := keyless("four")
	moved := answered(four)
	moved.Adoption = other
	must(s.Finish(ctx, moved))
	check("one moves to another adoption", 0)
	if tally, entries := counted(t, s, other); tally != 1 || entries != 1 {
		t.Errorf("there, the tally says %d, the database %d", tally, entries)
	}

	keyless("five")
	must(s.Close())
	s = mustOpen(t, dir, Options{Now: c.time, SweepInterval: -1})
	check("the store is opened again", 1)
	c.set(start.Add(time.Hour))
	if _, err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	check("all has expired", 0)
}

// BenchmarkUnsettled asks for calls of which there are none, as each fresh call
// without a key does, in a database with many settled ones.
func BenchmarkUnsettled(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	for _, name := range fill(b, s, 1000) {
		if err := s.db.Delete(unsettledKey(idempotency.AdoptionID{9}, claim(name).ID), pebble.NoSync); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if recs, err := s.Unsettled(ctx, idempotency.AdoptionID{9}); err != nil || recs != nil {
			b.Fatal(recs, err)
		}
	}
}
