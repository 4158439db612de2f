package deadline_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/deadline"
)

type key struct{}

// ways are the ways to find out how a context has ended.
var ways = map[string]func(context.Context) error{
	"by Err": context.Context.Err,
	"by Cause of one that is waited for": func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	},
	"by one made of it": func(ctx context.Context) error {
		child, cancel := context.WithCancel(context.WithValue(ctx, key{}, 0))
		defer cancel()
		<-child.Done()
		return child.Err()
	},
	"by AfterFunc": func(ctx context.Context) error {
		ended := make(chan struct{})
		context.AfterFunc(ctx, func() { close(ended) })
		<-ended
		return ctx.Err()
	},
	"by another one made of it": func(ctx context.Context) error {
		child := deadline.New(ctx, time.Hour)
		defer child.Cancel()
		<-child.Done()
		return child.Err()
	},
	"by Err of another one made of it": func(ctx context.Context) error {
		child := deadline.New(ctx, time.Hour)
		defer child.Cancel()
		return child.Err()
	},
}

// wantEnd checks that a context ends as want after end was called with it.
func wantEnd(t *testing.T, end func(*deadline.Context), want error) {
	t.Helper()
	for way, find := range ways {
		for _, waited := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				ctx := deadline.New(t.Context(), time.Minute)
				defer ctx.Cancel()
				if waited {
					ctx.Done()
				}
				if err := ctx.Err(); err != nil || context.Cause(ctx) != nil {
					t.Errorf("it has ended before: %v, because of %v", err, context.Cause(ctx))
				}
				end(ctx)
				synctest.Wait() // a timer may be due in this very moment
				if err := find(ctx); !errors.Is(err, want) {
					t.Errorf("%s (waited for before: %v): got %v, want %v", way, waited, err, want)
				}
				if err, cause := ctx.Err(), context.Cause(ctx); !errors.Is(err, want) || !errors.Is(cause, want) {
					t.Errorf("%s (waited for before: %v): got %v because of %v, want %v", way, waited, err, cause, want)
				}
			})
		}
	}
}

func TestItEndsAtItsDeadline(t *testing.T) {
	wantEnd(t, func(*deadline.Context) { time.Sleep(time.Minute) }, context.DeadlineExceeded)
}

func TestItEndsWhenItIsCanceled(t *testing.T) {
	wantEnd(t, (*deadline.Context).Cancel, context.Canceled)
}

func TestItGoesOnUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := deadline.New(t.Context(), time.Minute)
		defer ctx.Cancel()
		time.Sleep(time.Minute - 1)
		if err := ctx.Err(); err != nil {
			t.Errorf("it has ended too early: %v", err)
		}
		select {
		case <-ctx.Done():
			t.Error("it has ended too early")
		default:
		}
	})
}

func TestItEndsWithItsParentAndForItsReason(t *testing.T) {
	reason := errors.New("reason")
	for _, waited := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithCancelCause(t.Context())
			ctx := deadline.New(parent, time.Minute)
			defer ctx.Cancel()
			if waited {
				ctx.Done()
			}
			cancel(reason)
			if err := ctx.Err(); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want %v", err, context.Canceled)
			}
			if cause := context.Cause(ctx); !errors.Is(cause, reason) {
				t.Errorf("got the cause %v, want %v", cause, reason)
			}
			<-ctx.Done()
		})
	}
}

func TestItsDeadlineIsNoLaterThanItsParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		for timeout, want := range map[time.Duration]time.Duration{time.Second: time.Second, time.Hour: time.Minute} {
			ctx := deadline.New(parent, timeout)
			defer ctx.Cancel()
			if got, ok := ctx.Deadline(); !ok || !got.Equal(began.Add(want)) {
				t.Errorf("with %v: got %v (%v), want %v", timeout, got.Sub(began), ok, want)
			}
		}
	})
}

func TestItHasItsParentsValues(t *testing.T) {
	ctx := deadline.New(context.WithValue(t.Context(), key{}, "value"), time.Minute)
	defer ctx.Cancel()
	before := ctx.Value(key{})
	ctx.Done()
	if after := ctx.Value(key{}); before != "value" || after != "value" {
		t.Errorf("got %v, and once waited for %v", before, after)
	}
}

// One that nobody waits for takes no timer, and no more than itself.
func BenchmarkContext(b *testing.B) {
	parent := context.Background()
	b.Run("deadline", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx := deadline.New(parent, time.Minute)
			_ = ctx.Err()
			ctx.Cancel()
		}
	})
	b.Run("context", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, cancel := context.WithTimeout(parent, time.Minute)
			_ = ctx.Err()
			cancel()
		}
	})
}
