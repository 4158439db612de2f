package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestDuplicateIsToldInUseAfterItsWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first, second := w.start(w.keyed("k")), w.start(w.keyed("k"))
		if _, err := second.result(); !errors.Is(err, idempotency.ErrInUse) || second.took != wait {
			t.Errorf("after %v: %v", second.took, err)
		}
		if !first.waiting() {
			t.Error("the first caller waits no longer than a duplicate")
		}
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
	})
}

func TestDuplicateIsToldTheAnswerThatComesWithinItsWait(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		first, second := w.start(w.keyed("k")), w.start(w.keyed("k"))
		time.Sleep(wait - time.Nanosecond)
		release()
		want(t, second.outcome(), shared, isKept, "ran under up-k")
		first.outcome()
	})
}

func TestWaitCountsFromTheDuplicatesStart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { time.Sleep(wait / 2); return nil } // a slow token
		first, second := w.start(call), w.start(w.keyed("k"))
		if _, err := second.result(); !errors.Is(err, idempotency.ErrInUse) || second.took != wait {
			t.Errorf("after %v: %v", second.took, err)
		}
		release()
		first.outcome()
	})
}

func TestWaitEndsThoughTheFirstCallIsNotEvenClaimed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		of(&call).prepare = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		first, second, other := w.start(call), w.start(w.keyed("k")), w.start(w.otherRequest("k"))
		if _, err := second.result(); !errors.Is(err, idempotency.ErrInUse) || second.took != wait {
			t.Errorf("the duplicate, after %v: %v", second.took, err)
		}
		if _, err := other.result(); !errors.Is(err, idempotency.ErrInUse) || other.took != wait {
			t.Errorf("the other request, after %v: %v", other.took, err)
		}
		if _, err := first.result(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the first: %v", err)
		}
	})
}

func TestWithoutWaitADuplicateIsToldInUseThoughTheFirstCallIsNotEvenClaimed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		call := w.keyed("k")
		of(&call).prepare = func(context.Context) error { time.Sleep(wait); return nil } // a slow token
		first := w.start(call)
		for _, impatient := range []idempotency.Call{w.keyed("k"), w.otherRequest("k")} {
			impatient.Wait = 0
			p := w.start(impatient)
			if _, err := p.result(); !errors.Is(err, idempotency.ErrInUse) || p.took != 0 {
				t.Errorf("after %v: %v", p.took, err)
			}
		}
		want(t, first.outcome(), executed, isKept, "ran under up-k")
	})
}

func TestWithoutWaitADuplicateIsToldInUseAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		release := w.upstream.holds()
		impatient := w.keyed("k")
		impatient.Wait = 0
		first, second := w.start(impatient), w.start(impatient)
		if second.waiting() {
			t.Fatal("it waits")
		}
		if _, err := second.result(); !errors.Is(err, idempotency.ErrInUse) || second.took != 0 {
			t.Errorf("after %v: %v", second.took, err)
		}
		if !first.waiting() {
			t.Fatal("the first caller does not wait for its own call")
		}
		release()
		want(t, first.outcome(), executed, isKept, "ran under up-k")
	})
}

func TestWithoutWaitAFinishedCallIsStillReplayed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("k"))
		w.restart()
		impatient := w.keyed("k")
		impatient.Wait = 0
		resolving := make(chan struct{})
		w.store.hookBefore(opGet, func() error { <-resolving; return nil })
		first, second := w.start(impatient), w.start(impatient)
		close(resolving)
		synctest.Wait()
		for _, caller := range []*pending{first, second} {
			if out := caller.outcome(); out.Manner != replayed {
				t.Errorf("the outcome is %+v", out)
			}
		}
		w.wantSent(1)
	})
}
