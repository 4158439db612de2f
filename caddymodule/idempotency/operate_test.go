package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/storetest"
)

var (
	ran    = idempotency.Resolution{Executed: true, Answer: answer("refund 17"), Note: "seen in SAP"}
	didNot = idempotency.Resolution{Note: "nothing in SAP"}
)

// resolve resolves the call with key and fails the test on an error.
func (w *world) resolve(key string, r idempotency.Resolution) *idempotency.Record {
	w.t.Helper()
	rec, err := w.gate.Resolve(context.Background(), idOf(key), r)
	if err != nil {
		w.t.Fatalf("Resolve: %v", err)
	}
	synctest.Wait()
	return rec
}

func (w *world) resolveErr(key string, wanted error) {
	w.t.Helper()
	if rec, err := w.gate.Resolve(context.Background(), idOf(key), didNot); !errors.Is(err, wanted) {
		w.t.Fatalf("Resolve returned %+v, %v; want the error %q", rec, err, wanted)
	}
}

// leftUnknown lists how the outcome of a call comes to be unknown.
func leftUnknown(w *world, key string) map[string]idempotency.Call {
	calls := map[string]idempotency.Call{}
	for _, state := range []idempotency.State{idempotency.Started, idempotency.Unknown, idempotency.Open} {
		call := w.keyed(key + state.String())
		call.Honored = state == idempotency.Open
		w.leave(call, state, time.Second)
		calls[state.String()] = call
	}
	return calls
}

func TestACallThatIsSaidToHaveRunIsReplayedWithTheAnswerGiven(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for state, call := range leftUnknown(w, "k") {
			w.resolve(call.Key, ran)
			for range 2 {
				want(t, w.do(call), replayed, isKept, "refund 17")
				w.restart()
			}
			words := w.record(call.Key).Journal.Words
			if len(words) != 1 || !words[0].Executed || words[0].Note != "seen in SAP" || words[0].Said.IsZero() {
				t.Errorf("%s: the journal has %+v", state, words)
			}
		}
		w.wantSent(0)
	})
}

func TestACallThatIsSaidToHaveRunWithoutAnAnswerIsNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, call := range leftUnknown(w, "k") {
			w.resolve(call.Key, idempotency.Resolution{Executed: true})
			w.doErr(call, idempotency.ErrResultUnavailable)
		}
		w.wantSent(0)
	})
}

func TestACallThatIsSaidNotToHaveRunRunsWhenItIsRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		sent := 0
		for state, call := range leftUnknown(w, "k") {
			w.resolve(call.Key, didNot)
			want(t, w.do(call), executed, isKept, "ran under up-"+call.Key)
			want(t, w.do(call), replayed, isKept, "ran under up-"+call.Key)
			sent++
			w.wantSent(sent)
			words := w.record(call.Key).Journal.Words
			if len(words) != 1 || words[0].Executed || words[0].Note != "nothing in SAP" {
				t.Errorf("%s: once it has run, the journal has %+v", state, words)
			}
		}
		for _, resumed := range w.upstream.resumed {
			if resumed {
				t.Error("the call is sent as if it might have run")
			}
		}
	})
}

func TestTheKeyOfACallThatDidNotRunIsFreeForAnotherRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leave(w.keyed("k"), idempotency.Unknown, time.Second)
		w.resolve("k", didNot)
		other := w.keyed("k")
		other.Fingerprint = fp("another request")
		want(t, w.do(other), executed, isKept, "ran under up-k")
		w.doErr(w.keyed("k"), idempotency.ErrKeyReused)
	})
}

func TestAnAnswerThatComesAfterAnOperatorsWordDoesNotChangeIt(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		first := f.a.start(f.a.keyed("k"))
		f.a.member.Pause()
		time.Sleep(2 * lease)
		f.b.resolve("k", ran)
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "refund 17")
		f.a.member.Resume()
		release()
		first.outcome()
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "refund 17")
		want(t, f.a.do(f.a.keyed("k")), replayed, isKept, "refund 17")
		f.a.wantSent(1)
	})
}

func TestAKeylessCallThatDidNotRunIsNotAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r"))
		first.Settle(true)
		if _, err := w.gate.Resolve(t.Context(), first.ID, didNot); err != nil {
			t.Fatal(err)
		}
		w.upstream.becomes(kept("ran"))
		second := w.do(w.keyless("r"))
		want(t, second, executed, isKept, "ran")
		if second.Adopted {
			t.Error("it was adopted")
		}
	})
}

func TestAKeylessCallThatRanIsToldToItsRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r"))
		first.Settle(true)
		if _, err := w.gate.Resolve(t.Context(), first.ID, ran); err != nil {
			t.Fatal(err)
		}
		second := w.do(w.keyless("r"))
		want(t, second, replayed, isKept, "refund 17")
		w.wantSent(1)
	})
}

func TestACallUnderWayIsNotResolvedNorForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		call := w.start(w.keyed("k"))
		w.resolveErr("k", idempotency.ErrUnderWay)
		if err := w.gate.Forget(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrUnderWay) {
			t.Errorf("Forget: %v", err)
		}
		if err := w.gate.Erase(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrUnderWay) {
			t.Errorf("Erase: %v", err)
		}
		release()
		want(t, call.outcome(), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestACallUnderWayElsewhereIsNotResolvedNorForgotten(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		release := f.upstream.holds()
		call := f.a.start(f.a.keyed("k"))
		f.b.resolveErr("k", idempotency.ErrUnderWay)
		if err := f.b.gate.Forget(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrUnderWay) {
			t.Errorf("Forget: %v", err)
		}
		release()
		want(t, call.outcome(), executed, isKept, "ran under up-k")
	})
}

func TestAKnownOutcomeIsNotResolved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("k"))
		w.resolveErr("k", idempotency.ErrKnown)
		w.resolveErr("nobody's", idempotency.ErrNoRecord)
		w.leave(w.keyed("twice"), idempotency.Unknown, time.Second)
		w.resolve("twice", didNot)
		w.resolveErr("twice", idempotency.ErrKnown)
	})
}

func TestARepeatThatComesWhileACallIsResolvedWaitsForTheWord(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leave(w.keyed("k"), idempotency.Unknown, time.Second)
		var repeat *pending
		w.store.hookBefore(opFinish, func() error { // the claim for the word has been made
			w.store.mend()
			repeat = w.start(w.keyed("k"))
			return nil
		})
		w.resolve("k", ran)
		want(t, repeat.outcome(), replayed, isKept, "refund 17")
		w.wantSent(0)
	})
}

func TestAnOutcomeIsAsUnknownAsBeforeIfTheStoreFailsWhileItIsResolved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, o := range []op{opGet, opClaim, opFinish} {
			for name, breakIt := range map[string]func(...op){"fails": w.store.fail, "loses its reply": w.store.lose} {
				key := strings.ReplaceAll(string(o)+name, " ", "")
				w.leave(w.keyed(key), idempotency.Unknown, time.Second)
				breakIt(o)
				if _, err := w.gate.Resolve(t.Context(), idOf(key), didNot); !errors.Is(err, idempotency.ErrStore) {
					t.Fatalf("%s %s: Resolve: %v", o, name, err)
				}
				w.store.mend()
				time.Sleep(time.Minute)
				want(t, w.do(w.keyed(key)), replayed, isUnsure, "")
				if rec := w.record(key); rec.State != idempotency.Unknown {
					t.Errorf("%s %s: the record is %v", o, name, rec.State)
				}
			}
		}
		w.wantSent(0)
	})
}

func TestACallWhoseWordCouldNotBeRecordedIsNotSentWhileTheStoreFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leave(w.keyed("k"), idempotency.Unknown, time.Second)
		w.store.fail(opFinish)
		if _, err := w.gate.Resolve(t.Context(), idOf("k"), didNot); !errors.Is(err, idempotency.ErrStore) {
			t.Fatalf("Resolve: %v", err)
		}
		want(t, w.do(w.keyed("k")), replayed, isUnsure, "")
		w.wantSent(0)
	})
}

func TestAForgottenCallRunsAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("k"))
		if err := w.gate.Forget(t.Context(), idOf("k")); err != nil {
			t.Fatal(err)
		}
		if err := w.gate.Forget(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrNoRecord) {
			t.Errorf("forgetting it again: %v", err)
		}
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		w.wantSent(2)
	})
}

func TestAnErasedCallIsNotToldAndNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("done"))
		w.leave(w.keyed("unknown"), idempotency.Unknown, time.Second)
		for _, key := range []string{"done", "unknown"} {
			if err := w.gate.Erase(t.Context(), idOf(key)); err != nil {
				t.Fatal(err)
			}
			rec := w.record(key)
			if rec.Answer != nil || rec.Key != "" || rec.UpstreamKey != "" || rec.Journal.Attempts != nil || rec.Label.Scope != (idempotency.ScopeID{}) {
				t.Errorf("%s: what is left is %+v", key, rec)
			}
		}
		w.doErr(w.keyed("done"), idempotency.ErrResultUnavailable)
		out := w.do(w.keyed("unknown"))
		want(t, out, replayed, isUnsure, "")
		if out.Key != "unknown" {
			t.Errorf("its caller is told the key %q", out.Key)
		}
		w.wantSent(1)
	})
}

func TestAnErasedCallWhoseOutcomeIsOpenIsStillSentUnderItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, state := range []idempotency.State{idempotency.Open, idempotency.Started} {
			key := state.String()
			w.leave(w.honored(key), state, time.Second)
			if err := w.gate.Erase(t.Context(), idOf(key)); err != nil {
				t.Fatal(err)
			}
			out := w.do(w.honored(key))
			want(t, out, executed, isKept, "ran under up-"+key)
			if out.Key != key {
				t.Errorf("its caller is told the key %q", out.Key)
			}
		}
	})
}

func TestACallThatEndsWhileItIsLookedAtIsNotTakenForLeftBehind(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.start(w.keyed("k"))
		w.start(w.keyed("freed"))
		recs := []*idempotency.Record{w.record("k"), w.record("freed")}
		w.upstream.becomes(kept("ran"))
		release()
		if err := w.gate.Forget(t.Context(), idOf("freed")); err != nil {
			t.Fatal(err)
		}
		standings, err := w.gate.Standings(t.Context(), recs)
		if err != nil || standings[0] != idempotency.Done || recs[0].State != idempotency.Done || recs[1] != nil {
			t.Errorf("it is %v, of %+v, %v", standings, recs, err)
		}
	})
}

func TestACallThatIsMeantAnewIsNotTakenForOneThatWasJustResolved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r"))
		first.Settle(true)
		time.Sleep(3 * time.Hour)
		if _, err := w.gate.Resolve(t.Context(), first.ID, ran); err != nil {
			t.Fatal(err)
		}
		w.upstream.becomes(kept("ran anew"))
		time.Sleep(time.Minute)
		second := w.do(w.keyless("r"))
		want(t, second, executed, isKept, "ran anew")
		w.wantSent(2)
	})
}

func TestAWordCountsForAsLongAsAnAnswerWouldHave(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		w.do(w.keyed("k"))
		time.Sleep(retention - time.Minute)
		w.resolve("k", ran)
		time.Sleep(retention - time.Minute)
		want(t, w.do(w.keyed("k")), replayed, isKept, "refund 17")
		w.wantSent(1)
	})
}

func TestNothingIsErasedThatOtherProcessesCannotBeToldOf(t *testing.T) {
	inFleet(t, func(t *testing.T, f *fleet) {
		f.a.do(f.a.keyed("k"))
		f.a.member.LoseDrop(true)
		if err := f.a.gate.Erase(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrStore) {
			t.Fatalf("Erase: %v", err)
		}
		want(t, f.b.do(f.b.keyed("k")), replayed, isKept, "ran under up-k")
		f.a.member.LoseDrop(false)
		if err := f.a.gate.Erase(t.Context(), idOf("k")); err != nil {
			t.Fatal(err)
		}
		f.b.doErr(f.b.keyed("k"), idempotency.ErrResultUnavailable)
	})
}

func TestAScopeIsErasedWithAllOfItsCallsAndPurgedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		scopes := []idempotency.ScopeID{idempotency.NewScopeID("org", "alice"), idempotency.NewScopeID("acme", "alice")}
		for i, scope := range append(scopes, idempotency.NewScopeID("org", "bob")) {
			call := w.keyed(fmt.Sprint("k", i))
			call.Label.Scope = scope
			w.do(call)
		}
		release := w.upstream.holds()
		running := w.keyed("running")
		running.Label.Scope = scopes[0]
		w.start(running)
		store := &purger{Lister: w.store.Store.(idempotency.Lister)}
		erased, underWay, err := w.gate.EraseScopes(t.Context(), store, scopes)
		if erased != 2 || underWay != 1 || err != nil || store.purged != 1 {
			t.Errorf("%d erased, %d under way, purged %d times, %v", erased, underWay, store.purged, err)
		}
		release()
		w.doErr(w.keyed("k0"), idempotency.ErrResultUnavailable)
		w.doErr(w.keyed("k1"), idempotency.ErrResultUnavailable)
		want(t, w.do(w.keyed("k2")), replayed, isKept, "ran under up-k2")
	})
}

// purger is a Lister that counts how often it is purged.
type purger struct {
	idempotency.Lister
	purged int
}

func (p *purger) Purge(context.Context) error {
	p.purged++
	return nil
}

func TestStandingsTellWhatWasLeftBehindFromWhatRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		standing := func(key string, want idempotency.State) {
			t.Helper()
			if got, err := w.gate.Standings(t.Context(), []*idempotency.Record{w.record(key)}); err != nil || got[0] != want {
				t.Errorf("%s: %v, %v; want %v", key, got, err, want)
			}
		}
		release := w.upstream.holds()
		w.start(w.keyed("runs"))
		w.leave(w.keyed("left"), idempotency.Started, time.Second)
		w.leave(w.honored("left, honored"), idempotency.Started, time.Second)
		w.leave(w.honored("open"), idempotency.Open, time.Second)
		w.leave(w.honored("open for long"), idempotency.Open, 25*time.Hour)
		standing("runs", idempotency.Started)
		standing("left", idempotency.Unknown)
		standing("left, honored", idempotency.Open)
		standing("open", idempotency.Open)
		standing("open for long", idempotency.Unknown)
		release()
		standing("runs", idempotency.Done)
	})
}

func TestWhatOneProcessForgetsNoOtherRepeatsFromMemory(t *testing.T) {
	// Outside a bubble: the cache has goroutines of its own.
	shared := storetest.NewFleet(newFaultyStore(), lease)
	shared.Certain(true)
	request := idempotency.Request{Method: "POST", Path: "/request"}
	var gates []*idempotency.Gate
	var call idempotency.Call
	for range 2 {
		w := &world{t: t, gate: idempotency.NewGate(shared.Member(), idempotency.Limits{}, nil), upstream: newUpstream()}
		cache, err := idempotency.NewCache(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(cache.Close)
		w.gate.SetCache(cache)
		gates = append(gates, w.gate)
		call = w.keyed("k")
		for out := (*idempotency.Outcome)(nil); out == nil; { // a cache may drop what it is given
			if _, err := w.gate.Do(t.Context(), call); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
			if out, err = w.gate.Replay(call.ID, request); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := gates[0].Forget(t.Context(), call.ID); err != nil {
		t.Fatal(err)
	}
	for i, gate := range gates {
		if out, _ := gate.Replay(call.ID, request); out != nil {
			t.Errorf("process %d still repeats it", i)
		}
	}
}

func TestAJournalKeepsTheFirstAttemptAndTheLatest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var attempts []idempotency.Attempt
		for i := range idempotency.MaxAttempts + 3 {
			attempts = append(attempts, idempotency.Attempt{Status: i + 1, Error: strings.Repeat("x", 2*idempotency.MaxText)})
		}
		result := kept("ran")
		result.Attempts = attempts
		w.upstream.becomes(result)
		out := w.do(w.keyed("k"))
		for name, j := range map[string]idempotency.Journal{"told": out.Journal, "recorded": w.record("k").Journal} {
			if len(j.Attempts) != idempotency.MaxAttempts || j.Skipped != 3 || j.Attempts[0].Status != 1 ||
				j.Attempts[1].Status != 5 || j.Attempts[idempotency.MaxAttempts-1].Status != idempotency.MaxAttempts+3 {
				t.Errorf("%s: %d attempts, %d skipped: %+v", name, len(j.Attempts), j.Skipped, j.Attempts)
			}
			if len(j.Attempts[2].Error) != idempotency.MaxText {
				t.Errorf("%s: an error has %d bytes", name, len(j.Attempts[2].Error))
			}
		}
	})
}

func TestTheJournalOfAnOpenCallGoesOnWithItsRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		result := unsure("bad gateway")
		result.Attempts = []idempotency.Attempt{{Status: 502}}
		w.upstream.becomes(result)
		w.do(w.honored("k"))
		result = kept("ran")
		result.Attempts = []idempotency.Attempt{{Status: 200}}
		w.upstream.becomes(result)
		out := w.do(w.honored("k"))
		if a := out.Journal.Attempts; len(a) != 2 || a[0].Status != 502 || a[1].Status != 200 {
			t.Errorf("the journal has %+v", a)
		}
	})
}
