package memory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(_ *testing.T, now func() time.Time) idempotency.Store {
			return New(Options{Now: now})
		},
	})
}

func TestBacklogConformance(t *testing.T) {
	storetest.RunBacklog(t, storetest.Harness{
		Open: func(_ *testing.T, now func() time.Time) idempotency.Store {
			return New(Options{Now: now})
		},
	})
}

var (
	ctx     = context.Background()
	epoch   = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	process = idempotency.NewProcess()
)

const bodySize = 10 << 10

func claim(i int) *idempotency.Record {
	return &idempotency.Record{
		ID:      idempotency.NewID("", "", fmt.Sprint(i)),
		State:   idempotency.Started,
		Owner:   process.NewOwner(),
		Started: epoch,
		Expires: epoch.Add(time.Hour),
	}
}

func finished(rec *idempotency.Record, state idempotency.State) *idempotency.Record {
	f := *rec
	f.State = state
	f.Answer = &idempotency.Answer{Status: 200, Header: idempotency.NewHeader(http.Header{"A": {"b"}}), Body: make([]byte, bodySize)}
	return &f
}

// fill claims and finishes n records in the order of their numbers.
func fill(t *testing.T, s *Store, n int, state idempotency.State) (recs []*idempotency.Record) {
	t.Helper()
	for i := range n {
		rec := claim(i)
		if standing, err := s.Claim(ctx, rec, idempotency.Owner{}); standing != nil || err != nil {
			t.Fatalf("claim %d: %v, %v", i, standing, err)
		}
		if err := s.Finish(ctx, finished(rec, state)); err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	return recs
}

func get(t *testing.T, s *Store, id idempotency.ID) *idempotency.Record {
	t.Helper()
	rec, err := s.Get(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestOldestAnswersAreGivenUpFirst(t *testing.T) {
	s := New(Options{MaxSize: 100 << 10, Now: at(epoch)})
	recs := fill(t, s, 20, idempotency.Done)
	if s.Size() > 100<<10 {
		t.Errorf("the store has %d bytes", s.Size())
	}
	kept := 0
	for i, rec := range recs {
		got := get(t, s, rec.ID)
		if got == nil || got.State != idempotency.Done {
			t.Fatalf("record %d: %v", i, got)
		}
		switch {
		case got.Answer != nil:
			kept++
		case kept > 0:
			t.Errorf("record %d lost its answer, an older one did not", i)
		}
	}
	if kept < 5 || kept > 9 {
		t.Errorf("%d answers are kept", kept)
	}
}

func TestGivingUpAnAnswerDoesNotShowInWhatWasHandedOut(t *testing.T) {
	s := New(Options{Now: at(epoch)})
	rec := fill(t, s, 1, idempotency.Done)[0]
	before := get(t, s, rec.ID)
	s.SetMaxSize(1)
	if before.Answer == nil {
		t.Error("the record that was handed out lost its answer")
	}
	if got := get(t, s, rec.ID); got.Answer != nil || got.State != idempotency.Done {
		t.Errorf("got %+v, want a tombstone", got)
	}
}

func TestClaimsThatDoNotFitAreRefused(t *testing.T) {
	s := New(Options{MaxSize: 100 << 10, Now: at(epoch)})
	n := 0
	for ; n < 1000; n++ {
		_, err := s.Claim(ctx, claim(n), idempotency.Owner{})
		if errors.Is(err, idempotency.ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n == 1000 {
		t.Fatal("no claim was refused")
	}
	if get(t, s, claim(n).ID) != nil {
		t.Error("the claim that was refused is there")
	}
	for i := range n {
		if get(t, s, claim(i).ID) == nil {
			t.Errorf("claim %d is gone", i)
		}
	}
	s.SetMaxSize(200 << 10)
	if _, err := s.Claim(ctx, claim(n), idempotency.Owner{}); err != nil {
		t.Errorf("claiming in a larger store: %v", err)
	}
}

func TestUnknownAndOpenRecordsAreKeptWhole(t *testing.T) {
	for _, state := range []idempotency.State{idempotency.Unknown, idempotency.Open} {
		s := New(Options{Now: at(epoch)})
		recs := fill(t, s, 10, state)
		s.SetMaxSize(1)
		for i, rec := range recs {
			if got := get(t, s, rec.ID); got == nil || got.State != state || got.Answer == nil {
				t.Errorf("record %d: got %+v", i, got)
			}
		}
	}
}

func TestAnAnswerThatNeverFitsBecomesATombstone(t *testing.T) {
	s := New(Options{MaxSize: bodySize / 2, Now: at(epoch)})
	rec := fill(t, s, 1, idempotency.Done)[0]
	if got := get(t, s, rec.ID); got == nil || got.State != idempotency.Done || got.Answer != nil {
		t.Errorf("got %+v, want a tombstone", got)
	}
}

func TestExpiredRecordsMakeRoom(t *testing.T) {
	now := epoch
	s := New(Options{MaxSize: 2 << 20, Now: func() time.Time { return now }})
	for i := range 10_000 {
		rec := claim(i)
		rec.Expires = now.Add(time.Second)
		if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
			t.Fatalf("claim %d: %v", i, err)
		}
		now = now.Add(time.Millisecond)
	}
	if n := len(s.records); n > 1001 {
		t.Errorf("%d records are kept, of which at most 1000 have not expired", n)
	}
}

func TestWhoSetsTheWallClockMakesNothingExpire(t *testing.T) {
	s := New(Options{})
	rec := claim(1)
	rec.Started = time.Now()
	rec.Expires = rec.Started.Add(time.Hour)
	if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
		t.Fatal(err)
	}
	// Equal goes by the monotonic clock alone where both have a reading of it, == by
	// that and the wall clock.
	if got := get(t, s, rec.ID); got.Started != rec.Started.UTC() || got.Expires != rec.Expires.UTC() {
		t.Errorf("got %v to %v, want the clock's readings in %v to %v", got.Started, got.Expires, rec.Started, rec.Expires)
	}
}

func TestAnEmptyStoreHasNoSize(t *testing.T) {
	s := New(Options{Now: at(epoch)})
	for _, rec := range fill(t, s, 10, idempotency.Done) {
		if err := s.Release(ctx, rec.ID, rec.Owner); err != nil {
			t.Fatal(err)
		}
	}
	if s.Size() != 0 || len(s.records) != 0 || len(s.expiry) != 0 || s.finished != (queue{}) || len(s.unsettled) != 0 {
		t.Errorf("something is left: %d bytes", s.Size())
	}
}

// TestSizeIsRealistic compares what is accounted for with what the heap grew.
func TestSizeIsRealistic(t *testing.T) {
	s := New(Options{MaxSize: 1 << 30, Now: at(epoch)})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 20_000 {
		rec := claim(i)
		rec.Key = fmt.Sprintf("key-%032d", i)
		rec.Adoption[0], rec.Adoption[1] = byte(i), byte(i>>8)
		if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
			t.Fatal(err)
		}
		d := *rec
		d.State = idempotency.Done
		d.Journal.Attempts = []idempotency.Attempt{{CorrelationID: fmt.Sprintf("%036d", i)}, {Error: fmt.Sprintf("%020d", i)}}
		d.Journal.Words = []idempotency.Word{{Note: fmt.Sprintf("%040d", i)}}
		d.Answer = &idempotency.Answer{Status: 200, Body: make([]byte, 256), Header: idempotency.NewHeader(http.Header{
			"Content-Type": {"application/json"}, "Inin-Correlation-Id": {fmt.Sprintf("%032d", i)},
		})}
		if err := s.Finish(ctx, &d); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	real := float64(after.HeapAlloc - before.HeapAlloc)
	if ratio := float64(s.Size()) / real; ratio < 0.6 || ratio > 1.6 {
		t.Errorf("%d bytes are accounted for, the heap grew by %.0f", s.Size(), real)
	} else {
		t.Logf("accounted for / heap: %.2f", ratio)
	}
	runtime.KeepAlive(s)
}
