package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestRekeyIsDurableBeforeTheNewKeyIsUsed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.honored("k")
		of(&call).send = func(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
			time.Sleep(time.Minute)
			if err := claim.Rekey(ctx, "second"); err != nil {
				t.Fatal(err)
			}
			rec := w.record("k")
			if rec.UpstreamKey != "second" || claim.UpstreamKey() != "second" || rec.State != idempotency.Started {
				t.Errorf("the record is %+v", rec)
			}
			if !rec.Started.Equal(time.Now()) {
				t.Errorf("the new key is said to be in use since %v", rec.Started)
			}
			return unsure("bad gateway")
		}
		w.do(call)

		w.restart()
		want(t, w.do(w.honored("k")), executed, isKept, "ran under second")
		if rec := w.record("k"); rec.UpstreamKey != "second" || rec.Key != "k" {
			t.Errorf("the record is %+v", rec)
		}
	})
}

func TestFailedRekeyLeavesTheOldKey(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.honored("k")
		of(&call).send = func(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
			w.store.fail(opFinish)
			err := claim.Rekey(ctx, "second")
			w.store.mend()
			if !errors.Is(err, idempotency.ErrStore) || !errors.Is(err, errDown) || claim.UpstreamKey() != "up-k" {
				t.Errorf("the key is %q, the error %v", claim.UpstreamKey(), err)
			}
			return unsure("conflict")
		}
		w.do(call)
		if rec := w.record("k"); rec.UpstreamKey != "up-k" {
			t.Errorf("the record is %+v", rec)
		}
	})
}

func TestAnsweredTellsTheAnswerOfWhoTookTheCallOver(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.honored("k")
		of(&first).send = func(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
			if a, ok := claim.Answered(ctx); ok {
				t.Errorf("before anybody has answered: %s", show(a))
			}
			other := idempotency.NewGate(w.store, idempotency.Limits{}, nil)
			if _, err := other.Do(context.Background(), w.honored("k")); err != nil {
				t.Fatal(err)
			}
			a, ok := claim.Answered(ctx)
			if !ok || string(a.Body) != "ran under up-k" {
				t.Errorf("the other's answer is %s, %t", show(a), ok)
			}
			w.store.fail(opGet)
			if _, ok := claim.Answered(ctx); ok {
				t.Error("a store that is down has an answer")
			}
			w.store.mend()
			return idempotency.Result{Fate: isKept, Answer: a}
		}
		want(t, w.do(first), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestAnsweredDoesNotTellWhatIsNotDone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.honored("k")
		of(&first).send = func(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
			w.upstream.becomes(unsure("bad gateway"))
			other := idempotency.NewGate(w.store, idempotency.Limits{}, nil)
			if _, err := other.Do(context.Background(), w.honored("k")); err != nil {
				t.Fatal(err)
			}
			if a, ok := claim.Answered(ctx); ok {
				t.Errorf("an open call is answered by %s", show(a))
			}
			return unsure("conflict")
		}
		w.do(first)
	})
}

func TestWhoWasTakenOverDoesNotChangeTheRecord(t *testing.T) {
	for name, late := range map[string]idempotency.Result{
		"kept": kept("late"), "unsure": unsure("late"), "freed": freed("late"),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.useCache()
				ending := make(chan struct{})
				slow := w.honored("k")
				of(&slow).send = func(context.Context, *idempotency.Claim) idempotency.Result {
					<-ending
					return late
				}
				caller := w.start(slow)
				w.upstream.becomes(kept("first"))
				other := idempotency.NewGate(w.store, idempotency.Limits{}, nil)
				if _, err := other.Do(context.Background(), w.honored("k")); err != nil {
					t.Fatal(err)
				}
				close(ending)
				out := caller.outcome()
				want(t, out, executed, late.Fate, "late")
				if out.Stored || !out.Expires.IsZero() {
					t.Error("the caller is told that its answer is stored")
				}
				want(t, w.do(w.honored("k")), replayed, isKept, "first")
				if w.store.calls(opFinish)+w.store.calls(opRelease) != 2 {
					t.Error("what cannot succeed was tried again")
				}
			})
		})
	}
}

func TestStoreThatIsDownKeepsCallsFromBeingSent(t *testing.T) {
	for _, down := range []op{opGet, opClaim} {
		t.Run(string(down), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				if w.prepared && down == opGet {
					return // it is not asked
				}
				w.store.fail(down)
				w.doErr(w.keyed("k"), idempotency.ErrStore)
				w.doErr(w.keyed("k"), errDown)
				w.wantSent(0)
				w.store.mend()
				want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
			})
		})
	}
}

func TestStoreThatIsDownIsToldToAllWhoWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		claiming := make(chan struct{})
		w.store.hookBefore(opClaim, func() error { <-claiming; return errDown })
		first, second := w.start(w.keyed("k")), w.start(w.keyed("k"))
		close(claiming)
		for _, caller := range []*pending{first, second} {
			if _, err := caller.result(); !errors.Is(err, idempotency.ErrStore) {
				t.Errorf("a caller got %v", err)
			}
		}
		w.wantSent(0)
	})
}

func TestFullStoreIsOverloaded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.hookBefore(opClaim, func() error { return idempotency.ErrFull })
		w.doErr(w.keyed("k"), idempotency.ErrOverloaded)
		if w.store.calls(opRelease) != 0 {
			t.Error("a claim that was not made was released")
		}
		w.wantSent(0)
	})
}

func TestClaimThatFailedThoughItWasMadeDoesNotBlockTheKey(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.lose(opClaim)
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		if w.record("k") != nil {
			t.Error("the unused claim is still there")
		}
		w.store.mend()
		other := w.otherRequest("k")
		want(t, w.do(other), executed, isKept, "ran under up-k")
	})
}

func TestUnusedClaimThatCannotBeReleasedIsUsedByTheNextRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.lose(opClaim)
		w.store.fail(opRelease)
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		if rec := w.record("k"); rec == nil || rec.State != idempotency.Started {
			t.Fatalf("the record is %+v", rec)
		}
		w.store.mend()
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		w.wantSent(1)
	})
}

func TestUnusedClaimIsReleasedThoughItWasMadeOverAnother(t *testing.T) {
	inBubbleOf(t, false, func(t *testing.T, w *world) {
		w.store.lose(opClaim)
		w.store.fail(opRelease)
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		w.store.mend()
		w.store.lose(opClaim)
		w.doErr(w.keyed("k"), idempotency.ErrStore)
		if rec := w.record("k"); rec != nil {
			t.Errorf("the record is %+v", rec)
		}
	})
}

// The call may have run when it was sent first. If its record were released,
// that would be forgotten, and with it the key that the upstream knows it by.
func TestClaimThatFailedThoughItWasMadeDoesNotForgetTheOpenCall(t *testing.T) {
	for name, fail := range map[string]func(*faultyStore){
		"and was not made": func(s *faultyStore) { s.fail(opClaim) },
		"but was made":     func(s *faultyStore) { s.lose(opClaim) },
		"was made and cannot be undone": func(s *faultyStore) {
			s.lose(opClaim)
			s.fail(opFinish, opRelease)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				left := w.honored("k")
				left.UpstreamKey = "the key that was sent"
				rec := w.leave(left, idempotency.Open, 23*time.Hour)
				fail(w.store)
				w.doErr(w.honored("k"), idempotency.ErrStore)
				w.store.mend()
				w.doErr(w.otherRequest("k"), idempotency.ErrKeyReused)
				now := w.record("k")
				if now == nil || now.UpstreamKey != rec.UpstreamKey || !now.Started.Equal(rec.Started) {
					t.Fatalf("the record is %+v", now)
				}
				want(t, w.do(w.honored("k")), executed, isKept, "ran under the key that was sent")
				w.wantSent(1)
			})
		})
	}
}

func TestUnusedClaimOverAnOpenCallDoesNotProlongTheTrust(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leave(w.honored("k"), idempotency.Open, 23*time.Hour)
		w.store.lose(opClaim)
		w.store.fail(opFinish, opRelease)
		w.doErr(w.honored("k"), idempotency.ErrStore)
		w.store.mend()
		time.Sleep(time.Hour)
		want(t, w.do(w.honored("k")), replayed, isUnsure, "")
		w.wantSent(0)
	})
}

func TestPrepareIsCalledOnceThoughTheClaimMeetsAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leave(w.honored("k"), idempotency.Open, time.Hour)
		call, prepared := w.honored("k"), 0
		of(&call).prepare = func(context.Context) error {
			prepared++
			// Another sidecar tries meanwhile, and fails.
			w.upstream.becomes(unsure("bad gateway"))
			other := idempotency.NewGate(w.store, idempotency.Limits{}, nil)
			_, err := other.Do(context.Background(), w.honored("k"))
			return err
		}
		caller := w.start(call)
		synctest.Wait()
		want(t, caller.outcome(), executed, isUnsure, "bad gateway")
		if prepared != 1 {
			t.Errorf("it was called %d times", prepared)
		}
		w.wantSent(2)
	})
}
