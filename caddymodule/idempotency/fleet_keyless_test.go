package idempotency_test

import (
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestAnOrphanElsewhereIsAdopted(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		second := f.b.start(f.b.keyless("r"))
		if !second.waiting() {
			t.Fatal("the adopter does not wait")
		}
		release()
		out := second.outcome()
		if !out.Adopted || out.Manner != shared {
			t.Errorf("the outcome is %+v", out)
		}
		f.a.wantSent(1)

		// It has been delivered now, so that it is no orphan any more.
		out.Settle(true)
		synctest.Wait()
		f.b.do(f.b.keyless("r"))
		f.a.wantSent(2)
	})
}

func TestACallWhoseCallerWaitsElsewhereIsNotAdopted(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first, second := f.a.start(f.a.keyless("r")), f.b.start(f.b.keyless("r"))
		time.Sleep(time.Second)
		f.a.wantSent(2)
		release()
		if a, b := first.outcome(), second.outcome(); a.Key == b.Key || b.Adopted {
			t.Errorf("the outcomes are %+v and %+v", a, b)
		}
	})
}

func TestACallerThatLeavesElsewhereWithinTheGraceIsReplaced(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyless("r"))
		second := f.b.start(f.b.keyless("r"))
		time.Sleep(10 * time.Millisecond)
		first.left()
		time.Sleep(time.Second)
		f.a.wantSent(1)
		release()
		if out := second.outcome(); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
	})
}

func TestACallOfAProcessThatIsGoneIsAdopted(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		defer f.upstream.holds()()
		f.a.start(f.a.keyless("r"))
		f.a.member.Crash()
		second := f.b.start(f.b.keyless("r"))
		out := second.outcome()
		want(t, out, replayed, isUnsure, "")
		if !out.Adopted || second.took > lease+time.Second {
			t.Errorf("the outcome is %+v, after %v", out, second.took)
		}
		f.a.wantSent(1)
	})
}

func TestACallOfAProcessThatIsGoneIsAdoptedAndSentAgainWhereKeysAreHonored(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.honoredKeyless("r"))
		f.a.member.Crash()
		second := f.b.start(f.b.honoredKeyless("r"))
		time.Sleep(lease + time.Second)
		release()
		if out := second.outcome(); !out.Adopted || out.Manner != executed {
			t.Errorf("the outcome is %+v", out)
		}
		if sent := f.upstream.sent(); len(sent) != 2 || sent[0] != sent[1] {
			t.Errorf("sent under %q", sent)
		}
	})
}

func TestACallOfAProcessThatStandsStillIsAdopted(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r"))
		f.a.member.Pause()
		want(t, f.b.do(f.b.keyless("r")), replayed, isUnsure, "")
		f.a.wantSent(1)
		f.a.member.Resume()
		release()
	})
}

func TestAnOrphanIsAdoptedOnceThoughSeveralProcessesWantIt(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		c := f.join(world{})
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		callers := []*pending{f.b.start(f.b.keyless("r")), c.start(c.keyless("r")), f.a.start(f.a.keyless("r"))}
		time.Sleep(time.Second)
		release()
		adopted := 0
		for _, p := range callers {
			if p.outcome().Adopted {
				adopted++
			}
		}
		if adopted != 1 {
			t.Errorf("%d adopted it", adopted)
		}
		f.a.wantSent(3) // the orphan, and two that nobody waits for but their callers
	})
}

func TestAnUnknownOutcomeThatWasToldElsewhereIsToldAgain(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.upstream.becomes(unsure("lost"))
		first := f.a.do(f.a.keyless("r"))
		want(t, first, executed, isUnsure, "lost")
		first.Settle(true)
		synctest.Wait()
		time.Sleep(window - time.Second)
		second := f.b.do(f.b.keyless("r"))
		want(t, second, replayed, isUnsure, "lost")
		if second.Key != first.Key {
			t.Errorf("the second was told the key %q, not %q", second.Key, first.Key)
		}
		second.Settle(true)
		f.a.wantSent(1)
	})
}

func TestAnOrphanIsNotAdoptedPastItsWindow(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.a.do(f.a.keyless("r")).Settle(false) // its caller did not see the answer
		time.Sleep(window + time.Second)
		f.b.do(f.b.keyless("r"))
		f.a.wantSent(2)
	})
}

func TestACallThatWasLeftBehindCanBeAdoptedOnceItsSidecarIsBack(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		defer f.upstream.holds()()
		f.a.start(f.a.keyless("r"))
		f.a.member.Crash()
		time.Sleep(2 * window) // its app had nowhere to go
		f.Certain(true)
		back := f.join(world{})
		time.Sleep(window - time.Second)
		want(t, back.do(back.keyless("r")), replayed, isUnsure, "")
		f.a.wantSent(1)
	})
}

func TestThatACallerLeftIsNotedThoughTheStoreWasAway(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyless("r"))
		f.store.fail(opGet) // which the fleet's Attend uses
		first.left()
		f.store.mend()
		time.Sleep(time.Minute)
		second := f.b.start(f.b.keyless("r"))
		release()
		if out := second.outcome(); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		f.a.wantSent(1)
	})
}

func TestACallThatNobodyWaitsForOnceItIsClaimedIsNotSent(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		claiming := make(chan struct{})
		f.store.hookBefore(opClaim, func() error { <-claiming; return nil })
		f.a.start(f.a.keyless("r")).left()
		f.a.start(f.a.keyed("k")).left()
		f.store.mend()
		close(claiming)
		synctest.Wait()
		f.a.wantSent(0)
		if f.a.record("k") != nil {
			t.Error("its claim is left")
		}
		out := f.b.do(f.b.keyless("r"))
		f.b.do(f.b.keyed("k"))
		if out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		f.a.wantSent(2)
	})
}

func TestACallerThatLeavesWhileItAdoptsLeavesTheOrphan(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		attending := make(chan struct{})
		f.store.hookBefore(opGet, func() error { <-attending; return nil }) // which the fleet's Attend uses
		second := f.b.start(f.b.keyless("r"))
		second.leave()
		f.store.mend()
		close(attending)
		second.left()
		third := f.a.start(f.a.keyless("r"))
		release()
		if out := third.outcome(); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		f.a.wantSent(1)
	})
}

func TestAnAttendanceThatMayHaveBeenNotedIsTakenBack(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		f.a.member.Crash() // else it would be told of the attendance by its own
		time.Sleep(2 * lease)
		f.b.member.LoseAttend(true)
		f.b.doErr(f.b.keyless("r"), idempotency.ErrStore)
		f.b.member.LoseAttend(false)
		c := f.join(world{})
		if out := c.do(c.keyless("r")); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		f.a.wantSent(1)
		release()
	})
}

func TestWhoAdoptsElsewhereWaitsAsLongAsWhoLeft(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		call := f.b.keyless("r")
		call.Wait = 0
		second := f.b.start(call)
		time.Sleep(wait + time.Second)
		if !second.waiting() {
			t.Fatal("the adopter has given up")
		}
		release()
		second.outcome()
	})
}

func TestAStoreThatDoesNotAnswerIsNoReasonToRunAnOrphanAgain(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyless("r")).left()
		f.store.fail(opUnsettled)
		f.b.doErr(f.b.keyless("r"), idempotency.ErrStore)
		f.a.wantSent(1)
		release()
	})
}

func TestAnUnknownOutcomeIsToldAgainElsewhereThoughTheStoreIsSlow(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.upstream.becomes(unsure("lost"))
		first := f.a.do(f.a.keyless("r"))
		f.store.hookBefore(opTell, func() error { time.Sleep(3 * time.Second); return nil })
		go first.Settle(true) // its caller has the answer, the store not yet
		synctest.Wait()
		second := f.b.do(f.b.keyless("r"))
		want(t, second, replayed, isUnsure, "lost")
		f.a.wantSent(1)
		f.store.mend()
	})
}

func TestAnOrphanThatChangesWhileItIsLookedAtIsLookedAtAgain(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyless("r"))
		f.a.member.Crash() // so that it can be adopted with an attendant
		time.Sleep(2 * lease)
		rec, err := f.b.member.Unsettled(t.Context(), f.b.keyless("r").Adoption)
		if err != nil || len(rec) != 1 {
			t.Fatal(rec, err)
		}
		changes := 0
		f.store.hookBefore(opGet, func() error { // which the fleet's Attend uses
			if changes++; changes == 1 {
				f.store.mend()
				if ok, err := f.b.member.Attend(t.Context(), rec[0].ID, rec[0].Attendant, idempotency.Owner{}); !ok || err != nil {
					t.Errorf("changing the attendant: %t, %v", ok, err)
				}
			}
			return nil
		})
		out := f.b.do(f.b.keyless("r"))
		if changes != 1 || !out.Adopted {
			t.Errorf("the outcome is %+v, after %d changes", out, changes)
		}
		f.a.wantSent(1)
		release()
		first.leave()
	})
}

func TestAClaimOverAnOpenRecordThatIsMadeAfterItWasGivenUpIsTakenBack(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.upstream.becomes(unsure("lost"))
		f.a.do(f.a.honored("k"))
		open := f.a.record("k")
		var late *idempotency.Record
		f.store.onClaim = func(rec *idempotency.Record) error { late = rec; return errDown }
		call := f.a.honored("k")
		of(&call).prepared = nil // it is claimed over what was found
		f.a.doErr(call, idempotency.ErrStore)
		f.store.onClaim = nil
		time.Sleep(idempotency.ClaimGrace - time.Second)
		if standing, err := f.store.Store.Claim(t.Context(), late, open.Owner); standing != nil || err != nil {
			t.Fatal(standing, err)
		}
		time.Sleep(2 * time.Second)
		if rec := f.b.record("k"); rec == nil || rec.State != idempotency.Open || rec.UpstreamKey != open.UpstreamKey {
			t.Errorf("the record is %+v", rec)
		}
		f.a.wantSent(1)
	})
}

func TestAnAnswerThatWasDeliveredIsNotToldToAnotherThoughTheStoreWasAway(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.fail(opFinish, opSettle)
		first := f.a.do(f.a.keyless("r"))
		first.Settle(true)
		synctest.Wait()
		f.store.mend()
		time.Sleep(5 * time.Second) // the answer is recorded after all
		for i, s := range []*sidecar{f.a, f.b} {
			if out := s.do(s.keyless("r")); out.Adopted || out.Key == first.Key {
				t.Errorf("the outcome is %+v", out)
			} else {
				out.Settle(true)
			}
			f.a.wantSent(2 + i)
		}
	})
}

func TestACallerThatLeavesWhileASignOfLifeIsAwaitedSendsNothing(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyless("r"))
		f.a.member.Pause()
		second := f.b.start(f.b.keyless("r"))
		time.Sleep(lease / 2) // past the grace
		if !second.waiting() {
			t.Fatalf("it does not wait for a sign: %+v, %v", second.out, second.err)
		}
		second.left()
		f.a.member.Resume()
		time.Sleep(2 * lease)
		f.a.wantSent(1)
		release()
		want(t, first.outcome(), executed, isKept, "ran under "+f.upstream.sent()[0])
	})
}

// Who was cut off from the store for a while cannot tell who lives, but does not
// forget what it has found out.
func TestAProcessThatWasFoundToBeGoneIsGone(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.Certain(false)
		time.Sleep(2 * lease)
		defer f.upstream.holds()()
		f.a.start(f.a.keyless("r"))
		f.a.member.Crash()
		looks := 0
		f.store.hookBefore(opUnsettled, func() error {
			if looks++; looks == 2 { // after the wait for a sign of life
				f.b.member.Pause()
				f.b.member.Resume()
			}
			return nil
		})
		out := f.b.do(f.b.keyless("r"))
		if !out.Adopted || out.Fate != isUnsure || looks < 2 {
			t.Errorf("after %d looks: %+v", looks, out)
		}
		f.a.wantSent(1)
	})
}

// Of two calls that were left behind, one has still to be seen to have no caller.
func TestAnOrphanIsNotSentBesideAnOlderOneWhoseCallerMayBeGone(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.honoredKeyless("r"))
		f.a.member.Crash()
		time.Sleep(time.Millisecond)
		f.b.leftKeyless("unsent", true, idempotency.Open, 0)
		second := f.b.start(f.b.honoredKeyless("r"))
		time.Sleep(lease + time.Second)
		release()
		if out := second.outcome(); !out.Adopted || out.Key == "unsent" {
			t.Errorf("the outcome is %+v", out)
		}
		if sent := f.upstream.sent(); len(sent) != 2 || sent[0] != sent[1] {
			t.Errorf("sent under %q", sent)
		}
	})
}
