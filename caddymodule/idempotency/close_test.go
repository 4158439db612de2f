package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// closing closes the gate in a goroutine of its own.
func (w *world) closing(ctx context.Context) <-chan error {
	closed := make(chan error, 1)
	go func() { closed <- w.gate.Close(ctx) }()
	synctest.Wait()
	return closed
}

func (w *world) wantOpen(closed <-chan error) {
	w.t.Helper()
	time.Sleep(time.Second)
	synctest.Wait()
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if len(closed) != 0 || w.store.closed != 0 {
		w.t.Fatal("the gate does not wait")
	}
}

func TestCloseClosesTheStoreAndRefusesCalls(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.keyed("k"))
		w.do(w.keyed("k"))
		if settled(cache, "k") == nil {
			t.Fatal("the cache does not have the answer")
		}
		if err := w.gate.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if w.store.closed != 1 {
			t.Errorf("the store was closed %d times", w.store.closed)
		}
		if cache.Get(idOf("k"), time.Now()) != nil {
			t.Error("the cache is not closed")
		}
		w.doErr(w.keyed("k"), idempotency.ErrClosed)
		w.doErr(w.keyless("r"), idempotency.ErrClosed)
		w.wantSent(1)
	})
}

func TestCloseWaitsForCallsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		w.start(w.keyed("k")).left() // without a caller, too
		closed := w.closing(context.Background())
		w.wantOpen(closed)

		retry := w.start(w.keyed("k")) // is let in until then
		release()
		want(t, retry.outcome(), shared, isKept, "ran under up-k")
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if rec := w.record("k"); rec.State != idempotency.Done {
			t.Errorf("the record is %+v", rec)
		}
	})
}

func TestCloseWaitsForCallersThatAreNotOnAFlightYet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		asking := make(chan struct{})
		w.store.hookBefore(opUnsettled, func() error { <-asking; return nil })
		caller := w.start(w.keyless("r"))
		closed := w.closing(context.Background())
		w.wantOpen(closed)
		close(asking)
		caller.outcome()
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		if late := w.store.callsAfterClose(); len(late) != 0 {
			t.Errorf("the store was used after its end: %v", late)
		}
	})
}

func TestCloseWaitsForAnAnswerToBeRecordedWithOneLastTry(t *testing.T) {
	for name, mended := range map[string]bool{"that succeeds": true, "that fails": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.store.fail(opFinish)
				w.do(w.keyed("k"))
				time.Sleep(time.Minute)
				tried := w.store.calls(opFinish)

				trying := make(chan struct{})
				w.store.hookBefore(opFinish, func() error {
					<-trying
					if mended {
						return nil
					}
					return errDown
				})
				closed := w.closing(context.Background())
				w.wantOpen(closed)
				close(trying)
				if err := <-closed; err != nil {
					t.Fatal(err)
				}
				if done := w.record("k").State == idempotency.Done; done != mended {
					t.Errorf("recorded: %t", done)
				}
				if n := w.store.calls(opFinish) - tried; n != 1 {
					t.Errorf("it was tried %d times more", n)
				}
			})
		})
	}
}

// Close has begun, so that recording is tried only once more; but calls are
// still let in.
func TestCallThatCloseKeptFromBeingRecordedIsNotSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		other := w.start(w.keyed("other"))
		closed := w.closing(context.Background())
		w.upstream.mu.Lock()
		w.upstream.hold = nil
		w.upstream.mu.Unlock()

		w.store.fail(opFinish)
		w.do(w.keyed("k"))
		time.Sleep(time.Second)
		w.store.mend()
		want(t, w.do(w.keyed("k")), replayed, isUnsure, "")
		w.wantSent(2)
		release()
		other.outcome()
		<-closed
	})
}

func TestCloseGivesUpWithItsContextAndLeavesTheStoreOpen(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		caller := w.start(w.keyed("k"))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		began := time.Now()
		err := w.gate.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if w.store.closed != 0 {
			t.Error("the store was closed")
		}
		release()
		want(t, caller.outcome(), executed, isKept, "ran under up-k")
		if err := w.gate.Close(context.Background()); err != nil { // once more
			t.Errorf("Close: %v", err)
		}
		if w.store.closed != 1 {
			t.Errorf("the store was closed %d times", w.store.closed)
		}
	})
}

func TestStoreIsNotUsedAfterClose(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		out := w.do(w.keyless("r")) // its answer is still being written
		if err := w.gate.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		out.Settle(true)
		if late := w.store.callsAfterClose(); len(late) != 0 {
			t.Errorf("the store was asked for %v", late)
		}
	})
}

type unclosable struct{ *faultyStore }

func (unclosable) Close() error { return errDown }

func TestCloseTellsWhyTheStoreCouldNotBeClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.gate = idempotency.NewGate(unclosable{w.store}, idempotency.Limits{}, nil)
		if err := w.gate.Close(t.Context()); !errors.Is(err, errDown) {
			t.Errorf("Close: %v", err)
		}
	})
}

func TestLogTellsOfTroubleButNotOfKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var log bytes.Buffer
		w.gate = idempotency.NewGate(w.store, idempotency.Limits{}, slog.New(slog.NewTextHandler(&log, nil)))
		call := w.keyed("secret-key")
		of(&call).send = func(context.Context, *idempotency.Claim) idempotency.Result { panic("oops") }
		w.store.fail(opFinish)
		w.do(call)
		time.Sleep(2 * patience)
		synctest.Wait()
		for _, s := range []string{"panicked", "oops", call.ID.String(), "gave up recording"} {
			if !strings.Contains(log.String(), s) {
				t.Errorf("the log does not say %q", s)
			}
		}
		if strings.Contains(log.String(), "secret") {
			t.Errorf("the log tells the key: %s", log.String())
		}
	})
}
