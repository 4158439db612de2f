package idempotency_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestACallThatIsQueuedRunsAfterARestart(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("a"), d.async("b"))
		d.open()
		d.serve()
		d.wantRan("a", "b")
		d.told("b", isKept, "ran under up-b")
		d.wantTickets(0)
	})
}

func TestACallThatACrashInterruptedIsUnknownAndTheNextGoesOn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("a"), d.async("b"))
		left := d.leaveStarted("a", false, time.Minute)
		d.open()
		d.told("a", isUnsure, "") // before its turn as well
		d.serve()
		d.wantRan("b")
		rec := d.wantState("a", idempotency.Unknown)
		if rec.Deferred != nil || rec.Finished.IsZero() || !rec.Expires.Equal(left.Expires) {
			t.Errorf("it is kept as %+v", rec)
		}
		d.told("a", isUnsure, "")
		want(t, d.do(d.keyed("a")), replayed, isUnsure, "")
		want(t, d.do(d.async("a")), replayed, isUnsure, "")
		d.wantTickets(0)
		d.wantRan("b")
	})
}

func TestACallThatACrashInterruptedIsSentAgainWhereKeysAreHonored(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.honor(true)
		d.handOver(d.async("a"), d.async("b"))
		left := d.leaveStarted("a", true, time.Minute)
		d.open()
		if out, err := d.asks("a", 0); err != nil || out.Fate != isPending || out.Waits {
			t.Errorf("who asks before its turn is told %+v, %v", out, err)
		}
		d.serve()
		d.wantRan("a", "b")
		if !slices.Equal(d.upstream.resumed, []bool{true, false}) {
			t.Errorf("resumed: %v", d.upstream.resumed)
		}
		rec := d.wantState("a", idempotency.Done)
		if !rec.Started.Equal(left.Started) {
			t.Error("it is not told since when the upstream knows the key")
		}
		d.told("a", isKept, "ran under up-a")
		d.wantTickets(0)
	})
}

func TestACallThatACrashInterruptedIsNotSentAgainWhereKeysAreHonoredNoMore(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("a"), d.async("b"))
		d.leaveStarted("a", true, time.Minute)
		d.open()
		d.serve()
		d.wantRan("b")
		d.wantState("a", idempotency.Open)
		d.told("a", isUnsure, "")
		d.wantTickets(0)
	})
}

func TestACallThatACrashInterruptedIsNotSentAgainPastTheTrust(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.honor(true)
		d.handOver(d.async("a"), d.async("b"))
		d.leaveStarted("a", true, 24*time.Hour-deadline)
		d.open()
		d.serve()
		time.Sleep(time.Minute)
		d.wantRan("b")
		d.told("a", isUnsure, "")
		d.wantTickets(0)
	})
}

func TestACallWhoseOutcomeCouldNotBeRecordedIsNotSentAgain(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.store.fail(opFinish)
		d.handOver(d.async("a"), d.async("b"))
		d.serve()
		time.Sleep(2 * patience)
		d.wantRan("a")
		d.store.mend()
		time.Sleep(time.Minute)
		d.wantRan("a", "b")
		d.told("a", isUnsure, "")
		d.wantTickets(0)
	})
}

func TestACallThatCouldNotBePutBackIsPutBackOnceTheStoreIsThere(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(temporary("not yet"))
		d.store.fail(opFinish)
		d.handOver(d.async("k"))
		d.serve()
		settles()
		d.wantSent(1)
		d.upstream.becomes(kept("ran"))
		d.store.mend()
		settles()
		d.told("k", isKept, "ran")
		d.wantSent(2)
	})
}

func TestACallThatWasNotPutBackForLongRunsAllTheSame(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(temporary("not yet"))
		d.store.fail(opFinish)
		d.handOver(d.async("k"))
		d.serve()
		time.Sleep(patience + time.Minute)
		d.upstream.becomes(kept("ran"))
		d.store.mend()
		time.Sleep(time.Minute)
		d.told("k", isKept, "ran")
		d.wantTickets(0)
	})
}

func TestNoTurnBeginsAfterClose(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.handOver(d.async("a"), d.async("b"), d.inLane("c", "other"))
		d.serve()
		closed := d.closing(context.Background())
		d.wantOpen(closed)
		d.wantSent(2)
		release()
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		d.wantSent(2)
		d.wantState("a", idempotency.Done)
		d.wantState("b", idempotency.Queued)
		d.wantState("c", idempotency.Done)
		time.Sleep(time.Minute)
		if late := d.store.callsAfterClose(); len(late) != 0 {
			t.Errorf("the store was asked for %v", late)
		}
		d.wantSent(2)
	})
}

func TestCloseDoesNotWaitForATurnThatWaits(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.prepare = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		d.handOver(d.async("k"))
		d.serve()
		began := time.Now()
		if err := d.gate.Close(context.Background()); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		d.wantState("k", idempotency.Queued)
	})
}

func TestCloseDoesNotWaitForWhoWaitsForATurnOrAsks(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		waits := d.start(d.keyed("k"))
		asked := make(chan *idempotency.Outcome, 1)
		go func() {
			out, err := d.asks("k", time.Hour)
			if err != nil {
				t.Errorf("who asks is told %v", err)
			}
			asked <- out
		}()
		synctest.Wait()
		began := time.Now()
		if err := d.gate.Close(context.Background()); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wantPending(t, <-asked, replayed)
		if _, err := waits.result(); err == nil {
			t.Error("who waited was told something")
		}
		if err := d.gate.Cancel(t.Context(), idOf("k"), caller); !errors.Is(err, idempotency.ErrClosed) {
			t.Errorf("who cancels is told %v", err)
		}
		if _, err := d.asks("k", 0); !errors.Is(err, idempotency.ErrClosed) {
			t.Errorf("who asks is told %v", err)
		}
	})
}

// The claim of a turn is made although the store says that it is not, twice.
func TestATurnWhoseClaimsComeToNothingLosesNoCall(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.a.handOver(o.a.async("k"))
		o.store.lose(opClaim)
		o.store.fail(opFinish, opRelease)
		o.a.serve()
		settles()
		o.store.mend()
		time.Sleep(time.Minute)
		o.a.wantRan("k")
		o.a.told("k", isKept, "ran under up-k")
	})
}

// Nobody knows whether the first was handed over; the second is told that it was.
func TestACallThatWasNotedIsNotTakenBackForOneThatFailed(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.store.lose(opClaim)
		o.store.fail(opRelease)
		o.a.doErr(o.a.async("k"), idempotency.ErrUnresolved)
		o.store.mend()
		wantPending(t, o.b.do(o.b.async("k")), replayed)
		time.Sleep(time.Minute)
		o.serve()
		o.wantEmpty(o.a)
		o.a.wantRan("k")
	})
}

func TestAKeylessCallThatMayHaveBeenHandedOverIsAdopted(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.store.lose(opClaim)
		o.a.doErr(o.a.asyncKeyless("r"), idempotency.ErrUnresolved)
		o.store.mend()
		settles()
		again := o.b.do(o.b.asyncKeyless("r"))
		if !again.Adopted {
			t.Errorf("told %+v", again)
		}
		o.serve()
		o.wantEmpty(o.a)
		o.a.wantSent(1)
	})
}
