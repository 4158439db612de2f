package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestFirstCallIsExecuted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		began := time.Now()
		out := w.do(w.keyed("k"))
		want(t, out, executed, isKept, "ran under up-k")
		if out.Key != "k" || !out.Stored || !out.Expires.Equal(began.Add(retention)) || out.Adopted || out.Tracked() {
			t.Errorf("the outcome is %+v", out)
		}
		out.Settle(true) // means nothing to a call with a key
		w.wantSent(1)
	})
}

func TestClaimIsDurableBeforeTheCallIsSent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.honored("k")
		began := time.Now()
		of(&call).send = func(_ context.Context, claim *idempotency.Claim) idempotency.Result {
			rec := w.record("k")
			if rec == nil {
				t.Fatal("nothing is claimed")
			}
			if rec.State != idempotency.Started || rec.ID != call.ID || rec.Key != "k" || rec.UpstreamKey != "up-k" ||
				rec.Fingerprint != call.Fingerprint || !rec.Honored || !rec.Started.Equal(began) ||
				!rec.Finished.IsZero() || rec.Answer != nil || !rec.Expires.Equal(began.Add(deadline+retention)) {
				t.Errorf("the claim is %+v", rec)
			}
			if claim.ID() != call.ID || claim.UpstreamKey() != "up-k" || claim.Resumed() {
				t.Errorf("the call is sent as %v, %q, resumed %t", claim.ID(), claim.UpstreamKey(), claim.Resumed())
			}
			return kept("yes")
		}
		w.do(call)
	})
}

func TestAnswerIsDurableBeforeTheCallerIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		finishing := make(chan struct{})
		w.store.hookBefore(opFinish, func() error { <-finishing; return nil })
		caller := w.start(w.keyed("k"))
		w.wantSent(1)
		if !caller.waiting() {
			t.Fatal("the caller was told before the answer was recorded")
		}
		close(finishing)
		caller.outcome()
		if rec := w.record("k"); rec.State != idempotency.Done || rec.Answer == nil || rec.Finished.IsZero() {
			t.Errorf("the record is %+v", rec)
		}
	})
}

func TestRepeatIsToldTheSameByteForByte(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.do(w.keyed("k"))
		for range 3 {
			time.Sleep(time.Hour)
			out := w.do(w.keyed("k"))
			want(t, out, replayed, isKept, "ran under up-k")
			if out.Key != "k" || !out.Stored || !out.Expires.Equal(first.Expires) {
				t.Errorf("the outcome is %+v", out)
			}
		}
		w.restart()
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestDifferentKeysRunByThemselves(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		want(t, w.do(w.keyed("a")), executed, isKept, "ran under up-a")
		want(t, w.do(w.keyed("b")), executed, isKept, "ran under up-b")
		w.wantSent(2)
	})
}

func TestOfManyCallersAtOnceOneIsSentAndAllAreTold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		var callers []*pending
		for range 200 {
			callers = append(callers, w.start(w.keyed("k")))
		}
		release()
		manners := map[idempotency.Manner]int{}
		for _, c := range callers {
			out := c.outcome()
			want(t, out, out.Manner, isKept, "ran under up-k")
			if !out.Stored {
				t.Error("a caller is told that the answer is not stored")
			}
			manners[out.Manner]++
		}
		if manners[executed] != 1 || manners[shared] != 199 {
			t.Errorf("manners: %v", manners)
		}
		w.wantSent(1)
	})
}

// Here nobody waits for anybody to be in place: the race detector looks on.
func TestCallersInARaceAreToldTheSame(t *testing.T) {
	w := &world{t: t, store: newFaultyStore(), upstream: newUpstream()}
	w.restart()
	cache, err := idempotency.NewCache(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	w.gate.SetCache(cache)
	results := make(chan error)
	const callers, keys = 200, 8
	for i := range callers {
		go func() {
			key := fmt.Sprint("k", i%keys)
			out, err := w.gate.Do(context.Background(), w.keyed(key))
			if err == nil && string(out.Answer.Body) != "ran under up-"+key {
				err = fmt.Errorf("%s is told %s", key, show(out.Answer))
			}
			results <- err
		}()
	}
	for range callers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	w.wantSent(keys)
	if err := w.gate.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestKeyIsFreeAgainAfterRetention(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		caller := w.start(w.keyed("k"))
		time.Sleep(time.Minute) // retention counts from completion, not from the start
		release()
		caller.outcome()

		time.Sleep(retention - time.Nanosecond)
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		time.Sleep(time.Nanosecond)
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		w.wantSent(2)
	})
}

func TestCallHasADeadlineOfItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		began := time.Now()
		of(&call).send = func(ctx context.Context, _ *idempotency.Claim) idempotency.Result {
			if end, ok := ctx.Deadline(); !ok || !end.Equal(began.Add(deadline)) {
				t.Errorf("the deadline is %v, %t", end, ok)
			}
			<-ctx.Done()
			return idempotency.Result{}
		}
		out := w.do(call)
		want(t, out, executed, isUnsure, "")
		if took := time.Since(began); took != deadline {
			t.Errorf("it took %v", took)
		}
		if w.record("k").State != idempotency.Unknown {
			t.Errorf("a call that took all of its time is not recorded: %+v", w.record("k"))
		}
	})
}

func TestPrepareIsCalledBeforeTheClaimAndOnlyIfOneIsDue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		prepared := 0
		of(&call).prepare = func(ctx context.Context) error {
			prepared++
			if w.record("k") != nil || w.store.calls(opClaim) != 0 {
				t.Error("the claim came first")
			}
			if _, ok := ctx.Deadline(); !ok {
				t.Error("it may take forever")
			}
			return nil
		}
		w.do(call)
		w.do(call)
		if prepared != 1 {
			t.Errorf("it was called %d times", prepared)
		}
	})
}

func TestFailedPrepareLeavesTheKeyFree(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		errNoToken := errors.New("no token")
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { return errNoToken }
		w.doErr(call, errNoToken)
		if w.record("k") != nil || w.store.calls(opClaim) != 0 {
			t.Error("something was claimed")
		}
		other := w.keyed("k")
		other.Fingerprint = fp("another request")
		want(t, w.do(other), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestFreedKeyMayBeUsedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.upstream.becomes(freed("not found"))
		first, second := w.start(w.keyed("k")), w.start(w.keyed("k"))
		release()
		want(t, first.outcome(), executed, isFreed, "not found")
		want(t, second.outcome(), shared, isFreed, "not found")
		for _, out := range []*idempotency.Outcome{first.outcome(), second.outcome()} {
			if out.Stored || !out.Expires.IsZero() {
				t.Errorf("the answer is said to be stored until %v", out.Expires)
			}
		}
		if w.record("k") != nil {
			t.Error("the record is still there")
		}

		w.upstream.becomes(kept("created"))
		mended := w.keyed("k")
		mended.Fingerprint = fp("the mended request")
		want(t, w.do(mended), executed, isKept, "created")
		w.wantSent(2)
	})
}

func TestPanicIsAnUnknownOutcome(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		of(&call).send = func(context.Context, *idempotency.Claim) idempotency.Result { panic("oops") }
		want(t, w.do(call), executed, isUnsure, "")
		if rec := w.record("k"); rec.State != idempotency.Unknown {
			t.Errorf("the record is %v", rec.State)
		}
		want(t, w.do(w.keyed("k")), replayed, isUnsure, "")
		w.wantSent(0)
	})
}

func TestCallsOfOtherGatesAreFoundInTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		// Two sidecars claim at the same moment: the second finds the first's
		// record only when it claims.
		other := idempotency.NewGate(w.store, idempotency.Limits{}, nil)
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error {
			_, err := other.Do(context.Background(), w.keyed("k"))
			return err
		}
		want(t, w.do(call), replayed, isKept, "ran under up-k")
		w.wantSent(1)
		synctest.Wait()
	})
}

func TestPreparedCallIsClaimedUnseen(t *testing.T) {
	inBubbleOf(t, true, func(t *testing.T, w *world) {
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		if n := w.store.calls(opGet); n != 0 {
			t.Errorf("the store was asked %d times", n)
		}
		w.wantSent(1)
	})
}
