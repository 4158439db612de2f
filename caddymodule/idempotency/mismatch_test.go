package idempotency_test

import (
	"context"
	"errors"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// otherRequest returns a call under the same key for another request.
func (w *world) otherRequest(key string) idempotency.Call {
	call := w.keyed(key)
	call.Fingerprint = fp("another request")
	return call
}

func TestKeyOfAnotherRequestIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for state, leave := range map[string]func(){
			"done":    func() { w.do(w.keyed("done")) },
			"unknown": func() { w.leave(w.keyed("unknown"), idempotency.Unknown, 0) },
			"started": func() { w.leave(w.keyed("started"), idempotency.Started, 0) },
			"open":    func() { w.leave(w.honored("open"), idempotency.Open, 0) },
			"resumed": func() { w.leave(w.honored("resumed"), idempotency.Started, 0) },
		} {
			leave()
			sent := len(w.upstream.sent())
			w.doErr(w.otherRequest(state), idempotency.ErrKeyReused)
			w.wantSent(sent)
		}
	})
}

func TestKeyOfAnotherRequestIsRefusedAtOnceWhileThatRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first := w.start(w.keyed("k"))
		other := w.start(w.otherRequest("k"))
		if other.waiting() {
			t.Fatal("it waits for the other request's call")
		}
		if _, err := other.result(); !errors.Is(err, idempotency.ErrKeyReused) || other.took != 0 {
			t.Errorf("after %v: %v", other.took, err)
		}
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestWrongRequestThatCameFirstDoesNotKeepTheRightOneOut(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("k"))
		w.restart()

		resolving := make(chan struct{})
		for _, look := range []op{opGet, opClaim} {
			w.store.hookBefore(look, func() error { <-resolving; return nil })
		}
		wrong, right := w.start(w.otherRequest("k")), w.start(w.keyed("k"))
		if !right.waiting() {
			t.Fatal("the right caller was turned away before anything was known")
		}
		close(resolving)
		want(t, right.outcome(), replayed, isKept, "ran under up-k")
		if _, err := wrong.result(); !errors.Is(err, idempotency.ErrKeyReused) {
			t.Errorf("the wrong one got %v", err)
		}
		w.wantSent(1)
	})
}

func TestRequestThatClaimsWinsOverOneThatWaitedForIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		preparing := make(chan struct{})
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return nil }
		first, other := w.start(call), w.start(w.otherRequest("k"))
		close(preparing)
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		if _, err := other.result(); !errors.Is(err, idempotency.ErrKeyReused) {
			t.Errorf("the other got %v", err)
		}
	})
}

func TestOtherRequestRunsIfTheFirstClaimsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		preparing := make(chan struct{})
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return context.Canceled }
		first, other := w.start(call), w.start(w.otherRequest("k"))
		close(preparing)
		if _, err := first.result(); !errors.Is(err, context.Canceled) {
			t.Errorf("the first got %v", err)
		}
		want(t, other.outcome(), executed, isKept, "ran under up-k")
	})
}

func TestWrongRequestMayLeaveWhileNothingIsKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		resolving := make(chan struct{})
		for _, look := range []op{opGet, opClaim} {
			w.store.hookBefore(look, func() error { <-resolving; return nil })
		}
		first, other := w.start(w.keyed("k")), w.start(w.otherRequest("k"))
		other.left()
		close(resolving)
		want(t, first.outcome(), executed, isKept, "ran under up-k")
	})
}
