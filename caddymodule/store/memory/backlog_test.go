package memory

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// queued returns a call that was handed over for later.
func queued(i int) *idempotency.Record {
	rec := claim(i)
	rec.State = idempotency.Queued
	rec.Deferred = &idempotency.Deferred{Since: epoch, Method: "POST", URL: "/x", Body: make([]byte, bodySize)}
	return rec
}

func TestQueuedCallsAreNotGivenUpToMakeRoom(t *testing.T) {
	const maxSize = 40 * bodySize
	s := New(Options{MaxSize: maxSize, Now: func() time.Time { return epoch }})
	first := claim(0)
	if _, err := s.Claim(ctx, first, idempotency.Owner{}); err != nil {
		t.Fatal(err)
	}
	done := *first
	done.State, done.Answer = idempotency.Done, &idempotency.Answer{Status: 200, Body: make([]byte, bodySize)}
	if err := s.Finish(ctx, &done); err != nil {
		t.Fatal(err)
	}
	var n int
	for n = 1; ; n++ {
		standing, err := s.Enqueue(ctx, queued(n), idempotency.Owner{}, idempotency.Bounds{})
		if standing != nil {
			t.Fatalf("%v stands in the way", standing)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, idempotency.ErrFull) || errors.Is(err, idempotency.ErrBacklogFull) {
			t.Fatalf("got the error %v, want %q", err, idempotency.ErrFull)
		}
		break
	}
	if size := s.Size(); size > maxSize || n < 30 || (n-1)*bodySize > maxSize {
		t.Errorf("%d calls take %d bytes, of %d", n-1, size, maxSize)
	}
	if rec, err := s.Get(ctx, first.ID); err != nil || rec == nil || rec.Answer != nil {
		t.Errorf("the answer that could be given up is still there: %v, %v", rec, err)
	}
	for i := 1; i < n; i++ {
		if rec, err := s.Get(ctx, queued(i).ID); err != nil || rec == nil || len(rec.Deferred.Body) != bodySize {
			t.Errorf("call %d is %+v, %v", i, rec, err)
		}
	}
	if depth, err := s.Depth(ctx); err != nil || depth.Calls != n-1 {
		t.Errorf("got %+v, %v, want %d calls", depth, err, n-1)
	}
}

func TestTheTicketsOfCallsThatHaveExpiredGoWithThem(t *testing.T) {
	now := epoch
	s := New(Options{Now: func() time.Time { return now }})
	for i := range 3 * reclaimBatch {
		if _, err := s.Enqueue(ctx, queued(i), idempotency.Owner{}, idempotency.Bounds{}); err != nil {
			t.Fatal(err)
		}
	}
	now = now.Add(time.Hour)
	for i := range 4 {
		rec := claim(1000 + i)
		rec.Expires = now.Add(time.Hour)
		if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
			t.Fatal(fmt.Errorf("claiming: %w", err))
		}
	}
	if depth, err := s.Depth(ctx); err != nil || depth != (idempotency.Depth{}) {
		t.Errorf("got %+v, %v, want nothing", depth, err)
	}
}
