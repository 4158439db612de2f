package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// RunBacklog runs the suite of idempotency.Backlog against the stores that h opens,
// which are all of them one, one for each subtest. Each is used by one process at a
// time. It adds to Run, and does not replace it.
//
// Where the interface leaves a choice, the suite takes both: a ticket may go with
// its record, or stay until it is dequeued. Where a queued record is released, and
// nothing fails, the suite wants the ticket to be gone.
func RunBacklog(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		tests []test
		waits bool // for records to expire
	}{
		{"enqueue", enqueueTests, false},
		{"order", orderTests, false},
		{"bounds", boundsTests, false},
		{"dequeue", dequeueTests, false},
		{"parts", partsTests, false},
		{"course", courseTests, false},
		{"list", listDeferredTests, false},
		{"expiry", deferredExpiryTests, true},
		{"notice", noticeTests, false},
		{"context", backlogContextTests, false},
		{"reopen", backlogReopenTests, false},
		{"load", backlogLoadTests, false},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					if group.waits && h.RealTime {
						t.Parallel()
					}
					test.run(t, newFixture(t, h))
				})
			}
		})
	}
}

// pageOfTickets is how many tickets the suite reads at a time where it does not
// matter.
const pageOfTickets = 100

func (f *fixture) backlog() idempotency.Backlog {
	f.t.Helper()
	b, ok := f.Store.(idempotency.Backlog)
	if !ok {
		f.t.Fatalf("a %T is not a Backlog", f.Store)
	}
	return b
}

func lane(name string) (l idempotency.LaneID) {
	copy(l[:], name)
	return l
}

// queued returns a call that name hands over for later, in a lane. It expires an
// hour after the epoch.
func (f *fixture) queued(name, laneName string) *idempotency.Record {
	rec := f.started(name)
	rec.State = idempotency.Queued
	rec.Deferred = &idempotency.Deferred{
		Lane:   lane(laneName),
		Since:  rec.Started.Add(-time.Microsecond),
		Policy: 1<<63 + 1,
		Method: "POST",
		URL:    "/api/v2/integrations/actions/" + name + "/execute?flatten=false",
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}, "Accept": {"a", "b"}}),
		Body:   []byte(`{"call":"` + name + `"}`),
	}
	return rec
}

// at returns rec with its call at place.
func at(rec *idempotency.Record, place idempotency.Place) *idempotency.Record {
	c, call := *rec, *rec.Deferred
	call.Place = place
	c.Deferred = &call
	return &c
}

// tryEnqueue returns the record as the store has it, if it was enqueued, or else
// what stands in the way.
func (f *fixture) tryEnqueue(rec *idempotency.Record, over idempotency.Owner) (kept, standing *idempotency.Record) {
	f.t.Helper()
	began := time.Now()
	standing, err := f.backlog().Enqueue(f.ctx, rec, over, idempotency.Bounds{})
	if err != nil {
		f.fatalf("enqueuing: %v", err)
	}
	if standing != nil {
		return nil, standing
	}
	f.stored(rec, began)
	return f.kept(rec), nil
}

// kept returns rec, which was enqueued, as it must be kept: with a place.
func (f *fixture) kept(rec *idempotency.Record) *idempotency.Record {
	f.t.Helper()
	got := f.get(rec.ID)
	if got == nil || got.Deferred == nil {
		f.fatalf("got %v, want %v", show(got), show(rec))
	}
	if n := len(got.Deferred.Place); n == 0 || n > 64 {
		f.errorf("its place has %d bytes", n)
	}
	return at(rec, got.Deferred.Place)
}

// enqueue enqueues rec, and returns it as the store has it.
func (f *fixture) enqueue(rec *idempotency.Record) *idempotency.Record {
	f.t.Helper()
	kept, standing := f.tryEnqueue(rec, idempotency.Owner{})
	if standing != nil {
		f.fatalf("a record stands in the way: %v", show(standing))
	}
	return kept
}

// start claims the call of rec, which is queued, for sending, and returns what is
// kept of it from then on.
func (f *fixture) start(rec *idempotency.Record) *idempotency.Record {
	f.t.Helper()
	next := *rec
	next.State, next.Owner, next.Started = idempotency.Started, process.NewOwner(), rec.Started.Add(time.Second)
	f.claim(&next, rec.Owner)
	return &next
}

// ended returns rec, which was started, as it is once answered.
func ended(rec *idempotency.Record) *idempotency.Record {
	d := done(rec)
	d.Deferred = nil
	return d
}

// putBack returns rec, which was started, as it is when it is queued again.
func putBack(rec *idempotency.Record) *idempotency.Record {
	q := *rec
	q.State, q.Finished = idempotency.Queued, time.Time{}
	return &q
}

// parts returns the backlog's parts, sorted.
func (f *fixture) parts() []idempotency.Part {
	f.t.Helper()
	parts, lease, err := f.backlog().Parts(f.ctx)
	if err != nil {
		f.fatalf("asking for parts: %v", err)
	}
	if len(parts) == 0 || lease <= 0 {
		f.fatalf("there are %d parts, for %v", len(parts), lease)
	}
	parts = slices.Clone(parts)
	slices.Sort(parts)
	return parts
}

// pages returns all tickets of part that come after a place, read in pages.
func (f *fixture) pages(part idempotency.Part, after idempotency.Place, limit int) (all []idempotency.Ticket) {
	f.t.Helper()
	for {
		page, err := f.backlog().Tickets(f.ctx, part, after, limit)
		if err != nil {
			f.fatalf("reading tickets: %v", err)
		}
		if len(page) > limit {
			f.fatalf("there are %d tickets on a page of %d", len(page), limit)
		}
		if len(page) == 0 {
			return all
		}
		if page[0].Place == after {
			f.fatalf("what comes after the ticket at %q begins with it", after)
		}
		all = append(all, page...)
		after = page[len(page)-1].Place
	}
}

// tickets returns all tickets, each part's in their order.
func (f *fixture) tickets() map[idempotency.Part][]idempotency.Ticket {
	f.t.Helper()
	all := make(map[idempotency.Part][]idempotency.Ticket)
	for _, part := range f.parts() {
		if tickets := f.pages(part, "", pageOfTickets); len(tickets) > 0 {
			all[part] = tickets
		}
	}
	return all
}

func (f *fixture) dequeue(place idempotency.Place) {
	f.t.Helper()
	if err := f.backlog().Dequeue(f.ctx, place); err != nil {
		f.fatalf("dequeuing: %v", err)
	}
}

// tidy dequeues the tickets that are no record's, as whoever comes to them does.
func (f *fixture) tidy() {
	f.t.Helper()
	for _, tickets := range f.tickets() {
		for _, ticket := range tickets {
			if rec := f.get(ticket.ID); rec == nil || rec.Deferred == nil || rec.Deferred.Place != ticket.Place {
				f.dequeue(ticket.Place)
			}
		}
	}
}

// wantTickets fails the test unless there are tickets for want, which is what was
// enqueued in its order, and no others; those of each part in that order, and those
// of each lane in one part; and unless the depth is theirs.
func (f *fixture) wantTickets(want ...*idempotency.Record) {
	f.t.Helper()
	rank := make(map[idempotency.Place]int)
	depth := idempotency.Depth{Calls: len(want)}
	for i, rec := range want {
		rank[rec.Deferred.Place] = i
		depth.Bytes += rec.Deferred.Size()
	}
	if len(want) > 0 {
		depth.Oldest = want[0].Deferred.Since.Truncate(time.Millisecond)
	}
	seen := 0
	lanes := make(map[idempotency.LaneID]idempotency.Part)
	for part, tickets := range f.tickets() {
		last := -1
		for _, ticket := range tickets {
			i, ok := rank[ticket.Place]
			if !ok {
				f.fatalf("there is a ticket at %q, which is not to be there", ticket.Place)
			}
			if i <= last {
				f.errorf("call %d comes after call %d", i, last)
			}
			last = i
			seen++
			f.wantTicket(ticket, want[i])
			if was, ok := lanes[ticket.Lane]; ok && was != part {
				f.errorf("a lane is in two parts")
			}
			lanes[ticket.Lane] = part
		}
	}
	if seen != len(want) {
		f.errorf("there are %d tickets, want %d", seen, len(want))
	}
	f.wantDepth(depth)
}

// wantTicket fails the test unless ticket is that of rec.
func (f *fixture) wantTicket(ticket idempotency.Ticket, rec *idempotency.Record) {
	f.t.Helper()
	d := rec.Deferred
	if ticket.ID != rec.ID || ticket.Lane != d.Lane || ticket.Size != d.Size() || ticket.Place != d.Place ||
		!ticket.Since.Equal(d.Since.Truncate(time.Millisecond)) {
		f.errorf("got the ticket %+v, want that of %v", ticket, show(rec))
	}
}

// wantDepth fails the test unless the backlog is this deep.
func (f *fixture) wantDepth(want idempotency.Depth) {
	f.t.Helper()
	got, err := f.backlog().Depth(f.ctx)
	if err != nil {
		f.fatalf("asking for the depth: %v", err)
	}
	if got.Calls != want.Calls || got.Bytes != want.Bytes || !got.Oldest.Equal(want.Oldest) || got.Oldest.IsZero() != want.Oldest.IsZero() {
		f.errorf("it is %+v deep, want %+v", got, want)
	}
}

// enqueueMany enqueues n calls, one after the other, in as many lanes.
func (f *fixture) enqueueMany(n, lanes int) (recs []*idempotency.Record) {
	f.t.Helper()
	for i := range n {
		rec := f.queued(fmt.Sprint("call ", i), fmt.Sprint("lane ", i%lanes))
		rec.Deferred.Since = f.epoch.Add(time.Duration(i) * time.Millisecond)
		rec.Deferred.Body = bytes.Repeat([]byte{'x'}, i)
		recs = append(recs, f.enqueue(rec))
	}
	return recs
}

// enqueueAtOnce enqueues n calls of as many lanes from as many goroutines, and
// returns those that were, in no order.
func (f *fixture) enqueueAtOnce(n int, bounds idempotency.Bounds) (made []*idempotency.Record) {
	f.t.Helper()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		start = make(chan struct{})
	)
	for i := range n {
		rec := f.queued(fmt.Sprint("call ", i), fmt.Sprint("lane ", i))
		wg.Go(func() {
			<-start
			standing, err := f.backlog().Enqueue(f.ctx, rec, idempotency.Owner{}, bounds)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case standing != nil || err != nil && !errors.Is(err, idempotency.ErrBacklogFull):
				f.t.Errorf("enqueuing: %v, %v", show(standing), err)
			case err == nil:
				made = append(made, rec)
			}
		})
	}
	close(start)
	wg.Wait()
	return made
}
