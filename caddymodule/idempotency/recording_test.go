package idempotency_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// patience is how long recording an outcome is tried again.
const patience = 10 * time.Minute

func TestCallerIsAnsweredThoughTheAnswerCannotBeRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		out := w.do(w.keyed("k"))
		want(t, out, executed, isKept, "ran under up-k")
		if out.Stored || !out.Expires.IsZero() {
			t.Error("the answer is said to be stored")
		}
		if rec := w.record("k"); rec == nil || rec.State != idempotency.Started {
			t.Errorf("the claim was given up: %+v", rec)
		}
	})
}

func TestRepeatsOfAnUnrecordedCallAreToldItsAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		w.do(w.keyed("k"))
		for range 5 {
			time.Sleep(time.Minute)
			impatient := w.keyed("k")
			impatient.Wait = 0
			want(t, w.do(impatient), shared, isKept, "ran under up-k")
			w.doErr(w.otherRequest("k"), idempotency.ErrKeyReused)
		}
		w.wantSent(1)
	})
}

func TestAnswerIsRecordedOnceTheStoreIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		began := time.Now()
		w.do(w.keyed("k"))
		time.Sleep(5 * time.Minute)
		w.store.mend()
		time.Sleep(10 * time.Second)
		rec := w.record("k")
		if rec.State != idempotency.Done || !rec.Finished.Equal(began) || !rec.Expires.Equal(began.Add(retention)) {
			t.Fatalf("the record is %+v", rec)
		}
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.restart()
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestRecordingIsTriedAgainEverMoreSeldomAndGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		w.do(w.keyed("k"))
		if n := w.store.calls(opFinish); n != 1 {
			t.Errorf("%d attempts at first", n)
		}
		time.Sleep(time.Second)
		if n := w.store.calls(opFinish); n != 4 { // at 0, 0.1, 0.3, 0.7 s
			t.Errorf("%d attempts within a second", n)
		}
		time.Sleep(2 * patience)
		n := w.store.calls(opFinish)
		if n < 590 || n > 620 { // every second
			t.Errorf("%d attempts altogether", n)
		}
		time.Sleep(time.Hour)
		if again := w.store.calls(opFinish); again != n {
			t.Errorf("it is still being tried: %d attempts", again)
		}
	})
}

// The call was sent, and the only place that knew its answer is gone.
func TestCallWhoseRecordingWasGivenUpIsUnknownAndNeverSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		w.do(w.keyed("k"))
		time.Sleep(2 * patience)
		w.store.mend()
		for range 2 {
			want(t, w.do(w.keyed("k")), replayed, isUnsure, "")
			w.wantSent(1)
			time.Sleep(time.Hour)
		}
		w.doErr(w.otherRequest("k"), idempotency.ErrKeyReused)
		time.Sleep(retention + deadline)
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
	})
}

func TestHonoredCallWhoseRecordingWasGivenUpIsSentAgainUnderItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opFinish)
		w.do(w.honored("k"))
		time.Sleep(2 * patience)
		w.store.mend()
		want(t, w.do(w.honored("k")), executed, isKept, "ran under up-k")
		w.wantSent(2)
		if !w.upstream.resumed[1] {
			t.Error("the second send does not know of the first")
		}
	})
}

func TestKeyThatCouldNotBeFreedIsFreedLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opRelease)
		w.upstream.becomes(freed("not found"))
		want(t, w.do(w.keyed("k")), executed, isFreed, "not found")
		want(t, w.do(w.keyed("k")), shared, isFreed, "not found")
		w.wantSent(1)
		w.store.mend()
		time.Sleep(10 * time.Second)
		if w.record("k") != nil {
			t.Error("the record is still there")
		}
		want(t, w.do(w.keyed("k")), executed, isFreed, "not found")
		w.wantSent(2)
	})
}

func TestCallThatDidNotRunMayBeSentThoughFreeingItWasGivenUp(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opRelease)
		w.upstream.becomes(freed("not found"))
		w.do(w.keyed("k"))
		time.Sleep(2 * patience)
		w.store.mend()
		w.upstream.becomes(kept("created"))
		want(t, w.do(w.keyed("k")), executed, isKept, "created")
		w.wantSent(2)
	})
}

func TestStoreThatHangsDoesNotHoldTheCallerForever(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		hung := &hangingStore{faultyStore: w.store}
		w.gate = idempotency.NewGate(hung, idempotency.Limits{}, nil)
		began := time.Now()
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// hangingStore is a store that hangs when it is to finish a record.
type hangingStore struct{ *faultyStore }

func (s *hangingStore) Finish(ctx context.Context, _ *idempotency.Record) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestUnrecordedCallsCountAsCallsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{Flights: 1}, nil)
		w.store.fail(opFinish)
		w.do(w.keyed("a"))
		w.doErr(w.keyed("b"), idempotency.ErrOverloaded)
		w.store.mend()
		time.Sleep(time.Second)
		synctest.Wait()
		want(t, w.do(w.keyed("b")), executed, isKept, "ran under up-b")
	})
}

// A store that comes back may have made a claim that it reported as failed. It
// must not look like a call that was left behind, least of all to the next
// process.
func TestUnusedClaimIsReleasedOnceTheStoreIsBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.lose(opClaim)
		w.store.fail(opRelease)
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		time.Sleep(5 * time.Minute)
		w.store.mend()
		time.Sleep(10 * time.Second)
		if rec := w.record("k"); rec != nil {
			t.Errorf("the unused claim is still there: %+v", rec)
		}
		w.restart()
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestClaimThatWasNotMadeIsNotReleased(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.hookBefore(opClaim, func() error { return idempotency.ErrNotMade })
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		time.Sleep(time.Minute)
		if n := w.store.calls(opRelease); n != 0 {
			t.Errorf("it was released %d times", n)
		}
	})
}

func TestDeliveryThatCouldNotBeNotedIsRememberedAndNotedLater(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		out := w.do(w.keyless("r"))
		w.store.fail(opSettle)
		out.Settle(true)
		second := w.do(w.keyless("r"))
		if second.Adopted {
			t.Error("a caller that has its answer was taken for one that lacks it")
		}
		second.Settle(true)
		w.store.mend()
		time.Sleep(10 * time.Second)
		if left, err := w.store.Unsettled(t.Context(), w.keyless("r").Adoption); err != nil || len(left) > 0 {
			t.Errorf("%d calls are unsettled, %v", len(left), err)
		}
		w.restart()
		if w.do(w.keyless("r")).Adopted {
			t.Error("it was forgotten that the caller has its answer")
		}
		w.wantSent(3)
	})
}

// The store has taken "unknown", and its reply was lost; another process has asked
// the upstream again since.
func TestARepeatIsToldWhatAnotherProcessHasFoundOutMeanwhile(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.lose(opFinish)
		f.upstream.becomes(unsure("cut"))
		want(t, f.a.do(f.a.honored("k")), executed, isUnsure, "cut")
		want(t, f.a.do(f.a.honored("k")), shared, isUnsure, "cut")
		f.store.mend()
		f.upstream.becomes(kept("found out"))
		want(t, f.b.do(f.b.honored("k")), executed, isKept, "found out")
		want(t, f.a.do(f.a.honored("k")), replayed, isKept, "found out")

		other := f.a.honored("k")
		other.Fingerprint = fp("another request")
		f.a.doErr(other, idempotency.ErrKeyReused)
		f.a.wantSent(2)
	})
}

func TestARepeatIsToldThatTheOutcomeIsUnknownWhileTheStoreIsAway(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.fail(opFinish)
		f.upstream.becomes(unsure("cut"))
		want(t, f.a.do(f.a.keyed("k")), executed, isUnsure, "cut")
		f.store.fail(opGet)
		want(t, f.a.do(f.a.keyed("k")), shared, isUnsure, "cut")
		f.a.wantSent(1)
	})
}
