package storetest

import (
	"bytes"
	"fmt"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var backlogReopenTests = []test{
	{"reopening keeps calls, their order and how many there are", func(t *testing.T, f *fixture) {
		kept := f.enqueueMany(60, 7)
		f.dequeue(kept[4].Deferred.Place) // which need not be durable yet
		f.release(kept[9].ID, kept[9].Owner)
		started := f.start(kept[20])
		back := putBack(f.start(kept[30]))
		f.finish(back)
		end := ended(f.start(kept[40]))
		f.finish(end)

		for round := range 3 {
			f.reopen()
			f.wantStored(started)
			f.wantStored(back)
			f.wantStored(end)
			f.wantAbsent(kept[9].ID)
			f.dequeue(kept[4].Deferred.Place)
			f.tidy()
			var want []*idempotency.Record
			for i, rec := range kept {
				switch i {
				case 4, 9, 40:
				case 20:
					want = append(want, started)
				case 30:
					want = append(want, back)
				default:
					f.wantStored(rec)
					want = append(want, rec)
				}
			}
			f.wantTickets(want...)
			more := f.queued(fmt.Sprint("more ", round), "lane 3")
			kept = append(kept, f.enqueue(more))
			f.wantTickets(append(want, kept[len(kept)-1])...)
		}
	}},

	{"no place is used twice, whatever was there when", func(t *testing.T, f *fixture) {
		used := make(map[idempotency.Place]bool)
		for round := range 4 {
			if round > 0 {
				f.reopen()
			}
			for i := range 3 {
				kept := f.enqueue(f.queued(fmt.Sprint(round, " ", i), "x"))
				place := kept.Deferred.Place
				if used[place] {
					t.Errorf("the place %q is used again", place)
				}
				used[place] = true
				if round%2 == 0 {
					f.release(kept.ID, kept.Owner)
				} else {
					f.finish(ended(kept))
					f.dequeue(place)
				}
			}
		}
		f.wantTickets()
	}},
}

// The load of a backlog: this many callers hand over as many calls each, in so many
// lanes, while a process works on them.
const (
	handingOver = 16
	handedOver  = 125
	busyLanes   = 40
)

var backlogLoadTests = []test{
	{"what many hand over is started once each, in the order of its lane", func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		for w := range handingOver {
			wg.Go(func() {
				for i := range handedOver {
					// Each lane has one caller, who knows its order.
					rec := f.queued(fmt.Sprintf("%02d %04d", w, i), fmt.Sprint("lane ", w, " ", i%busyLanes))
					rec.Deferred.Body = bytes.Repeat([]byte{byte(i)}, i)
					if standing, err := f.backlog().Enqueue(f.ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
						t.Errorf("enqueuing: %v, %v", show(standing), err)
						return
					}
				}
			})
		}
		handed := make(chan struct{})
		go func() {
			defer close(handed)
			wg.Wait()
		}()
		last := make(map[idempotency.LaneID]string)
		ran, parts := 0, f.parts()
		deadline := time.Now().Add(4 * patience)
		for over := false; ; {
			if time.Now().After(deadline) {
				f.fatalf("only %d calls have run", ran)
			}
			for _, part := range parts {
				for _, ticket := range f.firstTickets(part) {
					if !f.drain(ticket, last) {
						break
					}
					ran++
				}
			}
			if over {
				break
			}
			select {
			case <-handed:
				over = ran >= handingOver*handedOver || t.Failed()
			default:
			}
		}
		if ran != handingOver*handedOver {
			t.Errorf("%d calls ran, want %d", ran, handingOver*handedOver)
		}
		f.wantTickets()
	}},
}

// firstTickets returns some tickets of part, from the first on.
func (f *fixture) firstTickets(part idempotency.Part) []idempotency.Ticket {
	f.t.Helper()
	tickets, err := f.backlog().Tickets(f.ctx, part, "", pageOfTickets)
	if err != nil {
		f.fatalf("reading tickets: %v", err)
	}
	return tickets
}

// drain runs the call of ticket, which must come after the last one of its lane. It
// returns false where the call's record is still to come.
func (f *fixture) drain(ticket idempotency.Ticket, last map[idempotency.LaneID]string) bool {
	f.t.Helper()
	rec := f.get(ticket.ID)
	if rec == nil {
		return false
	}
	if rec.State != idempotency.Queued || rec.Deferred.Place != ticket.Place {
		f.fatalf("of the ticket %+v there is %v", ticket, show(rec))
	}
	if rec.Key <= last[ticket.Lane] {
		f.errorf("%s comes after %s", rec.Key, last[ticket.Lane])
	}
	last[ticket.Lane] = rec.Key
	f.finish(ended(f.start(rec)))
	f.dequeue(ticket.Place)
	return true
}
