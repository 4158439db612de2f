package memory

import (
	"context"
	"fmt"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Backlog = (*Store)(nil)

// onlyPart is the part that all tickets are in.
const onlyPart idempotency.Part = "all"

// Enqueue implements idempotency.Backlog. Like a claim, a call that was handed over
// is never given up to make room; where there is none, the error is ErrFull.
func (s *Store) Enqueue(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (*idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("enqueuing record: %w: %w", idempotency.ErrNotMade, err)
	}
	standing, enqueued, err := s.enqueue(rec, over, bounds)
	if err != nil {
		return nil, fmt.Errorf("enqueuing record: %w: %w", idempotency.ErrNotMade, err)
	}
	if standing == nil && enqueued != nil {
		enqueued(onlyPart)
	}
	return standing, nil
}

// enqueue is Enqueue but for the notice, which it returns.
func (s *Store) enqueue(rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (standing *idempotency.Record, enqueued func(idempotency.Part), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if standing := s.standingLocked(rec.ID, over); standing != nil {
		return standing, nil, nil
	}
	number, err := s.tickets.Reserve(rec.ID, rec.Deferred, bounds)
	if err != nil {
		return nil, nil, err
	}
	if err := s.claimLocked(&entry{kept: newKept(store.Queue(rec, store.NumberPlace(number)))}); err != nil {
		s.tickets.Cancel(number)
		return nil, nil, err
	}
	s.tickets.Keep(number)
	return nil, s.enqueued, nil
}

// Parts implements idempotency.Backlog: there is one.
func (s *Store) Parts(ctx context.Context) (parts []idempotency.Part, lease time.Duration, err error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("asking for parts: %w", err)
	}
	return []idempotency.Part{onlyPart}, store.OnlyLease, nil
}

// Tickets implements idempotency.Backlog.
func (s *Store) Tickets(ctx context.Context, part idempotency.Part, after idempotency.Place, limit int) ([]idempotency.Ticket, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading tickets: %w", err)
	}
	if part != onlyPart {
		return nil, nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	tickets, err := s.tickets.After(after, limit, nil)
	if err != nil {
		return nil, fmt.Errorf("reading tickets: %w", err)
	}
	return tickets, nil
}

// Dequeue implements idempotency.Backlog.
func (s *Store) Dequeue(ctx context.Context, place idempotency.Place) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("dequeuing: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tickets.Take(place)
	return nil
}

// Depth implements idempotency.Backlog.
func (s *Store) Depth(ctx context.Context) (idempotency.Depth, error) {
	if err := ctx.Err(); err != nil {
		return idempotency.Depth{}, fmt.Errorf("asking for the depth of the backlog: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.tickets.Depth(), nil
}

// OnEnqueue implements idempotency.Backlog.
func (s *Store) OnEnqueue(enqueued func(idempotency.Part)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueued = enqueued
}

// leaveLocked takes the ticket of old away, where next, which takes its place, has
// none; nil: there is no record.
func (s *Store) leaveLocked(old *entry, next *kept) {
	if old.place != "" && (next == nil || next.place != old.place) {
		s.tickets.Take(old.place)
	}
}
