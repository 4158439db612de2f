package idempotency_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestCallGoesOnWithoutItsCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		caller := w.start(w.keyed("k"))
		caller.left()
		retry := w.start(w.keyed("k"))
		release()
		want(t, retry.outcome(), shared, isKept, "ran under up-k")
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestCallIsRecordedThoughNobodyWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.start(w.keyed("k")).left()
		time.Sleep(time.Minute)
		release()
		if rec := w.record("k"); rec == nil || rec.State != idempotency.Done {
			t.Fatalf("the record is %+v", rec)
		}
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestLeavingDuplicateChangesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first, second := w.start(w.keyed("k")), w.start(w.keyed("k"))
		second.left()
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
	})
}

func TestNothingIsSentIfAllCallersLeftBeforeTheClaim(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		preparing := make(chan struct{})
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return nil }
		first, second := w.start(call), w.start(call)
		first.left()
		second.left()
		close(preparing)
		time.Sleep(deadline)
		w.wantSent(0)
		if w.record("k") != nil {
			t.Error("something was claimed")
		}
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
	})
}

func TestCallIsSentIfOneOfItsCallersIsStillThere(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		preparing := make(chan struct{})
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return nil }
		first, second := w.start(call), w.start(call)
		first.left()
		close(preparing)
		want(t, second.outcome(), shared, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestCallIsSentForWhoComesBeforeTheClaimThoughTheFirstLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		preparing := make(chan struct{})
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return nil }
		w.start(call).left()
		late := w.start(w.keyed("k"))
		close(preparing)
		want(t, late.outcome(), shared, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestCallerWhoHasLeftAlreadySendsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		resolving := make(chan struct{})
		w.store.hookBefore(opGet, func() error { <-resolving; return nil })
		if _, err := w.gate.Do(ctx, w.keyed("k")); !errors.Is(err, context.Canceled) {
			t.Errorf("Do: %v", err)
		}
		close(resolving)
		time.Sleep(time.Second)
		w.wantSent(0)
	})
}

// A caller can be gone long before its context ends: the server has to notice.

func TestCallerWhoIsGoneUnnoticedIsAdoptedAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		var gone atomic.Bool
		call := w.keyless("r")
		call.Present = func() bool { return !gone.Load() }
		first := w.start(call)
		gone.Store(true)
		began := time.Now()
		retry := w.start(w.keyless("r"))
		release()
		out := retry.outcome()
		want(t, out, shared, isKept, "ran under up-"+first.outcome().Key)
		if !out.Adopted || time.Since(began) != 0 {
			t.Errorf("after %v: %+v", time.Since(began), out)
		}
		w.wantSent(1)
	})
}

func TestNothingIsSentForWhoIsGoneUnnoticed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyless("r")
		call.Present = func() bool { return false }
		w.doErr(call, context.Canceled)
		w.wantSent(0)
		out := w.do(w.keyless("r"))
		want(t, out, executed, isKept, "ran under up-"+out.Key)
		w.wantSent(1)
	})
}

func TestAnOrphanIsSentForItsAdopterThoughItsOwnCallerIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leftKeyless("made-up", true, idempotency.Open, time.Minute)
		call := w.honoredKeyless("r")
		call.Present = func() bool { return true }
		want(t, w.do(call), executed, isKept, "ran under up-made-up")
	})
}

// A call that is not on record yet cannot be found there. Whoever repeats it once
// its caller has left must not be sent beside it: a crash would leave both, and the
// next would be told of the wrong one.
func TestRepeatWaitsUntilItIsClearWhetherACallIsSentWhoseCallerLeft(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		claiming := make(chan struct{})
		var claims atomic.Int64
		w.store.hookBefore(opClaim, func() error { claims.Add(1); <-claiming; return nil })
		w.start(w.keyless("r")).left()
		retry, unlike := w.start(w.keyless("r")), w.start(w.keyless("s"))
		time.Sleep(time.Second)
		if n := claims.Load(); n != 2 || !retry.waiting() {
			t.Errorf("%d claims", n) // that of the first, and that of the unlike one
		}
		close(claiming)
		out := retry.outcome()
		want(t, out, executed, isKept, "ran under up-"+out.Key)
		unlike.outcome()
		w.wantSent(2)
		if recs, err := w.store.Unsettled(t.Context(), w.keyless("r").Adoption); err != nil || len(recs) != 1 {
			t.Errorf("left on record: %v, %v", recs, err)
		}
	})
}

func TestRepeatAdoptsTheCallThatWasSentThoughItsCallerLeftInTheMeantime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		claiming := make(chan struct{})
		w.store.hookBefore(opClaim, func() error { <-claiming; return nil })
		release := w.upstream.holds()
		var gone atomic.Bool
		call := w.keyless("r")
		call.Present = func() bool { return !gone.Load() }
		first := w.start(call)
		second := w.start(w.keyless("r")) // its grace begins
		close(claiming)
		time.Sleep(time.Millisecond)
		gone.Store(true) // after it was sent
		first.left()
		release()
		out := second.outcome()
		want(t, out, shared, isKept, "ran under up-"+out.Key)
		w.wantSent(1)
	})
}

func TestCallerWhoHangsUpWithItsAnswerWasAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var gone atomic.Bool
		call := w.keyless("r")
		call.Present = func() bool { return !gone.Load() }
		first := w.do(call)
		gone.Store(true)
		next := w.start(w.keyless("r")) // before it is noted that the answer was delivered
		first.Settle(true)
		out := next.outcome()
		want(t, out, executed, isKept, "ran under up-"+out.Key)
		if out.Adopted {
			t.Error("the next call was taken for a repeat")
		}
		w.wantSent(2)
	})
}

func TestCallerWhoLeavesUnnoticedDuringTheGraceIsAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		var gone atomic.Bool
		call := w.keyless("r")
		call.Present = func() bool { return !gone.Load() }
		w.start(call)
		retry := w.start(w.keyless("r")) // on a new connection, before the old one is closed
		gone.Store(true)
		time.Sleep(time.Second)
		release()
		if out := retry.outcome(); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		w.wantSent(1)
	})
}

func TestAdopterIsServedThoughTheCallWasGivenUpForItsOwnCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var gone atomic.Bool
		call := w.keyless("r")
		asked, answer := make(chan struct{}), make(chan struct{})
		call.Present = func() bool {
			if gone.Load() {
				return false
			}
			close(asked) // before it is sent
			<-answer
			gone.Store(true)
			return false
		}
		first := w.start(call)
		<-asked
		first.left()
		retry := w.start(w.keyless("r"))
		close(answer)
		out := retry.outcome()
		want(t, out, executed, isKept, "ran under up-"+out.Key)
		w.wantSent(1)
	})
}
