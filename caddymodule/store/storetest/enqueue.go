package storetest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// keepsCall returns a test that a call comes back as it was handed over.
func keepsCall(change func(call *idempotency.Deferred)) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		rec := f.queued("a", "x")
		change(rec.Deferred)
		f.wantStored(f.enqueue(rec))
	}
}

var enqueueTests = []test{
	{"a call that is enqueued is claimed, and has a ticket", func(t *testing.T, f *fixture) {
		rec := f.queued("a", "x")
		rec.Honored, rec.Label, rec.Journal = true, label(), journal(f.epoch)
		kept := f.enqueue(rec)
		f.wantStored(kept)
		f.wantTickets(kept)
		f.wantSame(f.tryClaim(f.started("a"), idempotency.Owner{}), kept)
	}},

	{"a request is kept byte for byte", keepsCall(func(call *idempotency.Deferred) {
		call.Body = make([]byte, 256)
		for i := range call.Body {
			call.Body[i] = byte(i)
		}
		call.URL, call.Method = "/\x00\xff?\n", "\x00"
		call.Lane = idempotency.LaneID{0xff, 0, '/', ':', '{', '}', '*'}
	})},
	{"a large request is kept", keepsCall(func(call *idempotency.Deferred) {
		call.Body = make([]byte, largeBody)
		rand.Read(call.Body)
	})},
	{"a request with nothing in it is kept", keepsCall(func(call *idempotency.Deferred) {
		*call = idempotency.Deferred{Since: call.Since}
	})},
	{"since when a call waits is kept to the nanosecond", keepsCall(func(call *idempotency.Deferred) {
		call.Since = call.Since.Add(987)
	})},

	{"the caller may use its record again", func(t *testing.T, f *fixture) {
		rec := f.queued("a", "x")
		want := *rec
		call := *rec.Deferred
		want.Deferred = &call
		kept := f.enqueue(rec)
		if rec.Deferred.Place != "" || !same(rec, &want) {
			t.Errorf("it has become %v", show(rec))
		}
		*rec = idempotency.Record{State: idempotency.Open, Key: "other"}
		f.wantStored(kept)
	}},

	{"a call without a key is unsettled while it is queued", func(t *testing.T, f *fixture) {
		rec := f.queued("a", "x")
		rec.Adoption = adoption("a")
		kept := f.enqueue(rec)
		f.wantUnsettled(rec.Adoption, kept)
		f.settle(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
		f.wantStored(kept)
		f.wantTickets(kept)
	}},

	{"a record that stands is in the way, and nothing changes", func(t *testing.T, f *fixture) {
		first := f.started("a")
		f.claim(first, idempotency.Owner{})
		for _, standing := range []*idempotency.Record{first, unknown(first), done(first)} {
			f.finish(standing)
			_, got := f.tryEnqueue(f.queued("a", "x"), idempotency.Owner{})
			f.wantSame(got, standing)
			f.wantStored(standing)
			f.wantTickets()
		}
	}},

	{"a queued call is in the way of the same again", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		_, got := f.tryEnqueue(f.queued("a", "y"), idempotency.Owner{})
		f.wantSame(got, kept)
		f.wantStored(kept)
		f.wantTickets(kept)
	}},

	{"enqueuing over the standing token takes over", func(t *testing.T, f *fixture) {
		first := f.started("a")
		f.claim(first, idempotency.Owner{})
		f.finish(unknown(first))
		if _, standing := f.tryEnqueue(f.queued("a", "x"), process.NewOwner()); standing == nil {
			t.Error("it took over with another token")
		}
		f.wantTickets()
		kept, standing := f.tryEnqueue(f.queued("a", "x"), first.Owner)
		if standing != nil {
			t.Fatalf("a record stands in the way: %v", show(standing))
		}
		f.wantStored(kept)
		f.wantTickets(kept)
	}},

	{"enqueuing over a queued call leaves the ticket of the new one", func(t *testing.T, f *fixture) {
		first := f.enqueue(f.queued("a", "x"))
		second, standing := f.tryEnqueue(f.queued("a", "y"), first.Owner)
		if standing != nil {
			t.Fatalf("a record stands in the way: %v", show(standing))
		}
		f.tidy()
		f.wantStored(second)
		f.wantTickets(second)
	}},

	{"of many who enqueue the same at once exactly one does", func(t *testing.T, f *fixture) {
		for round := range 8 {
			var (
				wg    sync.WaitGroup
				start = make(chan struct{})
				recs  [racers]*idempotency.Record
				won   [racers]bool
				errs  [racers]error
			)
			for i := range racers {
				recs[i] = f.queued(fmt.Sprint("a", round), fmt.Sprint("lane", i%5))
				wg.Go(func() {
					<-start
					standing, err := f.backlog().Enqueue(f.ctx, recs[i], idempotency.Owner{}, idempotency.Bounds{})
					won[i], errs[i] = standing == nil && err == nil, err
				})
			}
			close(start)
			wg.Wait()
			var winners []*idempotency.Record
			for i := range racers {
				if errs[i] != nil {
					t.Fatalf("enqueuing: %v", errs[i])
				}
				if won[i] {
					winners = append(winners, recs[i])
				}
			}
			if len(winners) != 1 {
				t.Fatalf("%d were enqueued, want 1", len(winners))
			}
			kept := f.kept(winners[0])
			f.wantStored(kept)
			f.tidy()
			f.wantTickets(kept)
			f.release(kept.ID, kept.Owner)
		}
	}},
}

var boundsTests = []test{
	{"no more calls are taken than there may be", func(t *testing.T, f *fixture) {
		bounds := idempotency.Bounds{Calls: 3}
		kept := f.enqueueMany(3, 2)
		late := f.queued("late", "x")
		f.wantFull(late, bounds)
		f.wantAbsent(late.ID)
		f.wantTickets(kept...)

		f.dequeue(kept[1].Deferred.Place)
		if standing, err := f.backlog().Enqueue(f.ctx, late, idempotency.Owner{}, bounds); standing != nil || err != nil {
			t.Fatalf("there is room, and it is not enqueued: %v, %v", show(standing), err)
		}
		f.wantTickets(kept[0], kept[2], f.kept(late))
	}},

	{"no more bytes are taken than there may be", func(t *testing.T, f *fixture) {
		first, second := f.queued("a", "x"), f.queued("b", "x")
		fit := first.Deferred.Size() + second.Deferred.Size()
		kept := f.enqueue(first)
		f.wantFull(second, idempotency.Bounds{Bytes: fit - 1})
		f.wantAbsent(second.ID)
		f.wantTickets(kept)
		if standing, err := f.backlog().Enqueue(f.ctx, second, idempotency.Owner{}, idempotency.Bounds{Bytes: fit}); standing != nil || err != nil {
			t.Fatalf("it fits, and is not enqueued: %v, %v", show(standing), err)
		}
		f.wantTickets(kept, f.kept(second))
	}},

	{"what is refused for want of room leaves what it would have taken over", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		first := f.started("b")
		f.claim(first, idempotency.Owner{})
		_, err := f.backlog().Enqueue(f.ctx, f.queued("b", "x"), first.Owner, idempotency.Bounds{Calls: 1})
		if !errors.Is(err, idempotency.ErrBacklogFull) {
			t.Errorf("got the error %v, want %q", err, idempotency.ErrBacklogFull)
		}
		f.wantStored(first)
		f.wantTickets(kept)
	}},

	{"bounds hold when many enqueue at once", func(t *testing.T, f *fixture) {
		const most = 10
		made := f.enqueueAtOnce(racers, idempotency.Bounds{Calls: most})
		if len(made) != most {
			t.Errorf("%d were enqueued, want %d", len(made), most)
		}
		depth := idempotency.Depth{Calls: len(made)}
		for _, rec := range made {
			depth.Bytes += rec.Deferred.Size()
			depth.Oldest = rec.Deferred.Since.Truncate(time.Millisecond) // all have the same
		}
		f.wantDepth(depth)
	}},
}

// wantFull fails the test unless there is no room for rec within bounds.
func (f *fixture) wantFull(rec *idempotency.Record, bounds idempotency.Bounds) {
	f.t.Helper()
	standing, err := f.backlog().Enqueue(f.ctx, rec, idempotency.Owner{}, bounds)
	if standing != nil || !errors.Is(err, idempotency.ErrBacklogFull) {
		f.errorf("got %v and the error %v, want %q", show(standing), err, idempotency.ErrBacklogFull)
	}
}
