package idempotency_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

const isPending = idempotency.Pending

func TestACallThatIsHandedOverIsPutOnRecordAndNotSent(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		out := d.do(d.async("k"))
		wantPending(t, out, executed)
		if !out.Waits || out.ID != idOf("k") || out.Key != "k" {
			t.Errorf("outcome: %+v", out)
		}
		rec := d.wantState("k", idempotency.Queued)
		call := rec.Deferred
		if call == nil || call.Place == "" || call.URL != "/x?y" || string(call.Body) != "body of k" || !call.Since.Equal(time.Now()) {
			t.Errorf("the call is kept as %+v", call)
		}
		if rec.UpstreamKey != "up-k" || rec.Label != caller {
			t.Errorf("the record is %+v", rec)
		}
		settles()
		d.wantSent(0)
		d.wantTickets(1)
	})
}

func TestACallIsHandedOverOnce(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		out := d.do(d.async("k"))
		wantPending(t, out, replayed)
		if !out.Waits {
			t.Error("it does not wait for its turn")
		}
		d.wantTickets(1)
		d.serve()
		d.wantRan("k")
		d.wantTickets(0)
	})
}

func TestACallThatIsHandedOverTwiceAtOnceHasOneTicket(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		enqueuing := make(chan struct{})
		d.store.hookBefore(opEnqueue, func() error { <-enqueuing; return nil })
		first, second := d.start(d.async("k")), d.start(d.async("k"))
		close(enqueuing)
		wantPending(t, first.outcome(), executed)
		wantPending(t, second.outcome(), shared)
		d.wantTickets(1)
	})
}

func TestARepeatThatWaitsGetsTheAnswerOfACallThatWasHandedOver(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		first, second := d.start(d.keyed("k")), d.start(d.keyed("k"))
		time.Sleep(7 * time.Second)
		if !first.waiting() || !second.waiting() {
			t.Fatal("they do not wait")
		}
		d.serve()
		for _, p := range []*pending{first, second} {
			out := p.outcome()
			if out.Fate != isKept || out.Manner == executed || string(out.Answer.Body) != "ran under up-k" {
				t.Errorf("told %+v", out)
			}
			if p.took > 8*time.Second {
				t.Errorf("that took %v", p.took)
			}
		}
		d.wantRan("k")
	})
}

func TestARepeatThatComesDuringTheHandingOverWaitsToo(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		enqueuing := make(chan struct{})
		d.store.hookBefore(opEnqueue, func() error { <-enqueuing; return nil })
		first, second := d.start(d.async("k")), d.start(d.keyed("k"))
		close(enqueuing)
		wantPending(t, first.outcome(), executed)
		if !second.waiting() {
			t.Fatal("it does not wait")
		}
		d.serve()
		if out := second.outcome(); out.Fate != isKept {
			t.Errorf("told %+v", out)
		}
		d.wantRan("k")
	})
}

// Those that wait must not keep each other from sleeping: the bubble would never end.
func TestARepeatWaitsForACallsTurnNoLongerThanItsWait(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		call := d.keyed("k")
		call.Wait = 7 * time.Second
		gets := d.store.calls(opGet)
		var all []*pending
		for range 20 {
			all = append(all, d.start(call))
			time.Sleep(100 * time.Millisecond) // each looks while the others watch
		}
		for _, p := range all {
			if _, err := p.result(); !errors.Is(err, idempotency.ErrInUse) || p.took != call.Wait {
				t.Errorf("got %v after %v", err, p.took)
			}
		}
		if n := d.store.calls(opGet) - gets; n > 20*2*16 { // each looks twice a second
			t.Errorf("the store was asked %d times", n)
		}
		call.Wait = 0
		d.doErr(call, idempotency.ErrInUse)
		if d.gate.Waiters() != 0 || d.gate.InFlight() != 0 {
			t.Errorf("%d wait, %d fly", d.gate.Waiters(), d.gate.InFlight())
		}
	})
}

func TestThoseWhoWaitForATurnAreCountedAndBounded(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.gate = idempotency.NewGate(d.store, idempotency.Limits{Waiters: 2}, nil)
		d.gates = append(d.gates, d.gate)
		d.handOver(d.async("k"))
		a, b := d.start(d.keyed("k")), d.start(d.keyed("k"))
		if n := d.gate.Waiters(); n != 2 {
			t.Errorf("%d wait", n)
		}
		d.doErr(d.keyed("k"), idempotency.ErrOverloaded)
		a.left()
		b.left()
		if n := d.gate.Waiters(); n != 0 {
			t.Errorf("%d wait", n)
		}
	})
}

func TestAnotherRequestUnderTheKeyOfACallThatWasHandedOverIsRefused(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		other, sync := d.async("k"), d.keyed("k")
		other.Fingerprint, sync.Fingerprint = fp("other"), fp("other")
		refused := func(state idempotency.State) {
			t.Helper()
			d.wantState("k", state)
			d.doErr(other, idempotency.ErrKeyReused)
			d.doErr(sync, idempotency.ErrKeyReused)
		}
		d.handOver(d.async("k"))
		refused(idempotency.Queued)
		release := d.upstream.holds()
		d.serve()
		refused(idempotency.Started)
		release()
		refused(idempotency.Done)
		d.wantRan("k")
	})
}

func TestAnAnswerThatIsKeptIsToldToWhoHandsTheCallOver(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.do(d.keyed("k"))
		want(t, d.do(d.async("k")), replayed, isKept, "ran under up-k")
		d.wantTickets(0)
		d.wantSent(1)
	})
}

func TestACallUnderWayIsPendingAsSoonAsItIsOnRecord(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		claiming, release := make(chan struct{}), d.upstream.holds()
		d.store.hookBefore(opClaim, func() error { <-claiming; return nil })
		first, second := d.start(d.keyed("k")), d.start(d.async("k"))
		if !second.waiting() {
			t.Fatalf("it was told %+v, %v", second.out, second.err)
		}
		close(claiming)
		out := second.outcome()
		wantPending(t, out, shared)
		if out.Waits {
			t.Error("it is said to wait for its turn")
		}
		wantPending(t, d.do(d.async("k")), shared)
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, d.do(d.async("k")), replayed, isKept, "ran under up-k")
		d.wantTickets(0)
		d.wantSent(1)
	})
}

// Whoever was told to ask again finds out what the call of the other came to.
func TestTheRefusalOfACallUnderWayIsKeptForWhoWasPromisedItsAnswer(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.upstream.becomes(freed("no"))
		call := d.keyed("k")
		call.Label = caller
		first := d.start(call)
		wantPending(t, d.do(d.async("k")), shared)
		release()
		want(t, first.outcome(), executed, isFreed, "no")
		d.told("k", isFreed, "no")
		d.upstream.becomes(kept("yes"))
		want(t, d.do(d.keyed("k")), executed, isKept, "yes")
	})
}

func TestNothingIsKeptOfARefusalThatNobodyWasPromised(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(freed("no"))
		want(t, d.do(d.keyed("k")), executed, isFreed, "no")
		d.wantState("k", 0)
	})
}

func TestACallHandedOverBesideOneThatFailsBeforeItsClaimIsNotLost(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.prepared = false
		preparing := make(chan struct{})
		call := d.keyed("k")
		of(&call).prepare = func(context.Context) error { <-preparing; return errDown }
		first, second := d.start(call), d.start(d.async("k"))
		if !second.waiting() {
			t.Fatal("it was told something too early")
		}
		close(preparing)
		if _, err := first.result(); !errors.Is(err, errDown) {
			t.Errorf("the first got %v", err)
		}
		wantPending(t, second.outcome(), executed)
		d.serve()
		d.wantRan("k")
	})
}

func TestAFullBacklogTakesNothing(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.gate.SetBounds(idempotency.Bounds{Calls: 1})
		d.handOver(d.async("a"))
		d.doErr(d.async("b"), idempotency.ErrOverloaded)
		d.doErr(d.async("b"), idempotency.ErrBacklogFull)
		d.wantState("b", 0)
		d.wantTickets(1)
		d.do(d.keyed("c")) // does not need it
		d.gate.SetBounds(idempotency.Bounds{})
		d.handOver(d.async("b"))
	})
}

func TestWhatIsOnRecordNeedsNoRoomInAFullBacklog(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.gate.SetBounds(idempotency.Bounds{Calls: 1})
		d.do(d.keyed("done"))
		d.handOver(d.async("k"))
		wantPending(t, d.do(d.async("k")), replayed)
		want(t, d.do(d.async("done")), replayed, isKept, "ran under up-done")
	})
}

func TestACallThatTheStoreDidNotTakeIsNotSent(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.serve()
		d.store.fail(opEnqueue)
		d.doErr(d.async("k"), idempotency.ErrStore)
		d.store.mend()
		d.store.lose(opEnqueue) // it takes the call and reports that it has not
		d.doErr(d.async("k"), idempotency.ErrStore)
		d.store.mend()
		settles()
		d.wantState("k", 0)
		d.wantSent(0)
		d.wantTickets(0)
	})
}

func TestWhoLeavesBeforeTheHandingOverHandsNothingOver(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		looking := make(chan struct{})
		d.prepared = false
		d.store.hookBefore(opGet, func() error { <-looking; return nil })
		p := d.start(d.async("k"))
		p.left()
		close(looking)
		settles()
		d.wantState("k", 0)
		d.wantTickets(0)
	})
}

func TestAStoreWithoutABacklogTakesNoCalls(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.gate = idempotency.NewGate(plainStore{d.store.Store}, idempotency.Limits{}, nil)
		d.gates = append(d.gates, d.gate)
		d.serve() // does nothing
		if d.gate.Defers() {
			t.Error("it says that it takes some")
		}
		if depth, err := d.gate.Depth(t.Context()); depth != (idempotency.Depth{}) || err != nil {
			t.Errorf("its depth is %+v, %v", depth, err)
		}
		d.doErr(d.async("k"), idempotency.ErrStore)
	})
}

// plainStore is a store of which nothing more is known.
type plainStore struct{ idempotency.Store }

func TestTheDepthOfTheBacklogIsTold(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("a"), d.async("b"))
		depth, err := d.gate.Depth(t.Context())
		if err != nil || depth.Calls != 2 || depth.Oldest.IsZero() {
			t.Errorf("it is %+v, %v", depth, err)
		}
		d.store.fail(opDepth)
		if _, err := d.gate.Depth(t.Context()); !errors.Is(err, idempotency.ErrStore) {
			t.Errorf("got %v", err)
		}
	})
}

func TestWhoHandsOverWhatACrashLeftIsToldOfIt(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.leave(d.keyed("ignored"), idempotency.Started, time.Minute)
		want(t, d.do(d.async("ignored")), replayed, isUnsure, "")
		d.wantSent(0)

		d.leave(d.honored("honored"), idempotency.Open, time.Minute)
		release := d.upstream.holds()
		call := d.async("honored")
		call.Honored = true
		wantPending(t, d.do(call), executed)
		d.wantRan("honored") // at once: it may have run before
		if !slices.Equal(d.upstream.resumed, []bool{true}) {
			t.Error("it was not resumed")
		}
		release()
		d.told("honored", isKept, "ran under up-honored")
	})
}
