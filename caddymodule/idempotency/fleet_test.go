package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/storetest"
)

// lease is how long a process of a fleet is believed to live after a crash.
const lease = 5 * time.Second

// fleet is two processes, a and b, with one store and one upstream.
type fleet struct {
	t     *testing.T
	store *faultyStore
	*storetest.Fleet
	upstream *upstream
	a, b     *sidecar
}

// sidecar is a process of a fleet. Its world has the fleet's store and upstream.
type sidecar struct {
	*world
	member *storetest.Member
}

// inFleet runs test in a synctest bubble, in a fleet of its own: once with calls
// that are looked up before they are claimed, and once with others.
func inFleet(t *testing.T, test func(t *testing.T, f *fleet)) {
	t.Helper()
	for name, way := range map[string]world{
		"looked up":                    {},
		"claimed at once":              {prepared: true},
		"on their callers' goroutines": {prepared: true, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFaultyStore()
				defer func() { // what goes on in the background comes to its end
					store.mend()
					time.Sleep(2 * patience)
				}()
				f := &fleet{t: t, store: store, Fleet: storetest.NewFleet(store, lease), upstream: newUpstream()}
				f.Certain(true)
				f.a, f.b = f.join(way), f.join(way)
				test(t, f)
			})
		})
	}
}

// join returns another sidecar, whose calls are prepared and made as way's.
func (f *fleet) join(way world) *sidecar {
	member := f.Member()
	return &sidecar{&world{
		t: f.t, store: f.store, gate: idempotency.NewGate(member, idempotency.Limits{}, nil),
		upstream: f.upstream, prepared: way.prepared, stays: way.stays,
	}, member}
}

func TestADuplicateElsewhereWaitsAndGetsTheAnswer(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first, second := f.a.start(f.a.keyed("k")), f.b.start(f.b.keyed("k"))
		if !second.waiting() {
			t.Fatal("the duplicate does not wait")
		}
		began := time.Now()
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, second.outcome(), shared, isKept, "ran under up-k")
		if took := time.Since(began); took != 0 {
			t.Errorf("the duplicate was told %v after the first", took)
		}
		f.a.wantSent(1)
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "ran under up-k")
	})
}

func TestADuplicateElsewhereGetsTheAnswerThoughNoticesAreLost(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.Mute(true)
		release := f.upstream.holds()
		f.a.start(f.a.keyed("k"))
		second := f.b.start(f.b.keyed("k"))
		release()
		want(t, second.outcome(), shared, isKept, "ran under up-k")
	})
}

func TestADuplicateElsewhereWaitsNoLongerThanItsWait(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		defer f.upstream.holds()()
		f.a.start(f.a.keyed("k"))
		call := f.b.keyed("k")
		call.Wait = 7 * time.Second
		second, third := f.b.start(call), f.b.start(call)
		for _, p := range []*pending{second, third} {
			if _, err := p.result(); !errors.Is(err, idempotency.ErrInUse) || p.took != call.Wait {
				t.Errorf("got %v after %v", err, p.took)
			}
		}
		call.Wait = 0
		began := time.Now()
		f.b.doErr(call, idempotency.ErrInUse)
		if took := time.Since(began); took != 0 {
			t.Errorf("who does not want to wait waited %v", took)
		}
		f.a.wantSent(1)
	})
}

func TestAnotherRequestElsewhereIsToldThatTheKeyIsTaken(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyed("k"))
		other := f.b.keyed("k")
		other.Fingerprint = fp("another request")
		f.b.doErr(other, idempotency.ErrKeyReused)

		waits := f.b.start(f.b.keyed("k"))
		f.b.doErr(other, idempotency.ErrKeyReused) // also beside one that waits
		release()
		want(t, waits.outcome(), shared, isKept, "ran under up-k")
		f.b.doErr(other, idempotency.ErrKeyReused)
	})
}

func TestADuplicateElsewhereRunsACallThatWasRefused(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.upstream.becomes(freed("no"))
		first, second := f.a.start(f.a.keyed("k")), f.b.start(f.b.keyed("k"))
		release()
		want(t, first.outcome(), executed, isFreed, "no")
		want(t, second.outcome(), executed, isFreed, "no")
		f.a.wantSent(2)
	})
}

func TestACallWhoseCallersHaveLeftElsewhereIsWaitedForByNobody(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.keyed("k"))
		f.b.start(f.b.keyed("k")).left()
		gets := f.store.calls(opGet)
		time.Sleep(time.Minute)
		if more := f.store.calls(opGet) - gets; more > 1 {
			t.Errorf("the store was asked %d times for nobody", more)
		}
		release()
	})
}

func TestACallOfAProcessThatIsGoneIsUnknown(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		defer f.upstream.holds()()
		f.a.start(f.a.keyed("k"))
		second := f.b.start(f.b.keyed("k"))
		f.a.member.Crash()
		if synctest.Wait(); !second.waiting() {
			t.Fatal("the process was given up at once")
		}
		want(t, second.outcome(), shared, isUnsure, "")
		if second.took < lease || second.took > lease+time.Second {
			t.Errorf("that took %v", second.took)
		}
		want(t, f.b.do(f.b.keyed("k")), replayed, isUnsure, "")
		f.a.wantSent(1)
	})
}

func TestACallOfAProcessThatIsGoneIsSentAgainWhereKeysAreHonored(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.a.start(f.a.honored("k"))
		f.a.member.Crash()
		second := f.b.start(f.b.honored("k"))
		time.Sleep(lease + time.Second)
		release()
		want(t, second.outcome(), executed, isKept, "ran under up-k")
		f.a.wantSent(2)
		if sent := f.upstream.sent(); sent[0] != sent[1] {
			t.Errorf("sent under %q", sent)
		}
		if !f.upstream.resumed[1] {
			t.Error("the second send does not know of the first")
		}
	})
}

func TestALateAnswerOfAProcessThoughtDeadBecomesKnown(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyed("k"))
		f.a.member.Pause()
		want(t, f.b.do(f.b.keyed("k")), shared, isUnsure, "")
		release()
		f.a.member.Resume()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "ran under up-k")
		f.a.wantSent(1)
	})
}

func TestWhatTookACallOverRecordsItsAnswer(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		f.upstream.becomes(kept("of the first"))
		first := f.a.start(f.a.honored("k"))
		f.a.member.Pause()
		f.upstream.becomes(kept("of the second"))
		second := f.b.start(f.b.honored("k"))
		time.Sleep(lease + time.Second)
		release()
		want(t, second.outcome(), executed, isKept, "of the second")
		f.a.member.Resume()
		first.outcome()
		want(t, f.a.do(f.a.honored("k")), replayed, isKept, "of the second")
		want(t, f.b.do(f.b.honored("k")), replayed, isKept, "of the second")
		f.a.wantSent(2)
	})
}

func TestNobodyIsTakenForDeadByWhoCannotTell(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.Certain(false)
		release := f.upstream.holds()
		f.a.start(f.a.honored("k"))
		f.a.member.Crash()
		time.Sleep(2 * lease)
		late := f.join(world{})
		second := late.start(late.honored("k"))
		time.Sleep(lease - time.Second)
		f.a.wantSent(1)
		time.Sleep(2 * time.Second)
		f.a.wantSent(2)
		release()
		second.outcome()
	})
}

func TestAClaimThatTheStoreLostIsRecordedAnewWithItsAnswer(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyed("k"))
		rec := f.a.record("k")
		if err := f.store.Store.Release(t.Context(), rec.ID, rec.Owner); err != nil {
			t.Fatal(err)
		}
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "ran under up-k")
		f.a.wantSent(1)
	})
}

func TestAnUnusedClaimIsGivenBackOnceTheStoreIsThere(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.lose(opClaim)
		f.store.fail(opRelease)
		began := time.Now()
		f.a.doErr(f.a.keyed("k"), idempotency.ErrStore)
		if took := time.Since(began); took != 0 {
			t.Errorf("the caller waited %v for it", took)
		}
		f.store.mend()
		want(t, f.b.do(f.b.keyed("k")), executed, isKept, "ran under up-k")
		f.a.wantSent(1)
	})
}

func TestAClaimThatWasNotMadeIsNotGivenBack(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.hookBefore(opClaim, func() error { return idempotency.ErrNotMade })
		f.a.doErr(f.a.keyed("k"), idempotency.ErrStore)
		if n := f.store.calls(opRelease); n != 0 {
			t.Errorf("Release was called %d times", n)
		}
	})
}

func TestAnOutcomeThatTheStoreHasNotTakenIsCounted(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.store.fail(opFinish)
		want(t, f.a.do(f.a.keyed("k")), executed, isKept, "ran under up-k")
		if n := f.a.gate.Unrecorded(); n != 1 {
			t.Errorf("%d outcomes are unrecorded", n)
		}
		f.store.mend()
		time.Sleep(time.Minute)
		if n := f.a.gate.Unrecorded(); n != 0 {
			t.Errorf("%d outcomes are unrecorded", n)
		}
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "ran under up-k")
	})
}

func TestAClaimThatTheStoreLostIsMadeAnewWhileItsCallRuns(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyed("k"))
		rec := f.a.record("k")
		if err := f.store.Store.Release(t.Context(), rec.ID, rec.Owner); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		second := f.b.start(f.b.keyed("k"))
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, second.outcome(), shared, isKept, "ran under up-k")
		f.a.wantSent(1)
	})
}

func TestAClaimIsNotMadeAnewOnceItsCallIsOver(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		renewing := make(chan struct{})
		release := f.upstream.holds()
		f.upstream.becomes(freed("no"))
		first := f.a.start(f.a.keyed("k"))
		f.store.hookBefore(opClaim, func() error { <-renewing; return nil })
		time.Sleep(3 * time.Second) // a renewal is under way
		f.store.mend()
		release()
		if !first.waiting() {
			t.Fatal("the call was ended beside its renewal")
		}
		close(renewing)
		first.outcome()
		time.Sleep(time.Minute)
		if rec := f.a.record("k"); rec != nil {
			t.Errorf("there is a record: %+v", rec)
		}
	})
}

// The store has the claim, but has lost what was recorded after it.
func TestAClaimWhoseOutcomeTheStoreLostIsNotUsedAgain(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		var claim *idempotency.Record
		f.upstream.result = func(context.Context, *idempotency.Claim) idempotency.Result {
			claim = f.a.record("k")
			return kept("first")
		}
		f.a.do(f.a.keyed("k"))
		rec := f.a.record("k")
		if err := f.store.Store.Release(t.Context(), rec.ID, rec.Owner); err != nil {
			t.Fatal(err)
		}
		if standing, err := f.store.Store.Claim(t.Context(), claim, idempotency.Owner{}); standing != nil || err != nil {
			t.Fatal(standing, err)
		}
		want(t, f.a.do(f.a.keyed("k")), replayed, isUnsure, "")
		f.a.wantSent(1)
	})
}

func TestACallThatNobodyCanBeAtIsNotWaitedFor(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		// A claim that was left by a process that lives.
		call := f.a.keyed("k")
		rec := f.a.leave(call, idempotency.Started, 0)
		f.a.member.Join(rec.Owner.Process(), func(context.Context) error { return nil })
		second := f.b.start(f.b.keyed("k"))
		if !second.waiting() {
			t.Fatal("it is not waited for")
		}
		second.left()
		time.Sleep(retention + time.Minute) // its record says that it was made in a day
		want(t, f.b.do(f.b.keyed("k")), replayed, isUnsure, "")
		f.a.wantSent(0)
	})
}

func TestACallerWhoseDuplicateRunsAfterAllWaitsForIt(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		refuse := f.upstream.holds()
		f.upstream.becomes(freed("no"))
		first := f.a.start(f.a.keyed("k"))
		answer := f.upstream.holds()
		second := f.b.start(f.b.keyed("k"))
		time.Sleep(wait - time.Second)
		refuse()
		first.outcome()
		time.Sleep(time.Minute) // longer than a duplicate waits
		if !second.waiting() {
			t.Fatalf("the caller was told %v after %v", second.err, second.took)
		}
		answer()
		want(t, second.outcome(), executed, isFreed, "no")
		f.a.wantSent(2)
	})
}
