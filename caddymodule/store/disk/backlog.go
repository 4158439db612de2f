package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Backlog = (*Store)(nil)

// onlyPart is the part that all tickets are in: one process uses the store.
const onlyPart idempotency.Part = "all"

// queue is what is kept in memory of the database's tickets: all of them, so that
// nobody has to look for the first one behind what was removed before it.
type queue struct {
	*store.Tickets
	epoch uint64      // of the numbers that are given out
	noted atomic.Bool // the database has the epoch
}

// Each opening of the database gives out numbers of an epoch of its own, if any. So
// no place is used again, not even if all tickets were removed before the database
// was closed: who still has the place of one could else take another away.
const epochBits = 40 // of a number that count within an epoch

// epochKey is where the last epoch is kept that numbers were given out in, a
// uvarint.
var epochKey = []byte{keyspaceMeta, 'e', 'p', 'o', 'c', 'h'}

// ticketSize is how many bytes the value of a ticket has: ID and lane; since, in
// milliseconds, and size, eight bytes each, big-endian.
const ticketSize = len(idempotency.ID{}) + len(idempotency.LaneID{}) + 8 + 8

func ticketKey(number uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{keyspaceTicket}, number)
}

func ticketValue(id idempotency.ID, call *idempotency.Deferred) []byte {
	value := append(make([]byte, 0, ticketSize), id[:]...)
	value = append(value, call.Lane[:]...)
	value = binary.BigEndian.AppendUint64(value, uint64(call.Since.UnixMilli()))
	return binary.BigEndian.AppendUint64(value, uint64(call.Size()))
}

// parseTicket returns the ticket that key and value are of.
func parseTicket(key, value []byte) (ticket idempotency.Ticket, ok bool) {
	if len(key) != 1+8 || len(value) != ticketSize {
		return ticket, false
	}
	ticket.Place = store.NumberPlace(binary.BigEndian.Uint64(key[1:]))
	rest := value[copy(ticket.ID[:], value):]
	rest = rest[copy(ticket.Lane[:], rest):]
	ticket.Since = time.UnixMilli(int64(binary.BigEndian.Uint64(rest)))
	ticket.Size = int64(binary.BigEndian.Uint64(rest[8:]))
	return ticket, ticket.Size >= 0
}

// loadTickets reads the tickets that the database has.
func (d *database) loadTickets() (err error) {
	value, err := d.get(epochKey)
	if err != nil {
		return err
	}
	epoch, n := binary.Uvarint(value)
	if n <= 0 && value != nil {
		return fmt.Errorf("%w: it does not tell the epoch of its tickets", ErrDamaged)
	}
	d.queue = &queue{Tickets: store.NewTickets((epoch + 1) << epochBits), epoch: epoch + 1}
	start := []byte{keyspaceTicket}
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: after(start)})
	if err != nil {
		return d.readError(err)
	}
	defer func() { err = errors.Join(err, d.readError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return d.readError(err)
		}
		ticket, ok := parseTicket(it.Key(), value)
		if !ok {
			return fmt.Errorf("%w: it has a ticket %x that cannot be read", ErrDamaged, it.Key())
		}
		if err := d.queue.Add(ticket); err != nil {
			return err
		}
	}
	return nil
}

// enqueuing is a ticket that is put into the database with the claim of its call.
type enqueuing struct {
	bounds idempotency.Bounds
	number uint64
}

// Enqueue implements idempotency.Backlog. Record and ticket are one change.
func (s *Store) Enqueue(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (*idempotency.Record, error) {
	standing, err := s.claim(ctx, rec, over, &enqueuing{bounds: bounds})
	if err != nil {
		return nil, fmt.Errorf("enqueuing: %w", err)
	}
	return standing, nil
}

// reserve reserves a ticket for rec, and returns that as it is to be kept. Where it
// returns no error, decide must follow.
func (s *Store) reserve(rec *idempotency.Record, e *enqueuing) (kept *idempotency.Record, err error) {
	if err := s.noteEpoch(); err != nil {
		return nil, err
	}
	if e.number, err = s.queue.Reserve(rec.ID, rec.Deferred, e.bounds); err != nil {
		return nil, err
	}
	return store.Queue(rec, store.NumberPlace(e.number)), nil
}

// decide tells what became of a ticket that was reserved. Either way those behind
// it can be seen now.
func (s *Store) decide(e *enqueuing, made bool) {
	if made {
		s.queue.Keep(e.number)
	} else {
		s.queue.Cancel(e.number)
	}
	s.notify()
}

// noteEpoch makes sure that the database has the epoch before it has a ticket of
// it. It must be called between begin and end.
func (s *Store) noteEpoch() error {
	if s.queue.noted.Load() {
		return nil
	}
	b := s.db.NewBatch()
	if err := s.commit(b, b.Set(epochKey, binary.AppendUvarint(nil, s.queue.epoch), nil)); err != nil {
		return err
	}
	s.queue.noted.Store(true)
	return nil
}

// leave puts into b that the ticket of old goes, where next, which takes its place,
// has none; nil: there is no record. If b is committed, left must follow.
//
// A ticket's key is set once, ever, so that a SingleDelete may remove it: both
// go when they meet.
func (s *Store) leave(b *pebble.Batch, old, next *idempotency.Record) error {
	if !store.LeavesTicket(old, next) || !s.queue.Has(old.Deferred.Place) {
		return nil
	}
	return s.removeTicket(b, old.Deferred.Place)
}

// left notes that a change is committed that leave was called for.
func (s *Store) left(old, next *idempotency.Record) {
	if store.LeavesTicket(old, next) {
		s.queue.Take(old.Deferred.Place)
	}
}

func (s *Store) removeTicket(b *pebble.Batch, place idempotency.Place) error {
	number, _ := store.ParsePlaceNumber(place)
	return b.SingleDelete(ticketKey(number), nil)
}

// Parts implements idempotency.Backlog: there is one.
func (s *Store) Parts(ctx context.Context) (parts []idempotency.Part, lease time.Duration, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, 0, fmt.Errorf("asking for parts: %w", err)
	}
	defer s.end()
	return []idempotency.Part{onlyPart}, store.OnlyLease, nil
}

// Tickets implements idempotency.Backlog.
func (s *Store) Tickets(ctx context.Context, part idempotency.Part, after idempotency.Place, limit int) ([]idempotency.Ticket, error) {
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("reading tickets: %w", err)
	}
	defer s.end()
	if part != onlyPart {
		return nil, nil
	}
	tickets, err := s.queue.After(after, limit, nil)
	if err != nil {
		return nil, fmt.Errorf("reading tickets: %w", err)
	}
	return tickets, nil
}

// Dequeue implements idempotency.Backlog. A crash may bring the ticket back.
func (s *Store) Dequeue(ctx context.Context, place idempotency.Place) error {
	if err := s.begin(ctx); err != nil {
		return fmt.Errorf("dequeuing: %w", err)
	}
	defer s.end()
	if !s.queue.Has(place) {
		return nil
	}
	b := s.db.NewBatch()
	if err := s.note(b, s.removeTicket(b, place)); err != nil {
		return fmt.Errorf("dequeuing: %w", err)
	}
	s.queue.Take(place)
	return nil
}

// Depth implements idempotency.Backlog.
func (s *Store) Depth(ctx context.Context) (idempotency.Depth, error) {
	if err := s.begin(ctx); err != nil {
		return idempotency.Depth{}, fmt.Errorf("asking for the depth of the backlog: %w", err)
	}
	defer s.end()
	return s.queue.Depth(), nil
}

// OnEnqueue implements idempotency.Backlog. It is also told when the store has been
// opened anew after a failure.
func (s *Store) OnEnqueue(enqueued func(idempotency.Part)) { s.enqueued.Store(&enqueued) }

func (s *Store) notify() {
	if enqueued := s.enqueued.Load(); enqueued != nil {
		(*enqueued)(onlyPart)
	}
}
