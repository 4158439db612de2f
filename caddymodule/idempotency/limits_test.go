package idempotency_test

import (
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestTooManyCallsUnderWayAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{Flights: 2}, nil)
		release := w.upstream.holds()
		a, b := w.start(w.keyed("a")), w.start(w.keyed("b"))
		w.doErr(w.keyed("c"), idempotency.ErrOverloaded)
		again := w.start(w.keyed("a")) // is no further call
		release()
		a.outcome()
		b.outcome()
		want(t, again.outcome(), shared, isKept, "ran under up-a")
		want(t, w.do(w.keyed("c")), executed, isKept, "ran under up-c")
	})
}

func TestCallsCountAsUnderWayThoughTheirCallersLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{Flights: 1}, nil)
		release := w.upstream.holds()
		w.start(w.keyed("a")).left()
		w.doErr(w.keyed("b"), idempotency.ErrOverloaded)
		release()
		w.do(w.keyed("b"))
	})
}

func TestTooManyWaitersAreRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{Waiters: 2}, nil)
		release := w.upstream.holds()
		first, second := w.start(w.keyed("a")), w.start(w.keyed("a"))
		w.doErr(w.keyed("a"), idempotency.ErrOverloaded)
		w.doErr(w.keyed("b"), idempotency.ErrOverloaded)
		second.left() // makes room
		third := w.start(w.keyed("a"))
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-a")
		want(t, third.outcome(), shared, isKept, "ran under up-a")
		want(t, w.do(w.keyed("b")), executed, isKept, "ran under up-b")
	})
}

func TestRefusedKeylessCallLeavesNothingBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{Flights: 1}, nil)
		release := w.upstream.holds()
		a := w.start(w.keyed("a"))
		w.doErr(w.keyless("r"), idempotency.ErrOverloaded)
		release()
		a.outcome()
		if out := w.do(w.keyless("r")); out.Manner != executed || out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
	})
}
