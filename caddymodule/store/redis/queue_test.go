package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

const parts = 16

func laneID(name string) (lane idempotency.LaneID) {
	copy(lane[:], name)
	return lane
}

// queued returns a call that is to be handed over for later.
func queued(name, lane string) *idempotency.Record {
	rec := started(name)
	rec.State = idempotency.Queued
	rec.Deferred = &idempotency.Deferred{
		Lane: laneID(lane), Since: time.Now(), Policy: 7, Method: http.MethodPost, URL: "/" + name, Body: []byte("the body of " + name),
	}
	return rec
}

func enqueue(t *testing.T, s *redis.Store, rec *idempotency.Record) {
	t.Helper()
	if standing, err := s.Enqueue(context.Background(), rec, idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
		t.Fatalf("enqueuing %s: %v, %v", rec.Key, standing, err)
	}
}

// allTickets returns the tickets of the whole backlog, part by part, each in its
// order. Right after an outage, the store may be gone again for a moment.
func allTickets(t *testing.T, s *redis.Store) (all []idempotency.Ticket) {
	t.Helper()
	for i := range parts {
		all = append(all, ticketsOf(t, s, i)...)
	}
	return all
}

// ticketsOf returns the tickets of a part.
func ticketsOf(t *testing.T, s *redis.Store, part int) (tickets []idempotency.Ticket) {
	t.Helper()
	eventually(t, "reading the backlog", func() bool {
		var err error
		tickets, err = s.Tickets(context.Background(), idempotency.Part(fmt.Sprint(part)), "", 10_000)
		return err == nil
	})
	return tickets
}

func wantDepth(t *testing.T, s *redis.Store, calls int) {
	t.Helper()
	var want idempotency.Depth
	for i := range parts {
		// The one that comes first may be a little younger than the next, where
		// several were enqueued at a time.
		for j, ticket := range ticketsOf(t, s, i) {
			want.Calls++
			want.Bytes += ticket.Size
			if j == 0 && (want.Oldest.IsZero() || ticket.Since.Before(want.Oldest)) {
				want.Oldest = ticket.Since
			}
		}
	}
	var got idempotency.Depth
	eventually(t, "asking for the depth", func() bool {
		var err error
		got, err = s.Depth(context.Background())
		return err == nil
	})
	if got != want || want.Calls != calls {
		t.Errorf("the depth is %+v, want %+v with %d calls", got, want, calls)
	}
}

func deferred(t *testing.T, s *redis.Store, id idempotency.ID) *idempotency.Record {
	t.Helper()
	var rec *idempotency.Record
	eventually(t, "getting the record", func() bool {
		var err error
		rec, err = s.Get(context.Background(), id)
		return err == nil
	})
	if rec == nil || rec.Deferred == nil {
		t.Fatalf("the record is %v", rec)
	}
	return rec
}

// as returns rec in another state.
func as(rec *idempotency.Record, state idempotency.State) *idempotency.Record {
	r := *rec
	r.State, r.Finished = state, time.Now()
	if state == idempotency.Started {
		r.Finished = time.Time{}
	}
	if state != idempotency.Started && state != idempotency.Queued {
		r.Deferred = nil
	}
	return &r
}

func TestBoundsHoldOverAllPartsWhoeverEnqueues(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	prefix := newPrefix()
	var made, full atomic.Int64
	var wg sync.WaitGroup
	options := redis.Options{Endpoint: endpoint(t, server.URL()), Prefix: prefix}
	for i := range 4 {
		s := opened(t, options)
		wg.Go(func() {
			for j := range 50 {
				rec := queued(fmt.Sprint(i, " ", j), fmt.Sprint("lane ", j))
				standing, err := s.Enqueue(t.Context(), rec, idempotency.Owner{}, idempotency.Bounds{Calls: 100})
				switch {
				case errors.Is(err, idempotency.ErrBacklogFull) && errors.Is(err, idempotency.ErrNotMade):
					full.Add(1)
				case err != nil || standing != nil:
					t.Errorf("enqueuing: %v, %v", standing, err)
				default:
					made.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if made.Load() != 100 || full.Load() != 100 {
		t.Errorf("%d were taken, and %d were too many", made.Load(), full.Load())
	}
	s := opened(t, options)
	wantDepth(t, s, 100)
	if page, err := s.List(t.Context(), idempotency.Query{Limit: 1000}); len(page.Records) != 100 || err != nil {
		t.Errorf("there are %d records, %v", len(page.Records), err)
	}
}

func TestAFullBacklogTellsWhatItHas(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	rec := queued("a", "lane")
	enqueue(t, s, rec)
	standing, err := s.Enqueue(t.Context(), queued("a", "lane"), idempotency.Owner{}, idempotency.Bounds{Calls: 1})
	if err != nil || standing == nil || standing.Owner != rec.Owner {
		t.Errorf("enqueuing it again: %v, %v", standing, err)
	}
	wantDepth(t, s, 1)
}

func TestWhatIsRefusedLeavesNoTicket(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--maxmemory-policy", "noeviction"}})
	e := endpoint(t, server.URL())
	s := opened(t, redis.Options{Endpoint: e})
	mustClaim(t, s, started("a"))
	standing, err := s.Enqueue(t.Context(), queued("a", "lane"), idempotency.Owner{}, idempotency.Bounds{})
	if err != nil || standing == nil || standing.State != idempotency.Started {
		t.Errorf("what stands: %v, %v", standing, err)
	}
	wantDepth(t, s, 0)

	waits := opened(t, redis.Options{Endpoint: e, WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	if _, err := waits.Enqueue(t.Context(), queued("b", "lane"), idempotency.Owner{}, idempotency.Bounds{}); !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("without replicas: %v", err)
	}
	wantDepth(t, s, 0)

	if _, err := server.Do("CONFIG", "SET", "maxmemory", "1mb"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Enqueue(t.Context(), queued("b", "lane"), idempotency.Owner{}, idempotency.Bounds{}); !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("without memory: %v", err)
	}
	wantDepth(t, s, 0)
	wantState(t, s, queued("b", "lane").ID, 0)
}

func TestAFullRedisIsDrained(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--maxmemory-policy", "noeviction"}})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	enqueue(t, s, queued("a", "lane"))
	if _, err := server.Do("CONFIG", "SET", "maxmemory", "1mb"); err != nil {
		t.Fatal(err)
	}
	if mine, _, err := s.Parts(t.Context()); len(mine) != parts || err != nil {
		t.Errorf("the parts are %v, %v", mine, err)
	}
	for _, ticket := range allTickets(t, s) {
		if err := s.Dequeue(t.Context(), ticket.Place); err != nil {
			t.Errorf("dequeuing: %v", err)
		}
	}
	wantDepth(t, s, 0)
}

// A ticket that is put twice stands in the backlog twice. One of them leads to the
// record.
func TestACallWhoseTicketsReplyIsLostIsEnqueuedAllTheSame(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Addr())
	s := opened(t, redis.Options{Endpoint: endpoint(t, proxy.URL())})
	lost := proxy.LoseReply(func(request []byte) bool { return command("EVAL")(request) && command("{queue}")(request) })
	rec := queued("a", "lane")
	enqueue(t, s, rec)
	<-lost
	place, found := deferred(t, s, rec.ID).Deferred.Place, false
	for _, ticket := range allTickets(t, s) {
		found = found || ticket.Place == place
		if ticket.ID != rec.ID {
			t.Errorf("there is a ticket of another call: %+v", ticket)
		}
		if err := s.Dequeue(t.Context(), ticket.Place); err != nil {
			t.Error(err)
		}
	}
	if !found {
		t.Error("no ticket is where the record says")
	}
	wantDepth(t, s, 0)
}

func TestOthersAreToldOfACall(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	prefix := newPrefix()
	options := redis.Options{Endpoint: endpoint(t, server.URL()), Prefix: prefix}
	a, b := opened(t, options), opened(t, options)
	var own, others sync.Map
	a.OnEnqueue(func(part idempotency.Part) { own.Store(part, true) })
	b.OnEnqueue(func(part idempotency.Part) { others.Store(part, true) })
	n := 0
	eventually(t, "both are told of the same part", func() bool { // news may be missed at first
		n++
		rec := queued(fmt.Sprint("a", n), "lane")
		enqueue(t, a, rec)
		part, _, _ := strings.Cut(string(deferred(t, a, rec.ID).Deferred.Place), "/")
		if _, told := own.Load(idempotency.Part(part)); !told {
			t.Fatal("who enqueues is not told at once")
		}
		_, told := others.Load(idempotency.Part(part))
		return told
	})
}

func TestReleasingAQueuedCallDequeuesItWhetherItIsEncryptedOrNot(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	for name, options := range map[string]redis.Options{"plain": {}, "encrypted": {Keyring: ring(t, 1)}} {
		options.Endpoint, options.Prefix = endpoint(t, server.URL()), newPrefix()
		s := opened(t, options)
		rec, other := queued("a", "lane"), queued("b", "lane")
		enqueue(t, s, rec)
		enqueue(t, s, other)
		if err := s.Release(t.Context(), rec.ID, rec.Owner); err != nil {
			t.Errorf("releasing what is %s: %v", name, err)
		}
		wantDepth(t, s, 1)
		wantState(t, s, rec.ID, 0)
		wantState(t, s, other.ID, idempotency.Queued)
	}
}

func TestTicketsHoldNothingOfTheRequest(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Keyring: ring(t, 1)})
	enqueue(t, s, queued("confidential", "lane"))
	for i := range parts {
		entries, err := server.Do("XRANGE", redis.DefaultPrefix+"{queue}:"+fmt.Sprint(i), "-", "+")
		if text := fmt.Sprint(entries); err != nil || strings.Contains(text, "confidential") {
			t.Errorf("in part %d is %s, %v", i, text, err)
		}
	}
	wantDepth(t, s, 1)
}

// Copies of a change may come when the network has held them up.
func TestALateCopyOfAChangeDoesNothingToACallOfTheBacklog(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	ctx := t.Context()
	rec := queued("a", "lane")
	enqueue(t, s, rec)
	kept := deferred(t, s, rec.ID)

	run := as(kept, idempotency.Started)
	run.Owner = idempotency.NewProcess().NewOwner()
	if standing, err := s.Claim(ctx, run, kept.Owner); standing != nil || err != nil {
		t.Fatalf("starting: %v, %v", standing, err)
	}
	if standing, err := s.Claim(ctx, kept, idempotency.Owner{}); standing == nil || err != nil {
		t.Errorf("enqueuing late: %v, %v", standing, err)
	}
	if err := s.Finish(ctx, as(run, idempotency.Queued)); err != nil {
		t.Fatalf("putting back: %v", err)
	}
	if err := s.Finish(ctx, run); !errors.Is(err, idempotency.ErrNotOwner) {
		t.Errorf("starting by a change what was put back: %v", err)
	}
	if standing, err := s.Claim(ctx, run, kept.Owner); standing != nil || err != nil {
		t.Errorf("starting late: %v, %v", standing, err)
	}
	wantState(t, s, rec.ID, idempotency.Queued)
	if got := deferred(t, s, rec.ID).Deferred.Place; got != kept.Deferred.Place {
		t.Errorf("put back, its place is %s, not %s", got, kept.Deferred.Place)
	}
	if err := s.Finish(ctx, as(run, idempotency.Released)); err != nil {
		t.Fatalf("cancelling: %v", err)
	}
	for _, late := range []idempotency.State{idempotency.Started, idempotency.Queued} {
		if err := s.Finish(ctx, as(run, late)); !errors.Is(err, idempotency.ErrNotOwner) {
			t.Errorf("making %v what was cancelled: %v", late, err)
		}
	}
	wantState(t, s, rec.ID, idempotency.Released)
}

func TestTheBacklogIsThereAfterRedisWasKilled(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	for i := range 20 {
		enqueue(t, s, queued(fmt.Sprint("a", i), "lane"))
	}
	before := allTickets(t, s)
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "calls are refused", func() bool {
		_, err := s.Enqueue(t.Context(), queued("b", "lane"), idempotency.Owner{}, idempotency.Bounds{})
		return errors.Is(err, idempotency.ErrNotMade)
	})
	if _, _, err := s.Parts(t.Context()); err == nil {
		t.Error("there are parts without Redis")
	}
	if _, err := s.Depth(t.Context()); err == nil {
		t.Error("there is a depth without Redis")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store serves again", func() bool { return serves(s) })
	wantDepth(t, s, 20)
	for i, ticket := range allTickets(t, s) {
		if ticket != before[i] {
			t.Errorf("ticket %d is %+v, not %+v", i, ticket, before[i])
		}
	}
}

func TestACallThatReplicasHaveIsInTheBacklogAfterAFailover(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL()), WaitReplicas: 1, WaitTimeout: 10 * time.Second})
	rec := queued("a", "lane")
	enqueue(t, s, rec)
	p.failOver(t, s)
	wantDepth(t, s, 1)
	if place := deferred(t, s, rec.ID).Deferred.Place; place != allTickets(t, s)[0].Place {
		t.Errorf("its record says it is at %s", place)
	}
}
