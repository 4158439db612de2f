package memory

import (
	"time"
	"unsafe"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// entry is a record in the store, and its places there.
type entry struct {
	kept
	newer, older *entry // see queue
	queued       bool
	unsettled    bool
	expiryPos    int // in Store.expiry
}

// kept is what the store keeps of a record. It is encoded but for what the store
// itself goes by: records lie here by the hundred thousand, and what points to
// nothing costs the garbage collector nothing. What is in these slices is never
// changed.
type kept struct {
	encoded []byte
	body    []byte            // of the answer or the deferred call; shared
	place   idempotency.Place // of the deferred call

	id       idempotency.ID
	owner    idempotency.Owner
	adoption idempotency.AdoptionID
	state    idempotency.State
	answered bool
	at       position

	// Those of the record in UTC, with the reading of the monotonic clock, which an
	// encoding has not: whoever sets the wall clock makes nothing expire.
	started, finished, told, expires time.Time
}

// position is where a record stands in listings; see store.AppendPlace.
type position [store.PlaceSize]byte

func positionOf(at idempotency.Position) (p position) {
	store.AppendPlace(p[:0], at)
	return p
}

// newKept returns what the store keeps of rec, of which it shares the body alone.
func newKept(rec *idempotency.Record) kept {
	k := kept{
		id: rec.ID, owner: rec.Owner, adoption: rec.Adoption, state: rec.State,
		at:      positionOf(store.PositionOf(rec)),
		started: rec.Started.UTC(), finished: rec.Finished.UTC(), told: rec.Told.UTC(), expires: rec.Expires.UTC(),
	}
	bare := *rec
	switch {
	case rec.Answer != nil:
		answer := *rec.Answer
		k.answered, k.body, answer.Body = true, answer.Body, nil
		bare.Answer = &answer
	case rec.Deferred != nil:
		call := *rec.Deferred
		k.place, k.body, call.Body = call.Place, call.Body, nil
		bare.Deferred = &call
	}
	k.encoded = store.Encode(nil, &bare)
	return k
}

// record returns the record.
func (e *entry) record() *idempotency.Record {
	rec, err := store.Decode(e.encoded)
	if err != nil {
		panic("memory: what was encoded here cannot be decoded: " + err.Error())
	}
	rec.Started, rec.Finished, rec.Told, rec.Expires = e.started, e.finished, e.told, e.expires
	switch {
	case rec.Answer != nil:
		rec.Answer.Body = e.body
	case rec.Deferred != nil:
		rec.Deferred.Body = e.body
	}
	return rec
}

func (e *entry) expired(now time.Time) bool { return !now.Before(e.expires) }

// ownedBy is idempotency.Record.OwnedBy.
func (e *entry) ownedBy(owner idempotency.Owner) bool {
	return owner != idempotency.Owner{} && e.owner == owner
}

// mayBeGivenUp tells whether e has an answer that may be given up to make room.
func (e *entry) mayBeGivenUp() bool { return e.state == idempotency.Done && e.answered }

// giveUp gives up the answer.
func (e *entry) giveUp() {
	rec := e.record()
	rec.Answer = nil
	e.kept = newKept(rec)
}

// entryOverhead is what an entry takes besides the bytes in it, on a 64-bit machine,
// with its places in the maps, the trees and the heap. Go's allocator rounds up to
// size classes, maps are at most 7/8 full and about 2/3 on average, and the collector
// lets garbage lie, which is not counted here.
const entryOverhead = int64(unsafe.Sizeof(entry{})) + 512

// ticketOverhead is a ticket of a deferred call.
const ticketOverhead = int64(unsafe.Sizeof(idempotency.Ticket{})) + 128

// size returns about how many bytes of memory an entry of k takes.
func (k *kept) size() int64 {
	n := entryOverhead + int64(cap(k.encoded)+cap(k.body))
	if k.place != "" {
		n += ticketOverhead
	}
	return n
}

// queue has entries in the order in which they were pushed. The zero queue is empty.
type queue struct{ oldest, newest *entry }

func (q *queue) push(e *entry) {
	e.older, e.queued = q.newest, true
	if q.newest == nil {
		q.oldest = e
	} else {
		q.newest.newer = e
	}
	q.newest = e
}

// remove removes e, if q has it.
func (q *queue) remove(e *entry) {
	if !e.queued {
		return
	}
	if e.older == nil {
		q.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		q.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.older, e.newer, e.queued = nil, nil, false
}
