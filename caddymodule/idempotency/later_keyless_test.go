package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// asyncKeyless returns a call without a key that is handed over.
func (d *desk) asyncKeyless(request string) idempotency.Call {
	call := d.keyless(request)
	call.Label = caller
	call.Later = &idempotency.Deferred{Method: "POST", URL: "/" + request, Lane: idempotency.LaneID{1}}
	return call
}

func TestAKeylessCallThatWasNotedIsNotTakenForItsRepeat(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		keys := map[string]bool{}
		noted := func() {
			t.Helper()
			out := d.do(d.asyncKeyless("r"))
			wantPending(t, out, executed)
			if out.Adopted || keys[out.Key] {
				t.Errorf("outcome: %+v", out)
			}
			keys[out.Key] = true
			out.Settle(true)
		}
		noted()
		noted() // while the first waits
		release := d.upstream.holds()
		d.serve()
		noted() // while it runs
		release()
		noted() // after all have
		d.do(d.keyless("r")).Settle(true)
		settles()
		d.wantSent(5)
		d.wantTickets(0)
	})
}

// lost hands a keyless call over to somebody who does not learn of it.
func (d *desk) lost(request string) *idempotency.Outcome {
	d.t.Helper()
	out := d.do(d.asyncKeyless(request))
	wantPending(d.t, out, executed)
	out.Settle(false)
	return out
}

func TestAKeylessCallThatNobodyWasToldOfIsAdoptedWhileItWaits(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.lost("r")
		second := d.do(d.asyncKeyless("r"))
		wantPending(t, second, replayed)
		if second.Key != first.Key || !second.Adopted {
			t.Errorf("told %+v", second)
		}
		d.wantTickets(1)
		second.Settle(true)
		if third := d.do(d.asyncKeyless("r")); third.Key == first.Key {
			t.Error("it was adopted once more")
		}
	})
}

func TestAKeylessCallThatNobodyWasToldOfIsAdoptedByWhoWaitsForItsAnswer(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.lost("r")
		adopter := d.start(d.keyless("r"))
		time.Sleep(time.Minute) // longer than a duplicate waits
		if !adopter.waiting() {
			t.Fatalf("it was told %+v, %v", adopter.out, adopter.err)
		}
		d.serve()
		out := adopter.outcome()
		if out.Fate != isKept || out.Key != first.Key || !out.Adopted {
			t.Errorf("told %+v", out)
		}
		d.wantSent(1)
	})
}

func TestAKeylessCallThatNobodyWasToldOfIsAdoptedWhileItRuns(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.lost("r")
		release := d.upstream.holds()
		d.serve()
		second := d.do(d.asyncKeyless("r"))
		wantPending(t, second, shared)
		if second.Key != first.Key {
			t.Errorf("told %+v", second)
		}
		second.Settle(false)
		third := d.start(d.keyless("r"))
		release()
		if out := third.outcome(); out.Fate != isKept || out.Key != first.Key {
			t.Errorf("told %+v", out)
		}
		d.wantSent(1)
	})
}

func TestAKeylessCallThatNobodyWasToldOfIsAdoptedAfterItHasEnded(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.lost("r")
		d.serve()
		time.Sleep(window / 2)
		second := d.do(d.asyncKeyless("r"))
		if second.Fate != isKept || second.Key != first.Key || !second.Adopted {
			t.Errorf("told %+v", second)
		}
		second.Settle(true)
		d.wantSent(1)
		d.do(d.asyncKeyless("r")).Settle(true)
		d.wantSent(2)
	})
}

func TestAKeylessCallIsNotedThoughItsTurnComesMeanwhile(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		out := d.do(d.asyncKeyless("r"))
		release := d.upstream.holds()
		turns := 0
		d.store.hookBefore(opSettle, func() error {
			if turns++; turns == 1 {
				d.serve() // it is claimed anew
			}
			return nil
		})
		settled := make(chan struct{})
		go func() { defer close(settled); out.Settle(true) }()
		<-settled
		if turns < 2 {
			t.Errorf("it was noted %d times", turns)
		}
		release()
		if next := d.do(d.asyncKeyless("r")); next.Key == out.Key {
			t.Error("it was adopted")
		}
	})
}

func TestAKeylessCallWhoseNoteTheStoreDoesNotTakeIsNotAdopted(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		out := d.do(d.asyncKeyless("r"))
		d.store.fail(opSettle)
		out.Settle(true)
		if next := d.do(d.asyncKeyless("r")); next.Key == out.Key {
			t.Error("it was adopted")
		}
		d.store.mend()
		settles()
		d.open() // whoever comes later knows it from the store
		if next := d.do(d.asyncKeyless("r")); next.Key == out.Key {
			t.Error("it was adopted after a restart")
		}
	})
}

func TestAKeylessCallThatIsWaitedForIsNotAdopted(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.do(d.asyncKeyless("r"))
		ended := make(chan *idempotency.Outcome, 1)
		go func() {
			out, err := d.gate.AwaitEnd(t.Context(), first, caller, time.Minute)
			if err != nil {
				t.Error(err)
			}
			ended <- out
		}()
		synctest.Wait()
		second := d.do(d.asyncKeyless("r"))
		if second.Key == first.Key {
			t.Fatal("it was adopted")
		}
		d.serve()
		(<-ended).Settle(true)
		second.Settle(true)
		d.wantSent(2)
		if third := d.do(d.asyncKeyless("r")); third.Key == first.Key {
			t.Error("it was adopted")
		}
	})
}

func TestAKeylessCallThatIsUnknownIsToldSoAgain(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(unsure("gone"))
		d.serve()
		first := d.do(d.asyncKeyless("r"))
		end, err := d.gate.AwaitEnd(t.Context(), first, caller, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		want(t, end, executed, isUnsure, "gone")
		end.Settle(true)
		again := d.do(d.keyless("r"))
		if again.Fate != isUnsure || again.Key != first.Key {
			t.Errorf("told %+v", again)
		}
		d.wantSent(1)
	})
}

func TestAKeylessCallThatWasCancelledIsNotAdopted(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		first := d.lost("r")
		if err := d.gate.Cancel(t.Context(), first.ID, caller); err != nil {
			t.Fatal(err)
		}
		if next := d.do(d.asyncKeyless("r")); next.Key == first.Key {
			t.Error("it was adopted")
		}
	})
}

// Its repeat came, and was told where to ask, while nobody had noticed that the
// first caller was gone.
func TestAKeylessCallIsNotHandedOverForACallerWhoIsGoneUnnoticed(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		gone := d.asyncKeyless("r")
		gone.Present = func() bool { return false }
		if out, err := d.gate.Do(t.Context(), gone); out != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("it got %+v, %v", out, err)
		}
		d.wantTickets(0)
		repeat := d.do(d.asyncKeyless("r"))
		wantPending(t, repeat, executed)
		repeat.Settle(true)
		if out, err := d.gate.Do(t.Context(), gone); out != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("the one that comes late got %+v, %v", out, err)
		}
		d.wantTickets(1)
	})
}
