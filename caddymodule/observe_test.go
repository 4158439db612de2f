package caddymodule

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
	"genesys-sidecar/caddymodule/store/storetest"
)

// failingStore fails with err, where that is not nil.
type failingStore struct {
	idempotency.Store
	err error
}

func (s *failingStore) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Get(ctx, id)
}

func TestHealthTellsOnceThatAStoreBeginsToFail(t *testing.T) {
	failed := 0
	h := &health{failed: func(error) { failed++ }}
	inner := &failingStore{Store: memory.New(memory.Options{})}
	s := observed(inner, h)
	get := func(err error) {
		inner.err = err
		_, _ = s.Get(t.Context(), idempotency.ID{})
	}
	get(nil)
	if h.failure.Load() != nil || failed != 0 {
		t.Fatal("it fails from the start")
	}
	down := errors.New("down")
	get(down)
	since := h.failure.Load().since
	get(errors.New("still down"))
	if f := h.failure.Load(); failed != 1 || f == nil || f.err.Error() != "still down" || !f.since.Equal(since) {
		t.Errorf("told %d times; %+v", failed, f)
	}
	get(nil)
	if h.failure.Load() != nil {
		t.Error("it works, and is said to fail")
	}
	get(down)
	if failed != 2 {
		t.Errorf("told %d times, want 2", failed)
	}
}

func TestWhatIsNoFailingOfTheStoreDoesNotCountAsOne(t *testing.T) {
	h := &health{}
	inner := &failingStore{Store: memory.New(memory.Options{})}
	s := observed(inner, h)
	for _, err := range []error{idempotency.ErrNotOwner, idempotency.ErrFull, idempotency.ErrBacklogFull, context.Canceled} {
		inner.err = err
		if _, got := s.Get(t.Context(), idempotency.ID{}); !errors.Is(got, err) {
			t.Errorf("got %v, want %v", got, err)
		}
		if h.failure.Load() != nil {
			t.Errorf("%v counts as a failing", err)
		}
	}
}

type clockedStore struct{ idempotency.Store }

func (clockedStore) Now() time.Time                  { return time.Unix(7, 0) }
func (clockedStore) Elapsed(time.Time) time.Duration { return 7 }

func TestAnObservedStoreIsWhatItWas(t *testing.T) {
	plain := memory.New(memory.Options{})
	if _, ok := observed(plain, &health{}).(idempotency.SharedStore); ok {
		t.Error("a plain store becomes a shared one")
	}
	if _, ok := observed(plain, &health{}).(idempotency.Clock); ok {
		t.Error("a plain store gets a clock")
	}
	clock, ok := observed(clockedStore{plain}, &health{}).(idempotency.Clock)
	if !ok || !clock.Now().Equal(time.Unix(7, 0)) {
		t.Error("the clock is lost")
	}
	member := storetest.NewFleet(plain, time.Second).Member()
	if _, ok := observed(member, &health{}).(idempotency.SharedStore); !ok {
		t.Error("a shared store becomes a plain one")
	}
}

// sharedClock is a shared store with a clock of its own.
type sharedClock struct {
	idempotency.SharedStore
	idempotency.Clock
}

func TestTheBacklogOfAnObservedStoreIsMeasured(t *testing.T) {
	plain := memory.New(memory.Options{})
	for name, store := range map[string]idempotency.Store{
		"plain":  plain,
		"shared": storetest.NewFleet(plain, time.Second).Member(),
	} {
		t.Run(name, func(t *testing.T) {
			h := &health{}
			h.fails(errors.New("until it works"))
			backlog := idempotency.BacklogOf(observed(store, h))
			if backlog == nil {
				t.Fatal("there is none")
			}
			before := observations(t, opEnqueue)
			standing, err := backlog.Enqueue(t.Context(), &idempotency.Record{
				ID: idempotency.NewID("", "", name), State: idempotency.Queued, Expires: time.Now().Add(time.Hour),
				Deferred: &idempotency.Deferred{Since: time.Now()},
			}, idempotency.Owner{}, idempotency.Bounds{})
			if standing != nil || err != nil {
				t.Fatal(standing, err)
			}
			if n := observations(t, opEnqueue) - before; n != 1 {
				t.Errorf("it was observed %d times, want 1", n)
			}
			if h.failure.Load() != nil {
				t.Error("it works, and is said to fail")
			}
			if depth, err := backlog.Depth(t.Context()); err != nil || depth.Calls != 1 {
				t.Errorf("it is %+v deep, %v, want one call", depth, err)
			}
			claims := observations(t, opClaim)
			if _, err := backlog.Claim(t.Context(), &idempotency.Record{ID: idempotency.NewID("", "", name)}, idempotency.Owner{}); err != nil {
				t.Fatal(err)
			}
			if n := observations(t, opClaim) - claims; n != 1 {
				t.Errorf("a claim was observed %d times, want 1", n)
			}
		})
	}
	clock := clockedStore{plain}
	for name, store := range map[string]idempotency.Store{
		"clock": clock, "shared clock": sharedClock{storetest.NewFleet(clock, time.Second).Member(), clock},
	} {
		if backlog := idempotency.BacklogOf(observed(store, &health{})); backlog != nil {
			t.Errorf("%s: a store without a backlog gets one", name)
		}
	}
}

// observations returns how often an operation of a store was measured.
func observations(t *testing.T, op string) uint64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(meters.storeSeconds[op].(prometheus.Collector))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetHistogram().GetSampleCount()
}
