package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// turnWorkers is how many calls of the backlog are under way at a time.
const turnWorkers = 64

func TestCallsOfALaneRunOneAfterTheOtherInTheirOrder(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("a"), d.async("b"), d.async("c"))
		release := d.upstream.holds()
		d.serve()
		settles()
		d.wantRan("a")
		next := d.upstream.holds()
		release()
		settles()
		d.wantRan("a", "b")
		d.handOver(d.async("d"))
		next()
		d.wantRan("a", "b", "c", "d")
		d.wantTickets(0)
	})
}

func TestCallsOfDifferentLanesRunSideBySide(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.serve()
		d.handOver(d.inLane("a1", "a"), d.inLane("a2", "a"), d.inLane("b1", "b"), d.inLane("b2", "b"))
		d.wantRan("a1", "b1")
		release()
		if n := len(d.upstream.sent()); n != 4 {
			t.Errorf("%d were sent", n)
		}
	})
}

func TestTheOldestOfDifferentLanesRunFirstAndNoMoreThanThereAreWorkers(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		var keys []string
		for i := range turnWorkers + 10 {
			key := fmt.Sprintf("%03d", i)
			keys = append(keys, key)
			d.handOver(d.inLane(key, key))
		}
		release := d.upstream.holds()
		d.serve()
		settles()
		sent := d.upstream.sent()
		slices.Sort(sent)
		for i := range sent {
			if sent[i] != "up-"+keys[i] {
				t.Errorf("%s has run", sent[i])
			}
		}
		d.wantSent(turnWorkers)
		release()
		d.wantSent(len(keys))
		d.wantTickets(0)
	})
}

func TestALongLaneDoesNotKeepOthersFromTheirTurn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		const slow = time.Second
		d.upstream.result = func(context.Context, *idempotency.Claim) idempotency.Result {
			time.Sleep(slow)
			return kept("ok")
		}
		for i := range 100 {
			d.handOver(d.inLane(fmt.Sprint("long", i), "long"))
		}
		d.handOver(d.inLane("short", "short"))
		d.serve()
		time.Sleep(2 * slow)
		d.told("short", isKept, "ok")
		time.Sleep(100 * slow)
		d.wantTickets(0)
	})
}

func TestManyTicketsAreReadInPages(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		const n = 2500
		for i := range n {
			d.handOver(d.inLane(fmt.Sprint(i), fmt.Sprint("lane", i%50)))
		}
		d.serve()
		settles()
		d.wantSent(n)
		d.wantTickets(0)
	})
}

func temporary(body string) idempotency.Result {
	r := freed(body)
	r.Temporary = true
	r.Attempts = []idempotency.Attempt{{Status: 429}}
	return r
}

func TestACallThatCannotRunYetIsPutBackAndTriedAgain(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(temporary("not yet"))
		d.handOver(d.async("a"), d.async("b"))
		since := d.record("a").Deferred.Since
		d.serve()
		waits := d.start(d.keyed("a"))
		time.Sleep(time.Second)
		rec := d.wantState("a", idempotency.Queued)
		n := len(rec.Journal.Attempts)
		if n < 2 || rec.Answer != nil || !rec.Finished.IsZero() || !rec.Deferred.Since.Equal(since) {
			t.Errorf("it is kept as %+v", rec)
		}
		if !waits.waiting() {
			t.Errorf("who waits was told %+v, %v", waits.out, waits.err)
		}
		out, err := d.asks("a", 0)
		if err != nil || out.Fate != isPending || len(out.Journal.Attempts) != n {
			t.Errorf("who asks is told %+v, %v", out, err)
		}
		d.upstream.becomes(kept("ran"))
		if out := waits.outcome(); out.Fate != isKept || string(out.Answer.Body) != "ran" {
			t.Errorf("who waits was told %+v", out)
		}
		if sent := d.upstream.sent(); slices.Contains(sent[:len(sent)-2], "up-b") {
			t.Errorf("one came before its turn: %q", sent)
		}
		settles()
		d.told("b", isKept, "ran")
		rec = d.wantState("a", idempotency.Done)
		if len(rec.Journal.Attempts) < n || !rec.Expires.Equal(rec.Finished.Add(retention)) {
			t.Errorf("it is kept until %v after its end, with %d attempts", rec.Expires.Sub(rec.Finished), len(rec.Journal.Attempts))
		}
		d.wantTickets(0)
	})
}

func TestWhatCannotRunYetIsTriedLessAndLessOften(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(temporary("not yet"))
		d.handOver(d.async("k"))
		d.serve()
		time.Sleep(5 * time.Minute)
		if n := len(d.upstream.sent()); n < 10 || n > 20 {
			t.Errorf("it was tried %d times", n)
		}
	})
}

func TestTheRefusalOfACallIsToldToWhoAsksAndItsKeyIsFree(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.upstream.becomes(freed("no"))
		d.handOver(d.async("k"))
		d.serve()
		waits := d.start(d.keyed("k"))
		release()
		want(t, waits.outcome(), shared, isFreed, "no")
		d.wantState("k", idempotency.Released)
		d.told("k", isFreed, "no")
		d.wantTickets(0)
		other := d.keyed("k")
		other.Fingerprint = fp("other")
		want(t, d.do(other), executed, isFreed, "no")
		d.wantSent(2)
	})
}

func TestACallThatWasRefusedCanBeHandedOverAnew(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(freed("no"))
		d.handOver(d.async("k"))
		d.serve()
		d.upstream.becomes(kept("yes"))
		d.handOver(d.async("k"))
		d.told("k", isKept, "yes")
	})
}

func TestACallWhoseOutcomeIsUnknownDoesNotKeepTheNextFromItsTurn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.upstream.becomes(unsure("gone"))
		d.handOver(d.async("a"), d.async("b"))
		d.serve()
		d.wantRan("a", "b")
		d.wantState("a", idempotency.Unknown)
		d.told("a", isUnsure, "gone")
		d.honor(true)
		d.handOver(d.async("c"))
		d.wantState("c", idempotency.Open)
		d.told("c", isUnsure, "gone")
		d.wantTickets(0)
		settles()
		d.wantSent(3)
	})
}

func TestTheAnswerIsKeptAsWasSaidWhenTheCallWasHandedOver(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"))
		time.Sleep(3 * time.Hour)
		d.serve()
		if rec := d.wantState("k", idempotency.Done); rec.Expires.Sub(rec.Finished) != retention {
			t.Errorf("it is kept for %v", rec.Expires.Sub(rec.Finished))
		}
	})
}

func TestACallWaitsWhileNoConfigurationCanSendIt(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.refuse(errDown)
		d.handOver(d.async("k"))
		d.serve()
		time.Sleep(time.Hour)
		d.wantState("k", idempotency.Queued)
		d.refuse(nil)
		time.Sleep(time.Minute)
		d.wantRan("k")
	})
}

func TestACallThatNobodyCouldSendIsGivenUpAfterAWeek(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		d.handOver(d.async("k"), d.async("next"))
		time.Sleep(8*24*time.Hour + time.Minute)
		d.serve()
		settles()
		d.wantSent(0)
		d.wantTickets(0)
	})
}

func TestATurnIsPreparedForWithoutTheCallsDeadline(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		ready := make(chan struct{})
		d.prepare = func(ctx context.Context, _ string) error {
			if _, bounded := ctx.Deadline(); bounded {
				t.Error("it has a deadline")
			}
			<-ready
			return nil
		}
		d.upstream.result = func(ctx context.Context, _ *idempotency.Claim) idempotency.Result {
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != deadline {
				t.Errorf("it has %v left", time.Until(end))
			}
			return kept("ok")
		}
		d.handOver(d.async("k"))
		d.serve()
		time.Sleep(10 * deadline)
		d.wantState("k", idempotency.Queued)
		close(ready)
		synctest.Wait()
		d.told("k", isKept, "ok")
	})
}

func TestWhatFailsBeforeItsTurnIsTriedAgain(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		var failing atomic.Bool
		failing.Store(true)
		d.prepare = func(context.Context, string) error {
			if failing.Load() {
				return errDown
			}
			return nil
		}
		d.handOver(d.async("a"), d.async("b"), d.inLane("c", "other"))
		d.serve()
		settles()
		d.wantSent(0)
		failing.Store(false)
		time.Sleep(time.Minute)
		d.wantSent(3)
	})
}

func TestHowACallHasEndedIsNotedWithHowManyAreThereToBeTold(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		release := d.upstream.holds()
		d.handOver(d.async("a"), d.async("b"))
		d.serve()
		d.start(d.keyed("a"))
		release()
		if want := []string{"a done 1 1", "b done 1 0"}; !slices.Equal(d.ended, want) {
			t.Errorf("%q have ended, want %q", d.ended, want)
		}
	})
}

func TestAnAnswerTooLargeToKeepEndsItsTurn(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		rest := &closable{}
		d.upstream.result = func(_ context.Context, c *idempotency.Claim) idempotency.Result {
			r := kept("begin")
			if c.UpstreamKey() == "up-a" {
				r.Rest = rest
			}
			return r
		}
		d.handOver(d.async("a"), d.async("b"))
		d.serve()
		settles()
		d.wantRan("a", "b")
		if rest.closed() != 1 {
			t.Errorf("what nobody reads was closed %d times", rest.closed())
		}
		if _, err := d.asks("a", 0); !errors.Is(err, idempotency.ErrResultUnavailable) {
			t.Errorf("who asks is told %v", err)
		}
		d.wantTickets(0)
	})
}

type closable struct {
	mu sync.Mutex
	n  int // guarded by mu
}

func (c *closable) Read([]byte) (int, error) { return 0, errDown }

func (c *closable) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return nil
}

func (c *closable) closed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

func TestFaultsOfTheStoreDelayTurnsAndLoseNone(t *testing.T) {
	for _, o := range []op{opGet, opClaim, opFinish, opParts, opTickets, opDequeue} {
		t.Run(string(o), func(t *testing.T) {
			atDesk(t, func(t *testing.T, d *desk) {
				d.handOver(d.async("a"), d.async("b"))
				d.store.fail(o)
				d.serve()
				settles()
				d.handOverBeside(o, "c")
				d.store.mend()
				time.Sleep(time.Minute)
				d.wantRan("a", "b", "c")
				d.told("c", isKept, "ran under up-c")
				d.wantTickets(0)
			})
		})
	}
}

// handOverBeside hands the call of key over where the store does what that takes.
func (d *desk) handOverBeside(failing op, key string) {
	if failing == opGet {
		d.store.mend()
	}
	d.handOver(d.async(key))
}

func TestHowFastTheBacklogIsWorkedThroughIsTold(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		if n, drain := d.gate.Throughput(); n != 0 || drain != 0 {
			t.Errorf("%d a minute, %v", n, drain)
		}
		d.upstream.result = func(context.Context, *idempotency.Claim) idempotency.Result {
			time.Sleep(time.Second)
			return kept("ok")
		}
		for i := range 100 {
			d.handOver(d.async(fmt.Sprint(i)))
		}
		d.serve()
		time.Sleep(40*time.Second + time.Millisecond)
		n, drain := d.gate.Throughput()
		if n < 39 || n > 41 || drain < 59*time.Second || drain > 61*time.Second {
			t.Errorf("%d in 40 s, %v to go", n, drain)
		}
		time.Sleep(2 * time.Minute)
		if n, drain := d.gate.Throughput(); drain != 0 || n > 60 {
			t.Errorf("%d in the last minute, %v to go", n, drain)
		}
	})
}
