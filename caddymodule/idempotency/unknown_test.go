package idempotency_test

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func TestUnknownOutcomeIsToldTheSameToEachRepeat(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		first := w.do(w.keyed("k"))
		want(t, first, executed, isUnsure, "bad gateway")
		if !first.Stored {
			t.Error("the outcome is not stored")
		}
		if rec := w.record("k"); rec.State != idempotency.Unknown {
			t.Errorf("the record is %v", rec.State)
		}
		w.upstream.becomes(kept("this must not be sent"))
		for range 2 {
			want(t, w.do(w.keyed("k")), replayed, isUnsure, "bad gateway")
			w.restart()
		}
		time.Sleep(retention - time.Nanosecond)
		want(t, w.do(w.keyed("k")), replayed, isUnsure, "bad gateway")
		w.wantSent(1)
	})
}

func TestCallThatACrashLeftBehindIsUnknownAndNeverSentAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		rec := w.leave(w.keyed("k"), idempotency.Started, time.Second)
		for range 2 {
			out := w.do(w.keyed("k"))
			want(t, out, replayed, isUnsure, "")
			if !out.Stored || !out.Expires.Equal(rec.Expires) || out.Key != "k" {
				t.Errorf("the outcome is %+v", out)
			}
			w.restart()
		}
		w.wantSent(0)
	})
}

func TestIgnoredCallIsNotSentAgainThoughItsRepeatSaysHonored(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		// The policy may change between a call and its repeat. What counts is
		// how the call was sent.
		w.leave(w.keyed("started"), idempotency.Started, time.Second)
		w.leave(w.keyed("unknown"), idempotency.Unknown, time.Second)
		want(t, w.do(w.honored("started")), replayed, isUnsure, "")
		want(t, w.do(w.honored("unknown")), replayed, isUnsure, "")
		w.wantSent(0)
	})
}

func TestUnsureHonoredCallIsLeftOpenAndSentAgainUnderItsKey(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		began := time.Now()
		want(t, w.do(w.honored("k")), executed, isUnsure, "bad gateway")
		if rec := w.record("k"); rec.State != idempotency.Open || rec.Answer == nil {
			t.Fatalf("the record is %+v", rec)
		}
		time.Sleep(time.Hour)
		w.upstream.becomes(kept("created"))
		w.restart()
		want(t, w.do(w.honored("k")), executed, isKept, "created")
		want(t, w.do(w.honored("k")), replayed, isKept, "created")
		w.wantSent(2)
		if rec := w.record("k"); !rec.Started.Equal(began) || rec.UpstreamKey != "up-k" {
			t.Errorf("the record is %+v", rec)
		}
	})
}

// An operator who has learned that an upstream does not honor keys after all
// means the calls that are open, too.
func TestOpenCallIsNotSentAgainWhereKeysAreNoLongerHonored(t *testing.T) {
	for _, state := range []idempotency.State{idempotency.Started, idempotency.Open} {
		t.Run(state.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.leave(w.honored("k"), state, time.Hour)
				if out := w.do(w.keyed("k")); out.Manner != idempotency.Replayed || out.Fate != idempotency.Unsure {
					t.Errorf("the outcome is %+v", out)
				}
				w.wantSent(0)
			})
		})
	}
}

func TestHonoredCallThatACrashLeftBehindIsTakenOver(t *testing.T) {
	for _, state := range []idempotency.State{idempotency.Started, idempotency.Open} {
		t.Run(state.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				left := w.honored("k")
				left.UpstreamKey = "the key that was sent"
				rec := w.leave(left, state, time.Hour)

				began := time.Now()
				release := w.upstream.holds()
				caller := w.start(w.honored("k"))
				now := w.record("k")
				if now.State != idempotency.Started || now.Owner == rec.Owner || !now.Honored ||
					now.UpstreamKey != rec.UpstreamKey || !now.Started.Equal(rec.Started) ||
					!now.Expires.Equal(began.Add(deadline+retention)) {
					t.Errorf("it was claimed as %+v", now)
				}
				release()
				want(t, caller.outcome(), executed, isKept, "ran under the key that was sent")
				w.wantSent(1)
				if !w.upstream.resumed[0] {
					t.Error("the claim does not say that the call may have been sent before")
				}
			})
		})
	}
}

func TestOpenCallIsSentAgainOnlyAsLongAsTheUpstreamRemembersItsKey(t *testing.T) {
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		age  time.Duration
		sent int
	}{
		"long before":              {time.Hour, 1},
		"just before":              {day - deadline - time.Nanosecond, 1},
		"too late for its attempt": {day - deadline, 0},
		"after":                    {day, 0},
	} {
		for _, state := range []idempotency.State{idempotency.Started, idempotency.Open} {
			t.Run(name+", "+state.String(), func(t *testing.T) {
				inBubble(t, func(t *testing.T, w *world) {
					w.leave(w.honored("k"), state, c.age)
					out := w.do(w.honored("k"))
					if c.sent == 0 {
						want(t, out, replayed, isUnsure, "")
					}
					w.wantSent(c.sent)
				})
			})
		}
	}
}

func TestTrustCountsFromTheFirstSendNotFromTheLast(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.upstream.becomes(unsure("bad gateway"))
		for range 3 {
			w.do(w.honored("k")) // at 0, 10 and 20 hours
			time.Sleep(10 * time.Hour)
		}
		w.wantSent(3)
		want(t, w.do(w.honored("k")), replayed, isUnsure, "") // not that it may be tried again
		w.wantSent(3)
	})
}
