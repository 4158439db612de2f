package idempotency_test

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// leftKeyless puts into the store a keyless call that a crash left behind.
func (w *world) leftKeyless(key string, honored bool, state idempotency.State, age time.Duration) *idempotency.Record {
	w.t.Helper()
	call := w.keyless("r")
	call.Key, call.ID, call.UpstreamKey, call.Honored = key, idOf(key), "up-"+key, honored
	return w.leave(call, state, age)
}

func TestKeylessCallThatACrashLeftBehindIsAdoptedWithinTheWindowOfTheRestart(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration
		adopted bool
	}{
		"at once":                {0, true},
		"at the window's end":    {window, true},
		"after the window's end": {window + time.Nanosecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.leftKeyless("made-up", false, idempotency.Started, time.Hour)
				w.restart()
				time.Sleep(c.after)
				out := w.do(w.keyless("r"))
				if out.Adopted != c.adopted {
					t.Fatalf("the outcome is %+v", out)
				}
				if c.adopted {
					want(t, out, replayed, isUnsure, "")
					if out.Key != "made-up" {
						t.Errorf("the key is %s", out.Key)
					}
					w.wantSent(0)
				} else {
					w.wantSent(1)
				}
			})
		})
	}
}

func TestAnswerThatACrashKeptFromItsCallerIsAdopted(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.do(w.keyless("r")) // recorded, but never settled
		time.Sleep(time.Hour)
		w.restart()
		out := w.do(w.keyless("r"))
		want(t, out, replayed, isKept, "ran under up-"+first.Key)
		if !out.Adopted {
			t.Error("it is not said to be adopted")
		}
		out.Settle(true)
		if next := w.do(w.keyless("r")); next.Adopted {
			t.Error("it is adopted though its answer was delivered")
		}
		w.wantSent(2)
	})
}

func TestUnknownIsToldTheSameWithinTheWindowOfTheLastTelling(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r"))
		want(t, first, executed, isUnsure, "bad gateway")
		first.Settle(true)
		for range 5 {
			time.Sleep(window)
			out := w.do(w.keyless("r"))
			want(t, out, replayed, isUnsure, "bad gateway")
			if !out.Adopted || out.Key != first.Key {
				t.Errorf("the outcome is %+v", out)
			}
			out.Settle(true)
		}
		w.wantSent(1)
		time.Sleep(window + time.Nanosecond)
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Errorf("after the window, the outcome is %+v", out)
		}
		w.wantSent(2)
	})
}

func TestTellingCountsFromWhenItArrived(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r"))
		time.Sleep(time.Hour) // a slow reader
		first.Settle(true)
		time.Sleep(window)
		if out := w.do(w.keyless("r")); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
	})
}

func TestUnknownThatDidNotArriveDoesNotProlongTheWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		w.do(w.keyless("r")).Settle(false)
		time.Sleep(window)
		w.do(w.keyless("r")).Settle(false)
		time.Sleep(time.Nanosecond)
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
	})
}

func TestUnknownIsToldTheSameAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leftKeyless("made-up", false, idempotency.Started, time.Hour)
		w.restart()
		for range 3 { // each within the window of the telling before
			out := w.do(w.keyless("r"))
			want(t, out, replayed, isUnsure, "")
			if !out.Adopted {
				t.Errorf("the outcome is %+v", out)
			}
			out.Settle(true)
			time.Sleep(window)
		}
		w.wantSent(0)
	})
}

func TestUnknownIsNotToldToTwoWhoWaitAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyless("r")) // still being written
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		first.Settle(true)
		w.wantSent(2)
	})
}

func TestOpenKeylessCallIsSentAgainUnderItsKey(t *testing.T) {
	for _, state := range []idempotency.State{idempotency.Started, idempotency.Open} {
		t.Run(state.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				rec := w.leftKeyless("made-up", true, state, time.Hour)
				w.restart()
				call := w.keyless("r")
				call.Honored = true
				out := w.do(call)
				want(t, out, executed, isKept, "ran under up-made-up")
				if !out.Adopted || out.Key != "made-up" || !w.upstream.resumed[0] {
					t.Errorf("the outcome is %+v", out)
				}
				if now := w.record("made-up"); !now.Started.Equal(rec.Started) || now.Adoption != rec.Adoption {
					t.Errorf("the record is %+v", now)
				}
				out.Settle(true)
				if next := w.do(call); next.Adopted {
					t.Error("it is adopted though its answer was delivered")
				}
			})
		})
	}
}

func TestOpenKeylessCallIsAdoptedByTheRetryThatFollows(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyless("r")
		call.Honored = true
		w.upstream.becomes(unsure("bad gateway"))
		w.do(call).Settle(true)
		time.Sleep(window)
		w.upstream.becomes(kept("created"))
		want(t, w.do(call), executed, isKept, "created")
		if sent := w.upstream.sent(); len(sent) != 2 || sent[0] != sent[1] {
			t.Errorf("sent were %q", sent)
		}
	})
}

func TestOrphanThatIsSentAgainByItsKeyStaysAnOrphan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		rec := w.leftKeyless("made-up", true, idempotency.Open, time.Minute)
		w.restart()
		out := w.do2(w.honored("made-up"), "r") // an operator, or a caller that heeds the key it was told
		want(t, out, executed, isKept, "ran under up-made-up")
		if now := w.record("made-up"); now.Adoption != rec.Adoption {
			t.Errorf("the record is %+v", now)
		}
		if out := w.do(w.honoredKeyless("r")); !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
	})
}

func TestOrphanThatIsFreedWhileItIsAdoptedRunsUnderItsKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		rec := w.leftKeyless("made-up", true, idempotency.Open, time.Minute)
		w.restart()
		w.store.hookBefore(opGet, func() error { return w.store.Store.Release(t.Context(), rec.ID, rec.Owner) })
		out := w.do(w.honoredKeyless("r"))
		want(t, out, executed, isKept, "ran under up-made-up")
		if out.Key != "made-up" {
			t.Errorf("the outcome is %+v", out)
		}
	})
}

// The claim was made and not used, and with it the memory of the call's key
// would be lost.
func TestClaimThatFailedThoughItWasMadeDoesNotForgetTheOrphan(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leftKeyless("made-up", true, idempotency.Open, time.Minute)
		w.restart()
		w.store.lose(opClaim)
		w.doErr(w.honoredKeyless("r"), idempotency.ErrStore)
		w.store.mend()
		out := w.do(w.honoredKeyless("r"))
		want(t, out, executed, isKept, "ran under up-made-up")
		if !out.Adopted {
			t.Errorf("the outcome is %+v", out)
		}
		w.wantSent(1)
	})
}

func TestClaimThatFailedThoughItWasMadeIsNoCallUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leftKeyless("made-up", true, idempotency.Started, time.Minute)
		w.restart()
		w.store.lose(opClaim)
		w.doErr(w.honoredKeyless("r"), idempotency.ErrStore)
		w.store.mend()
		if rec := w.record("made-up"); rec == nil || rec.State != idempotency.Open {
			t.Errorf("the record is %+v", rec)
		}
		time.Sleep(window + time.Nanosecond)
		if out := w.do(w.honoredKeyless("r")); out.Adopted {
			t.Errorf("after the window, the outcome is %+v", out)
		}
	})
}

func TestUnusedClaimOfAKeylessCallIsUsedByItsRetry(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.store.lose(opClaim)
		w.store.fail(opRelease)
		w.doErr(w.keyless("r"), idempotency.ErrStore)
		w.store.mend()
		out := w.do(w.keyless("r"))
		if !out.Adopted || out.Manner != executed {
			t.Errorf("the outcome is %+v", out)
		}
		w.wantSent(1)
	})
}

func TestKeylessCallWhoseRecordingWasGivenUpIsAnOrphanForTheWindow(t *testing.T) {
	for name, c := range map[string]struct {
		after   time.Duration
		adopted bool
	}{"within": {window, true}, "after": {window + 10*time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.store.fail(opFinish)
				w.do(w.keyless("r")).Settle(false)
				time.Sleep(patience)
				w.store.mend()
				w.store.fail(opFinish)
				time.Sleep(c.after)
				out := w.do(w.keyless("r"))
				if out.Adopted != c.adopted {
					t.Fatalf("the outcome is %+v", out)
				}
				if c.adopted {
					want(t, out, replayed, isUnsure, "")
					w.wantSent(1)
				}
			})
		})
	}
}

func TestLargeAnswerOfAnOrphanIsUnavailableAndStaysOne(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.large(isKept)
		release := w.upstream.holds()
		w.start(w.keyless("r")).left()
		release()
		for range 2 {
			w.doErr(w.keyless("r"), idempotency.ErrResultUnavailable)
		}
		w.wantSent(1)
	})
}

func TestOrphanLongPastItsWindowIsLookedAtNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.leftKeyless("made-up", false, idempotency.Unknown, time.Minute)
		w.restart()
		unsettled := func() int {
			t.Helper()
			recs, err := w.store.Unsettled(t.Context(), w.keyless("r").Adoption)
			if err != nil {
				t.Fatal(err)
			}
			return len(recs)
		}
		time.Sleep(window + time.Second)
		w.do(w.keyless("r")).Settle(true)
		if n := unsettled(); n != 1 {
			t.Errorf("%d are unsettled, though another's window may be longer", n)
		}
		time.Sleep(time.Hour)
		w.do(w.keyless("r")).Settle(true)
		if n := unsettled(); n != 0 {
			t.Errorf("%d are unsettled", n)
		}
		w.wantSent(2)
	})
}
