package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestWhoAsksIsToldHowFarACallIs(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		far := func(waits bool) {
			t.Helper()
			out, err := d.asks("k", 0)
			if err != nil || out.Fate != isPending || out.Waits != waits || out.ID != idOf("k") {
				t.Errorf("told %+v, %v", out, err)
			}
		}
		release := d.upstream.holds()
		d.handOver(d.async("k"))
		far(true)
		d.serve()
		far(false)
		release()
		d.told("k", isKept, "ran under up-k")
		d.wantSent(1)
	})
}

func TestWhoAsksAndWaitsIsToldAsSoonAsTheCallHasEnded(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.handOver(d.async("k"))
		d.serve()
		time.AfterFunc(7*time.Second, release)
		began := time.Now()
		out, err := d.asks("k", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		want(t, out, replayed, isKept, "ran under up-k")
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("that took %v", took)
		}
	})
}

func TestWhoAsksWaitsNoLongerThanWasSaid(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		began := time.Now()
		out, err := d.asks("k", 7*time.Second)
		if err != nil || out.Fate != isPending || time.Since(began) != 7*time.Second {
			t.Errorf("told %+v, %v after %v", out, err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := d.gate.Await(ctx, idOf("k"), caller, time.Minute); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who leaves is told %v", err)
		}
	})
}

func TestOtherScopesAndOrganisationsCannotAskNorCancel(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		scope, org := caller, caller
		scope.Scope[0]++
		org.Organisation[0]++
		action := caller
		action.Action = "another"
		none := func() {
			t.Helper()
			for _, label := range []idempotency.Label{scope, org} {
				if _, err := d.gate.Await(t.Context(), idOf("k"), label, 0); !errors.Is(err, idempotency.ErrNoRecord) {
					t.Errorf("who asks is told %v", err)
				}
				if err := d.gate.Cancel(t.Context(), idOf("k"), label); !errors.Is(err, idempotency.ErrNoRecord) {
					t.Errorf("who cancels is told %v", err)
				}
			}
		}
		none()
		release := d.upstream.holds()
		d.handOver(d.async("k"))
		none()
		d.serve()
		none()
		release()
		none()
		if _, err := d.gate.Await(t.Context(), idOf("k"), action, 0); err != nil {
			t.Errorf("by another action: %v", err)
		}
	})
}

func TestWhoAsksIsToldThatTheStoreDoesNotAnswer(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		d.store.fail(opGet)
		if _, err := d.asks("k", time.Minute); !errors.Is(err, idempotency.ErrStore) {
			t.Errorf("told %v", err)
		}
		d.cancel("k", idempotency.ErrStore)
	})
}

func TestACallThatWaitsIsCancelledAndItsKeyIsFree(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		d.cancel("k", nil)
		rec := d.wantState("k", idempotency.Released)
		if rec.Deferred != nil || !rec.Expires.Equal(rec.Finished.Add(retention)) {
			t.Errorf("it is kept as %+v", rec)
		}
		if _, err := d.asks("k", 0); !errors.Is(err, idempotency.ErrReleased) {
			t.Errorf("who asks is told %v", err)
		}
		d.cancel("k", idempotency.ErrReleased)
		d.wantTickets(0)
		d.serve()
		d.wantSent(0)
		other := d.async("k")
		other.Fingerprint = fp("other")
		d.handOver(other)
		d.wantRan("k")
	})
}

func TestARepeatOfACallThatIsCancelledRunsAsItsOwn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		repeat := d.start(d.keyed("k"))
		d.cancel("k", nil)
		want(t, repeat.outcome(), executed, isKept, "ran under up-k")
		d.serve()
		d.wantRan("k")
		d.wasToldAtOnce(repeat)
	})
}

// wasToldAtOnce fails the test unless the caller was told at once.
func (d *desk) wasToldAtOnce(p *pending) {
	d.t.Helper()
	if p.took != 0 {
		d.t.Errorf("it was told after %v", p.took)
	}
}

func TestACallIsCancelledWhileItsTurnIsPreparedFor(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		ready := make(chan struct{})
		d.prepare = func(ctx context.Context, key string) error {
			if key == "a" {
				<-ready
			}
			return nil
		}
		d.handOver(d.async("a"), d.async("b"))
		d.serve()
		repeat := d.start(d.keyed("a"))
		release := d.upstream.holds()
		d.cancel("a", nil)
		d.wantRan("a") // by the repeat
		close(ready)
		release()
		want(t, repeat.outcome(), executed, isKept, "ran under up-a")
		settles()
		d.wantRan("a", "b")
		d.wantTickets(0)
	})
}

func TestWhoComesAboardATurnThatIsOverLooksAgain(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		ready, looking := make(chan struct{}), make(chan struct{})
		d.prepare = func(context.Context, string) error { <-ready; return nil }
		d.handOver(d.async("k"))
		d.serve()
		d.cancel("k", nil)
		d.store.hookBefore(opGet, func() error { <-looking; return nil })
		close(ready)
		synctest.Wait() // the turn looks whether the call is still there
		repeat := d.start(d.keyed("k"))
		d.store.mend()
		close(looking)
		want(t, repeat.outcome(), executed, isKept, "ran under up-k")
		d.wantSent(1)
	})
}

func TestACallThatHasStartedIsNotCancelled(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.handOver(d.async("k"))
		d.serve()
		d.cancel("k", idempotency.ErrUnderWay)
		release()
		d.cancel("k", idempotency.ErrKnown)
		d.told("k", isKept, "ran under up-k")
	})
}

func TestACallIsCancelledThoughSomebodyIsAskingAboutIt(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		d.prepared = false
		looking := make(chan struct{})
		asking := d.start(d.keyed("other"))
		asking.outcome()
		d.store.hookBefore(opGet, func() error { <-looking; return nil })
		repeat := d.start(d.keyed("k"))
		d.store.mend()
		time.AfterFunc(50*time.Millisecond, func() { close(looking) })
		d.cancel("k", nil)
		repeat.outcome()
	})
}

func TestAnOperatorForgetsACallThatWaits(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		if err := d.gate.Forget(t.Context(), idOf("k")); err != nil {
			t.Fatal(err)
		}
		d.wantTickets(0)
		d.serve()
		d.wantSent(0)
		if rec := d.record("k"); rec != nil && rec.State != idempotency.Released {
			t.Errorf("it is kept as %+v", rec)
		}
		d.handOver(d.async("k"))
		d.wantRan("k")
	})
}

func TestAnOperatorForgetsACallThatACrashInterruptedBeforeItsTurn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.honor(true)
		d.handOver(d.async("a"), d.async("b"))
		d.leaveStarted("a", true, time.Minute)
		if err := d.gate.Forget(t.Context(), idOf("a")); err != nil {
			t.Fatal(err)
		}
		d.wantState("a", 0)
		d.wantTickets(1)
		d.serve()
		time.Sleep(time.Minute)
		d.wantRan("b")
	})
}

func TestWhatWaitsForItsTurnIsNeitherErasedNorResolved(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		if err := d.gate.Erase(t.Context(), idOf("k")); !errors.Is(err, idempotency.ErrUnderWay) {
			t.Errorf("erasing: %v", err)
		}
		if _, err := d.gate.Resolve(t.Context(), idOf("k"), idempotency.Resolution{}); !errors.Is(err, idempotency.ErrUnderWay) {
			t.Errorf("resolving: %v", err)
		}
		d.serve()
		d.told("k", isKept, "ran under up-k")
	})
}

func TestAnOperatorsWordOnACallThatACrashInterruptedKeepsItFromItsTurn(t *testing.T) {
	for _, ran := range []bool{false, true} {
		atDesk(t, func(t *testing.T, d *desk) {
			d.honor(true)
			d.handOver(d.async("k"), d.async("next"))
			d.leaveStarted("k", true, time.Minute)
			if _, err := d.gate.Resolve(t.Context(), idOf("k"), idempotency.Resolution{Executed: ran}); err != nil {
				t.Fatal(err)
			}
			d.serve()
			time.Sleep(time.Minute)
			d.wantRan("next")
			d.wantTickets(0)
		})
	}
}

func TestWhatWasPromisedIsToldToItsOwnCaller(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.serve()
		out := d.do(d.async("k"))
		time.AfterFunc(time.Second, release)
		end, err := d.gate.AwaitEnd(t.Context(), out, caller, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		want(t, end, executed, isKept, "ran under up-k")
	})
}
