package idempotency_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
)

var errDown = errors.New("the store is down")

// op names a method of a store.
type op string

const (
	opGet       op = "Get"
	opClaim     op = "Claim"
	opFinish    op = "Finish"
	opRelease   op = "Release"
	opUnsettled op = "Unsettled"
	opSettle    op = "Settle"
	opTell      op = "Tell"
	opEnqueue   op = "Enqueue"
	opParts     op = "Parts"
	opTickets   op = "Tickets"
	opDequeue   op = "Dequeue"
	opDepth     op = "Depth"
)

// faultyStore is a memory store whose methods fail, block, or do their work
// and then fail, as a test wants it.
type faultyStore struct {
	idempotency.Store

	mu     sync.Mutex
	before map[op]func() error // guarded by mu; its error is returned instead of doing the work
	after  map[op]func() error // guarded by mu; its error is returned once the work is done
	count  map[op]int          // guarded by mu
	closed int                 // guarded by mu
	late   []op                // guarded by mu; what was called after Close

	// onClaim, where not nil, is called instead of Claim.
	onClaim func(*idempotency.Record) error
}

func newFaultyStore() *faultyStore {
	return &faultyStore{
		Store:  memory.New(memory.Options{}),
		before: map[op]func() error{},
		after:  map[op]func() error{},
		count:  map[op]int{},
	}
}

// fail makes ops fail without doing anything.
func (s *faultyStore) fail(ops ...op) {
	for _, o := range ops {
		s.hookBefore(o, func() error { return errDown })
	}
}

// lose makes ops do their work and report that they failed.
func (s *faultyStore) lose(ops ...op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range ops {
		s.after[o] = func() error { return errDown }
	}
}

func (s *faultyStore) hookBefore(o op, hook func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before[o] = hook
}

// mend makes everything work again.
func (s *faultyStore) mend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.before)
	clear(s.after)
}

func (s *faultyStore) calls(o op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[o]
}

func (s *faultyStore) callsAfterClose() []op {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late
}

func (s *faultyStore) do(o op, work func() error) error {
	s.mu.Lock()
	s.count[o]++
	if s.closed > 0 {
		s.late = append(s.late, o)
	}
	before, after := s.before[o], s.after[o]
	s.mu.Unlock()
	if before != nil {
		if err := before(); err != nil {
			return err
		}
	}
	if err := work(); err != nil {
		return err
	}
	if after != nil {
		return after()
	}
	return nil
}

func (s *faultyStore) Get(ctx context.Context, id idempotency.ID) (rec *idempotency.Record, err error) {
	err = s.do(opGet, func() (err error) { rec, err = s.Store.Get(ctx, id); return err })
	return rec, err
}

func (s *faultyStore) Claim(ctx context.Context, next *idempotency.Record, over idempotency.Owner) (rec *idempotency.Record, err error) {
	err = s.do(opClaim, func() (err error) {
		if s.onClaim != nil {
			return s.onClaim(next)
		}
		rec, err = s.Store.Claim(ctx, next, over)
		return err
	})
	return rec, err
}

func (s *faultyStore) Finish(ctx context.Context, rec *idempotency.Record) error {
	return s.do(opFinish, func() error { return s.Store.Finish(ctx, rec) })
}

func (s *faultyStore) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	return s.do(opRelease, func() error { return s.Store.Release(ctx, id, owner) })
}

func (s *faultyStore) Unsettled(ctx context.Context, a idempotency.AdoptionID) (recs []*idempotency.Record, err error) {
	err = s.do(opUnsettled, func() (err error) { recs, err = s.Store.Unsettled(ctx, a); return err })
	return recs, err
}

func (s *faultyStore) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	return s.do(opSettle, func() error { return s.Store.Settle(ctx, id, owner) })
}

func (s *faultyStore) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	return s.do(opTell, func() error { return s.Store.Tell(ctx, id, owner, told) })
}

func (s *faultyStore) backlog() idempotency.Backlog { return s.Store.(idempotency.Backlog) }

func (s *faultyStore) Enqueue(ctx context.Context, next *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (rec *idempotency.Record, err error) {
	err = s.do(opEnqueue, func() (err error) { rec, err = s.backlog().Enqueue(ctx, next, over, bounds); return err })
	return rec, err
}

func (s *faultyStore) Parts(ctx context.Context) (parts []idempotency.Part, lease time.Duration, err error) {
	err = s.do(opParts, func() (err error) { parts, lease, err = s.backlog().Parts(ctx); return err })
	return parts, lease, err
}

func (s *faultyStore) Tickets(ctx context.Context, part idempotency.Part, after idempotency.Place, limit int) (tickets []idempotency.Ticket, err error) {
	err = s.do(opTickets, func() (err error) { tickets, err = s.backlog().Tickets(ctx, part, after, limit); return err })
	return tickets, err
}

func (s *faultyStore) Dequeue(ctx context.Context, place idempotency.Place) error {
	return s.do(opDequeue, func() error { return s.backlog().Dequeue(ctx, place) })
}

func (s *faultyStore) Depth(ctx context.Context) (depth idempotency.Depth, err error) {
	err = s.do(opDepth, func() (err error) { depth, err = s.backlog().Depth(ctx); return err })
	return depth, err
}

func (s *faultyStore) OnEnqueue(enqueued func(idempotency.Part)) { s.backlog().OnEnqueue(enqueued) }

// Close keeps the records, so that a test can look at what is left.
func (s *faultyStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}
