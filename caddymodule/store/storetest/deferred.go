package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var courseTests = []test{
	{"a call that is started keeps its request and its ticket", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 1)
		started := f.start(kept[1])
		f.wantStored(started)
		f.wantTickets(kept[0], started, kept[2])
		f.wantNotOwner(f.Finish(f.ctx, putBack(kept[1])))
	}},

	{"a call whose caller knows where to ask stays settled when it is started", func(t *testing.T, f *fixture) {
		a := adoption("asked")
		rec := f.queued("call", "lane")
		rec.Adoption = a
		kept := f.enqueue(rec)
		f.wantUnsettled(a, kept)
		f.settle(kept.ID, kept.Owner)
		started := f.start(kept)
		f.wantUnsettled(a)
		f.finish(putBack(started))
		f.wantUnsettled(a)
		again := f.start(putBack(started))
		f.finish(ended(again))
		f.wantUnsettled(a)
	}},

	{"a call whose caller was not told where to ask stays unsettled when it is started", func(t *testing.T, f *fixture) {
		a := adoption("not told")
		rec := f.queued("call", "lane")
		rec.Adoption = a
		started := f.start(f.enqueue(rec))
		f.wantUnsettled(a, started)
		f.finish(ended(started))
		f.wantUnsettled(a, ended(started))
		f.settle(started.ID, started.Owner)
		f.wantUnsettled(a)
	}},

	{"a call that is cancelled by a claim is not started by who had read it before", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("call", "lane"))
		end := *kept
		end.State, end.Owner, end.Deferred = idempotency.Released, process.NewOwner(), nil
		f.claim(&end, kept.Owner)
		next := *kept
		next.State, next.Owner = idempotency.Started, process.NewOwner()
		if standing := f.tryClaim(&next, kept.Owner); standing == nil {
			t.Error("it was started")
		}
		f.wantStored(&end)
	}},

	{"a call that is put back has its place again", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 1)
		for range 3 {
			kept[0] = f.start(kept[0])
			back := putBack(kept[0])
			back.Journal = journal(f.epoch)
			f.finish(back)
			f.wantStored(back)
			f.wantTickets(back, kept[1], kept[2])
			kept[0] = back
		}
	}},

	{"a call that has ended has its answer in place of its request", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 1)
		end := ended(f.start(kept[0]))
		f.finish(end)
		f.wantStored(end)
		f.dequeue(kept[0].Deferred.Place)
		f.wantTickets(kept[1], kept[2])
		f.dequeue(kept[0].Deferred.Place)
		f.wantTickets(kept[1], kept[2])
	}},

	{"a call that came to nothing is free of its ticket", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(2, 1)
		gone := inState(kept[0], idempotency.Released)
		gone.Deferred = nil
		f.finish(gone)
		f.wantStored(gone)
		f.tidy()
		f.wantTickets(kept[1])
	}},

	{"a call that is cancelled is gone, and its ticket with it", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 2)
		f.release(kept[1].ID, kept[1].Owner)
		f.wantAbsent(kept[1].ID)
		f.wantTickets(kept[0], kept[2])
		f.dequeue(kept[1].Deferred.Place)
		f.wantTickets(kept[0], kept[2])
		again := f.enqueue(f.queued(kept[1].Key, "x"))
		f.wantTickets(kept[0], kept[2], again)
	}},

	{"who does not own a queued call changes nothing about it", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		for _, token := range []idempotency.Owner{{}, process.NewOwner()} {
			other := ended(kept)
			other.Owner = token
			f.wantNotOwner(f.Finish(f.ctx, other))
			f.wantNotOwner(f.Release(f.ctx, kept.ID, token))
		}
		f.wantStored(kept)
		f.wantTickets(kept)
	}},

	{"who queued a call cannot put it back once it has been started", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		end := ended(f.start(kept))
		f.finish(end)
		f.wantNotOwner(f.Finish(f.ctx, kept))
		f.wantStored(end)
	}},

	{"telling leaves request and ticket as they are", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		want := *kept
		want.Told = f.epoch.Add(time.Minute)
		f.tell(kept.ID, kept.Owner, want.Told)
		f.wantStored(&want)
		f.wantTickets(&want)
	}},

	{"a request that was handed out does not change", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.queued("a", "x"))
		before := f.get(kept.ID)
		f.finish(ended(f.start(kept)))
		f.wantSame(before, kept)
	}},

	{"a claim that is no handing over has no ticket", func(t *testing.T, f *fixture) {
		f.claim(f.started("a"), idempotency.Owner{})
		f.wantTickets()
	}},
}

var listDeferredTests = []test{
	{"queued calls are listed and counted until they are started", func(t *testing.T, f *fixture) {
		f.lister()
		var want []*idempotency.Record
		for i := range 5 {
			rec := f.queued(fmt.Sprint(i), "x")
			rec.Started = f.epoch.Add(-time.Duration(i) * time.Second)
			want = append(want, f.enqueue(rec))
		}
		waiting := idempotency.Query{States: []idempotency.State{idempotency.Queued}}
		f.wantListed(waiting, want...)
		f.wantListed(idempotency.Query{}, want...)
		f.wantTally(map[idempotency.State]int{idempotency.Queued: 5})

		started := *want[0]
		started.State, started.Owner = idempotency.Started, process.NewOwner()
		f.claim(&started, want[0].Owner)
		f.wantListed(waiting, want[1:]...)
		f.wantTally(map[idempotency.State]int{idempotency.Queued: 4, idempotency.Started: 1})

		f.finish(putBack(&started))
		f.wantListed(waiting, append([]*idempotency.Record{putBack(&started)}, want[1:]...)...)
		f.finish(ended(&started))
		f.release(want[1].ID, want[1].Owner)
		f.wantListed(waiting, want[2:]...)
		f.wantTally(map[idempotency.State]int{idempotency.Queued: 3})
		f.wantListed(idempotency.Query{States: []idempotency.State{idempotency.Done}}, ended(&started))
	}},
}

// mortalQueued is queued, and expires so that the test can wait for it.
func (f *fixture) mortalQueued(name string) *idempotency.Record {
	rec := f.queued(name, "x")
	rec.Expires = f.time().Add(f.life)
	return rec
}

var deferredExpiryTests = []test{
	{"a queued call expires, and its ticket can be dequeued", func(t *testing.T, f *fixture) {
		kept := f.enqueue(f.mortalQueued("a"))
		f.setTimeBefore(kept.Expires)
		f.wantStored(kept)
		f.wantTickets(kept)
		f.setTime(kept.Expires)
		f.wantAbsent(kept.ID)
		f.tidy()
		f.wantTickets()
	}},

	{"what has expired can be handed over again, behind the others", func(t *testing.T, f *fixture) {
		first := f.enqueue(f.mortalQueued("a"))
		other := f.queued("b", "x")
		other.Expires = first.Expires.Add(time.Hour)
		other = f.enqueue(other)
		f.setTime(first.Expires)
		rec := f.queued("a", "x")
		rec.Expires = first.Expires.Add(time.Hour)
		second := f.enqueue(rec)
		f.tidy()
		f.wantStored(second)
		f.wantTickets(other, second)
	}},
}

var noticeTests = []test{
	{"it is told when a ticket has been added, and to which part", func(t *testing.T, f *fixture) {
		told := make(chan idempotency.Part, 1024)
		f.backlog().OnEnqueue(func(part idempotency.Part) {
			select {
			case told <- part:
			default:
			}
		})
		deadline := time.After(patience)
		for i := range 5 {
			kept := f.enqueue(f.queued(fmt.Sprint(i), fmt.Sprint("lane ", i)))
			for found := false; !found; {
				select {
				case part := <-told:
					for _, ticket := range f.pages(part, "", pageOfTickets) {
						found = found || ticket.Place == kept.Deferred.Place
					}
				case <-deadline:
					t.Fatalf("no word of it after %v", patience)
				}
			}
		}
	}},
}

var backlogContextTests = []test{
	{"a cancelled context changes nothing", func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx)
		cancel()
		kept, absent := f.enqueue(f.queued("a", "x")), f.queued("b", "x")
		b := f.backlog()
		part := f.parts()[0]

		_, enqueueErr := b.Enqueue(ctx, absent, idempotency.Owner{}, idempotency.Bounds{})
		_, overErr := b.Enqueue(ctx, f.queued("a", "x"), kept.Owner, idempotency.Bounds{})
		_, _, partsErr := b.Parts(ctx)
		_, ticketsErr := b.Tickets(ctx, part, "", 1)
		_, depthErr := b.Depth(ctx)
		for method, err := range map[string]error{
			"Enqueue":   enqueueErr,
			"take-over": overErr,
			"Parts":     partsErr,
			"Tickets":   ticketsErr,
			"Dequeue":   b.Dequeue(ctx, kept.Deferred.Place),
			"Depth":     depthErr,
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got the error %v, want %q", method, err, context.Canceled)
			}
		}
		f.wantStored(kept)
		f.wantAbsent(absent.ID)
		f.wantTickets(kept)
	}},
}
