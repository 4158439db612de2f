package storetest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Backlog = (*Member)(nil)

// fleetParts is how many parts the backlog of a fleet has.
const fleetParts = 6

// partLease is who may work on a part, and until when.
type partLease struct {
	holder *Member // nil: nobody
	until  time.Time
}

func partOf(lane idempotency.LaneID) int { return int(crc32.ChecksumIEEE(lane[:]) % fleetParts) }

func partName(i int) idempotency.Part { return idempotency.Part(strconv.Itoa(i)) }

// Enqueue implements idempotency.Backlog. The ticket is there before its record, as
// in a store that keeps them in two places: a process that is gone in between
// leaves a ticket without one.
func (m *Member) Enqueue(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (*idempotency.Record, error) {
	if err := m.enter(ctx); err != nil {
		return nil, fmt.Errorf("enqueuing record: %w: %w", idempotency.ErrNotMade, err)
	}
	tickets := m.fleet.tickets
	number, err := tickets.Reserve(rec.ID, rec.Deferred, bounds)
	if err != nil {
		return nil, fmt.Errorf("enqueuing record: %w: %w", idempotency.ErrNotMade, err)
	}
	tickets.Keep(number)
	place := store.NumberPlace(number)
	standing, err := m.Claim(ctx, store.Queue(rec, place), over)
	if standing != nil || errors.Is(err, idempotency.ErrNotMade) || errors.Is(err, idempotency.ErrFull) {
		tickets.Take(place)
	} else {
		m.fleet.enqueued(partName(partOf(rec.Deferred.Lane)))
	}
	return standing, err
}

// Parts implements idempotency.Backlog. The parts are divided evenly among the
// members that have asked within the lease. A member that has more than its share
// gives the rest up when it asks; what one leaves by Close is free at once.
func (m *Member) Parts(ctx context.Context) (parts []idempotency.Part, lease time.Duration, err error) {
	if err := m.enter(ctx); err != nil {
		return nil, 0, fmt.Errorf("asking for parts: %w", err)
	}
	f, now := m.fleet, time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	m.asked = now
	living := 0
	for _, other := range f.members {
		if !other.asked.IsZero() && !other.goodbye && now.Before(other.asked.Add(f.lease)) {
			living++
		}
	}
	share := (fleetParts + living - 1) / living
	var mine []int
	for i := range f.parts {
		p := &f.parts[i]
		if p.holder != m {
			continue
		}
		p.holder = nil
		if len(mine) < share && now.Before(p.until) {
			mine = append(mine, i)
		}
	}
	for i := range f.parts {
		p := &f.parts[i]
		free := p.holder == nil || p.holder.goodbye || !now.Before(p.until)
		if free && len(mine) < share && !slices.Contains(mine, i) {
			mine = append(mine, i)
		}
	}
	for _, i := range mine {
		f.parts[i] = partLease{m, now.Add(f.lease)}
		parts = append(parts, partName(i))
	}
	return parts, f.lease, nil
}

// Tickets implements idempotency.Backlog.
func (m *Member) Tickets(ctx context.Context, part idempotency.Part, after idempotency.Place, limit int) ([]idempotency.Ticket, error) {
	if err := m.enter(ctx); err != nil {
		return nil, fmt.Errorf("reading tickets: %w", err)
	}
	return m.fleet.tickets.After(after, limit, func(lane idempotency.LaneID) bool { return partName(partOf(lane)) == part })
}

// Dequeue implements idempotency.Backlog.
func (m *Member) Dequeue(ctx context.Context, place idempotency.Place) error {
	if err := m.enter(ctx); err != nil {
		return fmt.Errorf("dequeuing: %w", err)
	}
	m.fleet.tickets.Take(place)
	return nil
}

// Depth implements idempotency.Backlog.
func (m *Member) Depth(ctx context.Context) (idempotency.Depth, error) {
	if err := m.enter(ctx); err != nil {
		return idempotency.Depth{}, fmt.Errorf("asking for the depth of the backlog: %w", err)
	}
	return m.fleet.tickets.Depth(), nil
}

// OnEnqueue implements idempotency.Backlog. A member that does not run misses what
// is added meanwhile, and all members do where the fleet is mute.
func (m *Member) OnEnqueue(enqueued func(idempotency.Part)) {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.enqueued = enqueued
}

// enqueued tells the members that run that a ticket was added.
func (f *Fleet) enqueued(part idempotency.Part) {
	var told []func(idempotency.Part)
	f.mu.Lock()
	for _, m := range f.members {
		if m.enqueued != nil && m.silent.IsZero() && !f.mute {
			told = append(told, m.enqueued)
		}
	}
	f.mu.Unlock()
	for _, tell := range told {
		tell(part)
	}
}
