package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var orderTests = []test{
	{"tickets come in the order in which calls were handed over", func(t *testing.T, f *fixture) {
		f.wantTickets(f.enqueueMany(200, 17)...)
	}},

	{"a lane keeps its order when many enqueue at once", func(t *testing.T, f *fixture) {
		const lanes, calls = 8, 25
		var wg sync.WaitGroup
		for l := range lanes {
			wg.Go(func() {
				for i := range calls {
					rec := f.queued(fmt.Sprintf("%d/%02d", l, i), fmt.Sprint("lane ", l))
					if standing, err := f.backlog().Enqueue(f.ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
						t.Errorf("enqueuing: %v, %v", show(standing), err)
					}
				}
			})
		}
		wg.Wait()
		next := make(map[idempotency.LaneID]int)
		for _, tickets := range f.tickets() {
			for _, ticket := range tickets {
				n := next[ticket.Lane]
				next[ticket.Lane]++
				rec := f.get(ticket.ID)
				if want := fmt.Sprintf("/%02d", n); rec == nil || rec.Key[1:] != want {
					t.Fatalf("call %d of a lane is %v", n, show(rec))
				}
			}
		}
		for l := range lanes {
			if n := next[lane(fmt.Sprint("lane ", l))]; n != calls {
				t.Errorf("lane %d has %d tickets, want %d", l, n, calls)
			}
		}
	}},

	{"tickets are read in pages of any size", func(t *testing.T, f *fixture) {
		f.enqueueMany(23, 5)
		for part, want := range f.tickets() {
			for _, limit := range []int{1, 2, 7, 22, 23, 24} {
				if got := f.pages(part, "", limit); !slices.EqualFunc(got, want, sameTicket) {
					t.Errorf("in pages of %d there are %+v, want %+v", limit, got, want)
				}
			}
			for i, ticket := range want {
				if got := f.pages(part, ticket.Place, pageOfTickets); !slices.EqualFunc(got, want[i+1:], sameTicket) {
					t.Errorf("after ticket %d there are %+v, want %+v", i, got, want[i+1:])
				}
			}
		}
	}},

	{"a place can be read on from when its ticket is gone", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(9, 1)
		for part, all := range f.tickets() {
			f.dequeue(kept[3].Deferred.Place)
			f.dequeue(kept[4].Deferred.Place)
			if got := f.pages(part, kept[3].Deferred.Place, 2); !slices.EqualFunc(got, all[5:], sameTicket) {
				t.Errorf("there are %+v, want %+v", got, all[5:])
			}
		}
	}},

	{"who reads on from the last place misses none", func(t *testing.T, f *fixture) {
		const calls = 400
		enqueued := make(chan struct{})
		go func() {
			defer close(enqueued)
			f.enqueueAtOnce(calls, idempotency.Bounds{})
		}()
		last := make(map[idempotency.Part]idempotency.Place)
		seen, parts := 0, f.parts()
		for over := false; ; {
			found := 0
			for _, part := range parts {
				for _, ticket := range f.pages(part, last[part], 10) {
					last[part] = ticket.Place
					found++
				}
			}
			if seen += found; over {
				break
			}
			select {
			case <-enqueued:
				over = true // one more look
			default:
			}
		}
		if seen != calls {
			t.Errorf("it saw %d tickets, want %d", seen, calls)
		}
	}},
}

func sameTicket(a, b idempotency.Ticket) bool {
	same := a.Since.Equal(b.Since)
	a.Since, b.Since = time.Time{}, time.Time{}
	return same && a == b
}

var dequeueTests = []test{
	{"an empty backlog has no depth", func(t *testing.T, f *fixture) {
		f.wantTickets()
	}},

	{"what is dequeued is gone, and its record and the other tickets stay", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(5, 2)
		f.dequeue(kept[2].Deferred.Place)
		f.wantTickets(kept[0], kept[1], kept[3], kept[4])
		f.wantStored(kept[2])
	}},

	{"dequeuing again does nothing", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 1)
		for range 3 {
			f.dequeue(kept[1].Deferred.Place)
			f.wantTickets(kept[0], kept[2])
		}
	}},

	{"of many who dequeue a ticket it is counted once", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(3, 1)
		var wg sync.WaitGroup
		for range racers {
			wg.Go(func() {
				if err := f.backlog().Dequeue(f.ctx, kept[0].Deferred.Place); err != nil {
					t.Errorf("dequeuing: %v", err)
				}
			})
		}
		wg.Wait()
		f.wantTickets(kept[1], kept[2])
	}},

	{"the oldest is the one that is there the longest", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(4, 3)
		for i := range kept {
			f.wantTickets(kept[i:]...)
			f.dequeue(kept[i].Deferred.Place)
		}
		f.wantTickets()
	}},
}

var partsTests = []test{
	{"a process that is alone works on all parts each time", func(t *testing.T, f *fixture) {
		parts := f.parts()
		f.enqueueMany(40, 40)
		for range 3 {
			if got := f.parts(); !slices.Equal(got, parts) {
				t.Errorf("got the parts %q, want %q", got, parts)
			}
		}
		if len(slices.Compact(slices.Clone(parts))) != len(parts) {
			t.Errorf("some parts are the same: %q", parts)
		}
	}},
}
