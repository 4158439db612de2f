package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func openAlone(t *testing.T, now func() time.Time) *Store {
	t.Helper()
	endpoint, err := ParseURLs([]string{redistest.New(t, redistest.Options{}).URL()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Endpoint: endpoint, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// members returns what is in an index, the oldest first.
func members(t *testing.T, s *Store, index string) []string {
	t.Helper()
	result, err := s.do(t.Context(), func(c rueidis.Client) rueidis.Completed {
		return c.B().Zrange().Key(index).Min("0").Max("-1").Build()
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := result.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func recordAt(key string, started time.Time) *idempotency.Record {
	rec := sample()
	rec.ID = idempotency.NewID("", "", key)
	rec.Key, rec.Adoption, rec.Attendant = key, idempotency.AdoptionID{}, idempotency.Owner{}
	rec.Started, rec.Expires = started, time.Now().Add(time.Hour)
	return rec
}

func mustClaim(t *testing.T, s *Store, rec *idempotency.Record) {
	t.Helper()
	if standing, err := s.Claim(t.Context(), rec, idempotency.Owner{}); standing != nil || err != nil {
		t.Fatal(standing, err)
	}
}

func placesOf(recs ...*idempotency.Record) (places []string) {
	for _, rec := range recs {
		places = append(places, placeAt(store.PositionOf(rec)).member())
	}
	return places
}

func TestASweepRemovesThePlacesWhereNobodyIs(t *testing.T) {
	s := openAlone(t, nil)
	long := time.Now().Add(-2 * time.Hour)
	open, ended, young := recordAt("open", long), recordAt("ended", long.Add(1)), recordAt("young", time.Now())
	for _, rec := range []*idempotency.Record{open, ended} {
		mustClaim(t, s, rec)
	}
	end := *ended
	end.State = idempotency.Done
	if err := s.Finish(t.Context(), &end); err != nil {
		t.Fatal(err)
	}
	released := recordAt("released", long.Add(2))
	mustClaim(t, s, released)
	if err := s.Release(t.Context(), released.ID, released.Owner); err != nil {
		t.Fatal(err)
	}
	moved := recordAt("ended", long.Add(3))
	many := make([]*idempotency.Record, 3*sweepBatch)
	for i := range many {
		many[i] = recordAt(fmt.Sprint("gone", i), long.Add(-time.Duration(i)))
	}
	for _, index := range []string{s.indexes.all, s.indexes.open} {
		for _, p := range placesOf(append(many, moved, ended, young)...) {
			s.evaluateIndex(t, evaluation{key: index, args: []string{p}})
		}
	}
	for index, want := range map[string][]string{
		s.indexes.all:  placesOf(open, ended, young),
		s.indexes.open: placesOf(open, young),
	} {
		if _, err := s.sweep(t.Context(), index, "-"); err != nil {
			t.Fatal(err)
		}
		if got := members(t, s, index); !slices.Equal(got, want) {
			t.Errorf("of index %s, %d places are left, want %d", index, len(got), len(want))
		}
	}
}

func (s *Store) evaluateIndex(t *testing.T, e evaluation) {
	t.Helper()
	if _, err := s.do(t.Context(), func(c rueidis.Client) rueidis.Completed { return e.ofIndex(c.B()) }); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasRefusedReleasedOrDoneLeavesTheIndexesSoon(t *testing.T) {
	s := openAlone(t, nil)
	now := time.Now().Truncate(0)
	first, other := recordAt("a", now), recordAt("b", now.Add(2))
	mustClaim(t, s, first)
	refused := recordAt("a", now.Add(1))
	if standing, err := s.Claim(t.Context(), refused, idempotency.Owner{}); standing == nil || err != nil {
		t.Fatal(standing, err)
	}
	released := recordAt("c", now.Add(3))
	mustClaim(t, s, released)
	if err := s.Release(t.Context(), released.ID, released.Owner); err != nil {
		t.Fatal(err)
	}
	mustClaim(t, s, other)
	end := *first
	end.State = idempotency.Done
	if err := s.Finish(t.Context(), &end); err != nil {
		t.Fatal(err)
	}
	client, err := s.link.get()
	if err != nil {
		t.Fatal(err)
	}
	s.tidy(t.Context(), client) // as a beat does
	if got, want := members(t, s, s.indexes.all), placesOf(first, other); !slices.Equal(got, want) {
		t.Errorf("there are %d places, want %d", len(got), len(want))
	}
	if got, want := members(t, s, s.indexes.open), placesOf(other); !slices.Equal(got, want) {
		t.Errorf("there are %d places of open calls, want %d", len(got), len(want))
	}
}

// A claim goes to the server behind its places: who is killed then is found.
func TestAClaimComesAfterItsPlaces(t *testing.T) {
	s := openAlone(t, nil)
	rec := recordAt("a", time.Now())
	all := s.claim(nil, listScript, rec, idempotency.Owner{}, "")
	if len(all) != 3 || all[0].script != nil || all[1].script != nil || all[2].script != claimScript {
		t.Errorf("got %+v", all)
	}
}

// A sweep has to know the place of what it cannot decrypt.
func TestThePlaceOfARecordIsToldWithoutItsKey(t *testing.T) {
	ring, err := store.ParseKeyring([]string{strings.Repeat("42", store.KeySize)})
	if err != nil {
		t.Fatal(err)
	}
	for _, keys := range []*store.Keyring{nil, ring} {
		rec := sample()
		rec.Finished = time.Now()
		rec.Answer = &idempotency.Answer{Status: 200, Body: make([]byte, 1000)}
		value := encode(nil, keys, rec)[:fewBytes]
		if got, ok := placeOf(value); !ok || got != placeAt(store.PositionOf(rec)) {
			t.Errorf("with keys %v: got %x, %t", keys, got, ok)
		}
		if !isAt(value, placeAt(store.PositionOf(rec)).member(), true) {
			t.Errorf("with keys %v, it is taken for gone", keys)
		}
	}
}

func TestAListingTakesNoRecordThatWasMovedForAnother(t *testing.T) {
	s := openAlone(t, nil)
	a, b := recordAt("a", time.Now()), recordAt("b", time.Now())
	mustClaim(t, s, a)
	mustClaim(t, s, b)
	_, err := s.do(t.Context(), func(c rueidis.Client) rueidis.Completed {
		return c.B().Set().Key(s.recordKey(a.ID)).Value(string(encode(nil, nil, b))).Build()
	})
	if err != nil {
		t.Fatal(err)
	}
	if page, err := s.List(t.Context(), idempotency.Query{}); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("got %v, %v", page, err)
	}
}
