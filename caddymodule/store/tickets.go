package store

import (
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/RaduBerinde/btreemap"

	"genesys-sidecar/caddymodule/idempotency"
)

// Tickets are the tickets of a backlog that one process looks after, in their
// order. Each has a number that no other ever has; the place of a ticket is its
// number. Tickets are safe for concurrent use.
//
// A ticket's number is reserved before the ticket is kept for good, which may take
// the time of a sync. Until it is known what came of that, nobody sees the tickets
// behind it: else who reads on from a place would never learn of one that came to
// be before it.
type Tickets struct {
	mu       sync.Mutex // guards all below
	last     uint64     // the last number that was given out
	tree     *btreemap.BTreeMap[uint64, ticket]
	calls    int   // with those that are only reserved
	bytes    int64 // likewise
	reserved struct {
		calls int
		bytes int64
	}
}

// ticket is a Ticket without its place, or a number that is reserved.
type ticket struct {
	id       idempotency.ID
	lane     idempotency.LaneID
	since    int64 // milliseconds since 1970
	size     int64
	reserved bool
}

// ticketsDegree is what the tree's own package takes for such values.
const ticketsDegree = 32

// NewTickets returns no tickets. The numbers that it will give out are greater
// than last.
func NewTickets(last uint64) *Tickets {
	return &Tickets{last: last, tree: btreemap.New[uint64, ticket](ticketsDegree, cmp.Compare[uint64])}
}

// Reserve reserves the next number for a ticket of call, which is to be kept with
// id. It returns ErrBacklogFull where bounds would be exceeded. Keep or Cancel
// must follow.
func (t *Tickets) Reserve(id idempotency.ID, call *idempotency.Deferred, bounds idempotency.Bounds) (number uint64, err error) {
	size := call.Size()
	t.mu.Lock()
	defer t.mu.Unlock()
	if bounds.Calls > 0 && t.calls >= bounds.Calls || bounds.Bytes > 0 && t.bytes+size > bounds.Bytes {
		return 0, idempotency.ErrBacklogFull
	}
	t.last++
	t.addLocked(t.last, ticket{id: id, lane: call.Lane, since: call.Since.UnixMilli(), size: size, reserved: true})
	return t.last, nil
}

// Keep makes the ticket whose number is reserved one of the tickets.
func (t *Tickets) Keep(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, tick, ok := t.tree.Get(number); ok && tick.reserved {
		t.removeLocked(number, tick)
		tick.reserved = false
		t.addLocked(number, tick)
	}
}

// Cancel gives up a reserved number.
func (t *Tickets) Cancel(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, tick, ok := t.tree.Get(number); ok && tick.reserved {
		t.removeLocked(number, tick)
	}
}

// Add adds a ticket, which has its place, at that. It is for those that were
// there before; the numbers that are given out from now on are greater.
func (t *Tickets) Add(added idempotency.Ticket) error {
	number, ok := ParsePlaceNumber(added.Place)
	if !ok {
		return fmt.Errorf("%q is not the place of a ticket", added.Place)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = max(t.last, number)
	t.addLocked(number, ticket{id: added.ID, lane: added.Lane, since: added.Since.UnixMilli(), size: added.Size})
	return nil
}

// Has tells whether Take would take the ticket at place away.
func (t *Tickets) Has(place idempotency.Place) bool {
	number, ok := ParsePlaceNumber(place)
	if !ok {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, tick, ok := t.tree.Get(number)
	return ok && !tick.reserved
}

// Take takes the ticket at place away and returns it, if it is there. One that is
// only reserved is not.
func (t *Tickets) Take(place idempotency.Place) (taken idempotency.Ticket, ok bool) {
	number, ok := ParsePlaceNumber(place)
	if !ok {
		return taken, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	_, tick, ok := t.tree.Get(number)
	if !ok || tick.reserved {
		return taken, false
	}
	t.removeLocked(number, tick)
	return tick.at(number), true
}

// After returns the first limit tickets behind the place after, of those that
// wanted tells to be wanted; nil: of all.
func (t *Tickets) After(after idempotency.Place, limit int, wanted func(idempotency.LaneID) bool) ([]idempotency.Ticket, error) {
	start := uint64(0)
	if after != "" {
		var ok bool
		if start, ok = ParsePlaceNumber(after); !ok {
			return nil, fmt.Errorf("%q is not the place of a ticket", after)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []idempotency.Ticket
	for number, tick := range t.tree.Ascend(btreemap.GT(start), btreemap.Max[uint64]()) {
		if tick.reserved || len(found) >= limit {
			break
		}
		if wanted == nil || wanted(tick.lane) {
			found = append(found, tick.at(number))
		}
	}
	return found, nil
}

// Depth tells how much there is.
func (t *Tickets) Depth() idempotency.Depth {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := idempotency.Depth{Calls: t.calls - t.reserved.calls, Bytes: t.bytes - t.reserved.bytes}
	for number, tick := range t.tree.Ascend(btreemap.Min[uint64](), btreemap.Max[uint64]()) {
		if !tick.reserved {
			d.Oldest = tick.at(number).Since
			break
		}
	}
	return d
}

func (t *Tickets) addLocked(number uint64, tick ticket) {
	t.tree.ReplaceOrInsert(number, tick)
	t.countLocked(tick, 1)
}

func (t *Tickets) removeLocked(number uint64, tick ticket) {
	t.tree.Delete(number)
	t.countLocked(tick, -1)
}

func (t *Tickets) countLocked(tick ticket, by int) {
	t.calls += by
	t.bytes += int64(by) * tick.size
	if tick.reserved {
		t.reserved.calls += by
		t.reserved.bytes += int64(by) * tick.size
	}
}

func (t ticket) at(number uint64) idempotency.Ticket {
	return idempotency.Ticket{
		Place: NumberPlace(number), ID: t.id, Lane: t.lane, Since: time.UnixMilli(t.since).UTC(), Size: t.size,
	}
}

// NumberPlace returns the place of the ticket with a number. Places sort as the
// numbers do.
func NumberPlace(number uint64) idempotency.Place {
	return idempotency.Place(hex.EncodeToString(binary.BigEndian.AppendUint64(nil, number)))
}

// ParsePlaceNumber returns the number of the ticket at place.
func ParsePlaceNumber(place idempotency.Place) (number uint64, ok bool) {
	b, err := hex.DecodeString(string(place))
	if err != nil || len(b) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}

// OnlyLease is how long the only process that uses a backlog may work on its
// parts before it has to ask for them again: nobody else takes them.
const OnlyLease = time.Hour

// LeavesTicket tells whether next, which takes the place of the record old, leaves the
// ticket of old to nobody; nil: there is no record.
func LeavesTicket(old, next *idempotency.Record) bool {
	if old == nil || old.Deferred == nil {
		return false
	}
	return next == nil || next.Deferred == nil || next.Deferred.Place != old.Deferred.Place
}

// Queue returns rec as it is kept at place. It does not change rec.
func Queue(rec *idempotency.Record, place idempotency.Place) *idempotency.Record {
	kept, call := *rec, *rec.Deferred
	call.Place = place
	kept.Deferred = &call
	return &kept
}
