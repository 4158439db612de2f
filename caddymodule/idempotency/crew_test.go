package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestACallerThatStaysIsToldThatItHasLeftOnceItsCallHasEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var callers int64 = -1
		call := w.keyed("k")
		call.Stays = true
		of(&call).ended = func(_ *idempotency.Record, _ idempotency.Fate, n int64) { callers = n }
		release := w.upstream.holds()
		first := w.start(call)
		first.leave()
		if !first.waiting() {
			t.Error("it did not stay")
		}
		if n := w.gate.Waiters(); n != 1 {
			t.Errorf("%d are said to wait", n)
		}
		release()
		if out, err := first.result(); out != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("it got %+v, %v", out, err)
		}
		if callers != 0 {
			t.Errorf("%d callers were there at the end", callers)
		}
		if n := w.gate.Waiters(); n != 0 {
			t.Errorf("%d are said to wait at the end", n)
		}
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestWhoWaitsForACallThatFliesWithItsCallerOutlivesThat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		call.Stays = true
		release := w.upstream.holds()
		first := w.start(call)
		second := w.start(w.keyed("k"))
		first.leave()
		synctest.Wait()
		if !second.waiting() {
			t.Fatal("the second caller does not wait")
		}
		release()
		want(t, second.outcome(), shared, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestACallerThatStaysAndHasLeftBeforeItsCallIsSentIsNotSentFor(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, leave := context.WithCancel(t.Context())
		call := w.keyed("k")
		call.Stays = true
		of(&call).prepared = func() bool { leave(); synctest.Wait(); return true }
		if out, err := w.gate.Do(ctx, call); out != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("it got %+v, %v", out, err)
		}
		synctest.Wait()
		w.wantSent(0)
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
	})
}
