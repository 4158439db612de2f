package idempotency_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// rest is the rest of a large answer. It ends when its call's context does.
type rest struct {
	ctx    context.Context
	r      io.Reader
	closed int
}

func (r *rest) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func (r *rest) Close() error {
	r.closed++
	return nil
}

// large makes the upstream answer at greater length than can be kept.
func (w *world) large(fate idempotency.Fate) *rest {
	r := &rest{r: strings.NewReader(" and the rest")}
	w.upstream.mu.Lock()
	defer w.upstream.mu.Unlock()
	w.upstream.result = func(ctx context.Context, _ *idempotency.Claim) idempotency.Result {
		r.ctx = ctx
		return idempotency.Result{Fate: fate, Answer: answer("begin"), Rest: r}
	}
	return r
}

func TestLargeAnswerStreamsToItsCallerAndLeavesATombstone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.large(isKept)
		out := w.do(w.keyed("k"))
		want(t, out, executed, isKept, "begin")
		body, err := io.ReadAll(out.Rest)
		if string(body) != " and the rest" || err != nil {
			t.Errorf("the rest is %q, %v", body, err)
		}
		if r.closed != 0 {
			t.Error("it was closed by someone else")
		}
		if err := out.Rest.Close(); err != nil || r.closed != 1 || r.ctx.Err() == nil {
			t.Errorf("closed %d times, %v; its context: %v", r.closed, err, r.ctx.Err())
		}
		if rec := w.record("k"); rec.State != idempotency.Done || rec.Answer != nil {
			t.Errorf("the record is %+v", rec)
		}
		for range 2 {
			w.doErr(w.keyed("k"), idempotency.ErrResultUnavailable)
			w.restart()
		}
		w.doErr(w.otherRequest("k"), idempotency.ErrKeyReused)
		w.wantSent(1)
	})
}

func TestLargeAnswerGoesToOneCallerOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.large(isKept)
		release := w.upstream.holds()
		var callers []*pending
		for range 5 {
			callers = append(callers, w.start(w.keyed("k")))
		}
		release()
		streams := 0
		for _, c := range callers {
			out, err := c.result()
			switch {
			case err == nil:
				streams++
				_ = out.Rest.Close()
			case !errors.Is(err, idempotency.ErrResultUnavailable):
				t.Errorf("a caller got %v", err)
			}
		}
		if streams != 1 || r.closed != 1 {
			t.Errorf("%d callers got the stream, which was closed %d times", streams, r.closed)
		}
	})
}

func TestLargeAnswerOfUnknownOutcomeIsNotSaidToHaveRun(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.large(isUnsure)
		release := w.upstream.holds()
		callers := []*pending{w.start(w.keyed("k")), w.start(w.keyed("k"))}
		release()
		streams := 0
		for _, c := range callers {
			out := c.outcome()
			if out.Rest != nil {
				streams++
				want(t, out, out.Manner, isUnsure, "begin")
				_ = out.Rest.Close()
			} else {
				want(t, out, out.Manner, isUnsure, "")
			}
		}
		if streams != 1 {
			t.Errorf("%d callers got the stream", streams)
		}
		want(t, w.do(w.keyed("k")), replayed, isUnsure, "")
		w.wantSent(1)
	})
}

func TestLargeAnswerOfACallThatDidNotRunIsNotSaidToHaveRun(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.large(isFreed)
		release := w.upstream.holds()
		callers := []*pending{w.start(w.keyed("k")), w.start(w.keyed("k"))}
		release()
		streams := 0
		for _, c := range callers {
			out, err := c.result()
			switch {
			case err == nil:
				streams++
				want(t, out, out.Manner, isFreed, "begin")
				_ = out.Rest.Close()
			case !errors.Is(err, idempotency.ErrInUse): // which says: try again
				t.Errorf("a caller got %v", err)
			}
		}
		if streams != 1 {
			t.Errorf("%d callers got the stream", streams)
		}
		w.upstream.becomes(kept("small"))
		want(t, w.do(w.keyed("k")), executed, isKept, "small")
	})
}

func TestLargeAnswerThatNobodyWaitsForIsClosed(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.large(isKept)
		release := w.upstream.holds()
		w.start(w.keyed("k")).left()
		release()
		synctest.Wait()
		if r.closed != 1 || r.ctx.Err() == nil {
			t.Errorf("it was closed %d times", r.closed)
		}
		w.doErr(w.keyed("k"), idempotency.ErrResultUnavailable)
		w.wantSent(1)
	})
}

// Whichever comes first, somebody closes it.
func TestLargeAnswerIsClosedThoughItsCallerLeavesAsItArrives(t *testing.T) {
	for range 200 {
		inBubble(t, func(t *testing.T, w *world) {
			r := w.large(isKept)
			release := w.upstream.holds()
			caller := w.start(w.keyed("k"))
			go caller.leave()
			release()
			if out, err := caller.result(); err == nil {
				_ = out.Rest.Close()
			}
			synctest.Wait()
			if r.closed != 1 {
				t.Fatalf("it was closed %d times", r.closed)
			}
		})
	}
}

func TestLargeAnswerThatCannotBeRecordedStillStreamsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		r := w.large(isKept)
		w.store.fail(opFinish)
		out := w.do(w.keyed("k"))
		if out.Rest == nil {
			t.Fatal("there is no stream")
		}
		w.doErr(w.keyed("k"), idempotency.ErrResultUnavailable)
		if r.closed != 0 {
			t.Error("the repeat closed the first caller's stream")
		}
		_ = out.Rest.Close()
		w.store.mend()
		time.Sleep(10 * time.Second)
		w.doErr(w.keyed("k"), idempotency.ErrResultUnavailable)
		w.wantSent(1)
	})
}

func TestLargeAnswerEndsWithTheDeadlineOfItsCall(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.large(isKept)
		out := w.do(w.keyed("k"))
		time.Sleep(deadline)
		synctest.Wait()
		if _, err := io.ReadAll(out.Rest); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reading on: %v", err)
		}
		_ = out.Rest.Close()
	})
}
