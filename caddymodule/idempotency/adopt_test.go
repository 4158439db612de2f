package idempotency_test

import (
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// grace is how long a keyless call waits for another's caller to leave.
const grace = 50 * time.Millisecond

func TestKeylessCallIsToldTheKeyMadeUpForIt(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		out := w.do(w.keyless("r"))
		want(t, out, executed, isKept, "ran under up-"+out.Key)
		if _, err := idempotency.ParseKey(out.Key); err != nil || out.Adopted || !out.Tracked() {
			t.Errorf("the outcome is %+v", out)
		}
		out.Settle(true)
		// A caller that heeds the key has the answer again.
		want(t, w.do2(w.keyed(out.Key), "r"), replayed, isKept, "ran under up-"+out.Key)
	})
}

// do2 makes call for another request than usual.
func (w *world) do2(call idempotency.Call, request string) *idempotency.Outcome {
	w.t.Helper()
	call.Fingerprint = fp(request)
	return w.do(call)
}

func TestDeliveredCallIsNotAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.do(w.keyless("r"))
		first.Settle(true)
		second := w.do(w.keyless("r"))
		second.Settle(true)
		if second.Manner != executed || second.Adopted || second.Key == first.Key {
			t.Errorf("the outcome is %+v", second)
		}
		w.restart()
		if third := w.do(w.keyless("r")); third.Manner != executed || third.Adopted {
			t.Errorf("after a restart, the outcome is %+v", third)
		}
		w.wantSent(3)
	})
}

func TestRunningCallWhoseCallerLeftIsAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.start(w.keyless("r")).left()
		impatient := w.keyless("r")
		impatient.Wait = 0 // an adopter waits as the call's own caller would
		retry := w.start(impatient)
		time.Sleep(wait + time.Second)
		release()
		out := retry.outcome()
		want(t, out, shared, isKept, "ran under "+w.upstream.sent()[0])
		if !out.Adopted || "up-"+out.Key != w.upstream.sent()[0] {
			t.Errorf("the outcome is %+v", out)
		}
		out.Settle(true)
		if next := w.do(w.keyless("r")); next.Adopted {
			t.Error("it is adopted though the retry was told")
		}
		w.wantSent(2)
	})
}

func TestUndeliveredCallIsAdoptedWithinTheWindow(t *testing.T) {
	for name, c := range map[string]struct {
		after time.Duration
		sent  int
	}{
		"at once":                {0, 1},
		"at the window's end":    {window, 1},
		"after the window's end": {window + time.Nanosecond, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				first := w.do(w.keyless("r"))
				ended := time.Now()
				first.Settle(false)
				time.Sleep(time.Until(ended.Add(c.after)))
				out := w.do(w.keyless("r"))
				w.wantSent(c.sent)
				if out.Adopted != (c.sent == 1) || out.Adopted != (out.Key == first.Key) {
					t.Errorf("the outcome is %+v", out)
				}
				if out.Adopted {
					want(t, out, replayed, isKept, "ran under up-"+first.Key)
				}
			})
		})
	}
}

func TestWindowCountsFromTheEndOfTheCall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.start(w.keyless("r")).left()
		time.Sleep(deadline - time.Second)
		release()
		time.Sleep(window)
		if out := w.do(w.keyless("r")); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		w.wantSent(1)
	})
}

func TestOrphanStaysOneUntilItsAnswerIsDelivered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyless("r")).Settle(false)
		for range 3 {
			out := w.do(w.keyless("r"))
			if !out.Adopted {
				t.Fatalf("the outcome is %+v", out)
			}
			out.Settle(false)
		}
		w.do(w.keyless("r")).Settle(true)
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Error("it is adopted though its answer was delivered")
		}
		w.wantSent(2)
	})
}

func TestCallersThatStillWaitAreNotMerged(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first, second := w.start(w.keyless("r")), w.start(w.keyless("r"))
		time.Sleep(time.Second)
		third := w.start(w.keyless("r"))
		time.Sleep(time.Second)
		w.wantSent(3)
		release()
		keys := map[string]bool{}
		for _, caller := range []*pending{first, second, third} {
			out := caller.outcome()
			keys[out.Key] = true
			if out.Manner != executed || out.Adopted {
				t.Errorf("the outcome is %+v", out)
			}
			out.Settle(true)
		}
		if len(keys) != 3 {
			t.Errorf("the keys are %v", keys)
		}
	})
}

func TestAnsweredCallIsNotAdoptedWhileItsAnswerIsBeingWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.do(w.keyless("r")) // not settled yet
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		first.Settle(true)
		w.wantSent(2)
	})
}

func TestNoteOfDeliveryComesBeforeTheLeaving(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.do(w.keyless("r"))
		noting := make(chan struct{})
		w.store.hookBefore(opSettle, func() error { <-noting; return nil })
		settled := make(chan struct{})
		go func() { first.Settle(true); close(settled) }()
		second := w.start(w.keyless("r"))
		time.Sleep(grace / 2)
		close(noting)
		<-settled
		if out := second.outcome(); out.Adopted {
			t.Error("the second caller adopts a call whose answer arrived")
		}
		w.wantSent(2)
	})
}

func TestRetryThatComesJustBeforeTheLeavingIsNoticedAdopts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first := w.start(w.keyless("r"))
		retry := w.start(w.keyless("r"))
		time.Sleep(grace - time.Nanosecond)
		w.wantSent(1)
		first.left()
		release()
		if out := retry.outcome(); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		w.wantSent(1)
	})
}

func TestOfTwoRetriesThatWaitForALeavingOneAdopts(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first := w.start(w.keyless("r"))
		a, b := w.start(w.keyless("r")), w.start(w.keyless("r"))
		first.left()
		time.Sleep(time.Second)
		release()
		adopted := 0
		for _, caller := range []*pending{a, b} {
			if caller.outcome().Adopted {
				adopted++
			}
		}
		if adopted != 1 {
			t.Errorf("%d adopted it", adopted)
		}
		w.wantSent(2)
	})
}

func TestCallerWhoLeavesDuringTheGraceSendsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first := w.start(w.keyless("r"))
		w.start(w.keyless("r")).left()
		release()
		first.outcome().Settle(true)
		time.Sleep(time.Second)
		w.wantSent(1)
	})
}

func TestTwoOrphansAreAdoptedByOneRetryEachTheOldestFirst(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		a := w.start(w.keyless("r"))
		b := w.start(w.keyless("r"))
		time.Sleep(time.Second)
		w.wantSent(2)
		a.left()
		b.left()
		c, d := w.start(w.keyless("r")), w.start(w.keyless("r"))
		release()
		for i, caller := range []*pending{c, d} {
			out := caller.outcome()
			if !out.Adopted || "up-"+out.Key != w.upstream.sent()[i] {
				t.Errorf("retry %d is told of %s; sent were %q", i, out.Key, w.upstream.sent())
			}
			out.Settle(true)
		}
		w.wantSent(2)
	})
}

func TestUnlikeCallsAreNotAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyless("r")).Settle(false)
		otherScope := w.keyless("r")
		otherScope.Adoption = idempotency.NewAdoptionID("org", "somebody else", otherScope.Fingerprint)
		// Not to be expected, but then not to be trusted either.
		otherRequest := w.keyless("r")
		otherRequest.Fingerprint = fp("another request")
		never := w.keyless("r")
		never.Adoption = idempotency.AdoptionID{}
		for name, call := range map[string]idempotency.Call{
			"another request": w.keyless("another"), "another scope": otherScope,
			"another fingerprint": otherRequest, "none": never, "a key": w.keyed("k"),
		} {
			if out := w.do(call); out.Adopted || out.Manner != executed {
				t.Errorf("%s: the outcome is %+v", name, out)
			}
		}
		w.wantSent(6)
	})
}

func TestWithoutAdoptionNothingIsAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyless("r")
		call.Adoption = idempotency.AdoptionID{}
		for range 2 {
			out := w.do(call)
			if out.Adopted || out.Manner != executed {
				t.Errorf("the outcome is %+v", out)
			}
			out.Settle(false)
		}
		w.do(call).Settle(true)
		if n := w.store.calls(opUnsettled) + w.store.calls(opSettle); n != 0 {
			t.Errorf("the store was asked about orphans %d times", n)
		}
	})
}

func TestKeylessCallIsNotSentIfTheStoreCannotTellOrphans(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opUnsettled)
		w.doErr(w.keyless("r"), idempotency.ErrStore)
		w.wantSent(0)
		w.store.mend()
		w.do(w.keyless("r"))
	})
}

func TestFailedKeylessCallIsNoOrphan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.fail(opClaim)
		w.doErr(w.keyless("r"), idempotency.ErrStore)
		w.store.mend()
		began := time.Now()
		out := w.do(w.keyless("r"))
		if out.Adopted || time.Since(began) != 0 {
			t.Errorf("after %v, the outcome is %+v", time.Since(began), out)
		}
	})
}

func TestFreedKeylessCallIsNoOrphan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(freed("not found"))
		out := w.do(w.keyless("r"))
		want(t, out, executed, isFreed, "not found")
		out.Settle(false)
		if again := w.do(w.keyless("r")); again.Adopted || !strings.HasPrefix(w.upstream.sent()[1], "up-") {
			t.Errorf("the outcome is %+v", again)
		}
		w.wantSent(2)
	})
}
