package idempotency

import (
	"context"
	"time"
)

// Backlog is a Store that keeps calls for later, in the order in which they were
// handed over. The calls themselves stand in their records; the backlog has a
// ticket for each.
//
// It may be divided into parts. All calls of a lane are in the same part, and at
// most one process works on a part at a time, so that a lane keeps its order; what
// a process leaves undone that is gone, the next one goes on with.
//
// A call keeps its ticket, and its place, for as long as its record has Deferred:
// who claims it for sending, or puts it back by Finish, passes that on as it was
// read, the place included. A change of the record that drops Deferred, or has
// another place in it, leaves the ticket to nobody; a store may dequeue such a
// ticket by itself, with the change or later, and Release does so where nothing
// fails. A ticket is not wanted any more if its ID has no record with its place.
//
// Package storetest has the conformance suite of this interface too.
type Backlog interface {
	Store

	// Enqueue is Claim for rec, which is Queued, and puts a ticket for it at the
	// end of the backlog. rec.Deferred.Place is empty, and rec is not changed; the
	// record as it is kept has the ticket's. No place is ever used again. It
	// returns ErrBacklogFull, and has changed nothing, where the backlog would
	// exceed bounds; where a record stands in the way as well, either.
	//
	// A crash in between, or an error, may leave a ticket that no record has the
	// place of; whoever comes to it dequeues it. Up to ClaimGrace after Since its
	// record may yet come.
	Enqueue(ctx context.Context, rec *Record, over Owner, bounds Bounds) (*Record, error)

	// Parts returns the parts that this process may work on until lease is over,
	// by when it must have asked again. It asks for nothing that another living
	// process works on, and for no more than its share where there are others.
	// The order of what is returned means nothing.
	Parts(ctx context.Context) (parts []Part, lease time.Duration, err error)

	// Tickets returns up to limit tickets of part that come after the place after,
	// in their order; the empty Place comes before all. The ticket at after may be
	// gone. None turns up later before one that was returned.
	Tickets(ctx context.Context, part Part, after Place, limit int) ([]Ticket, error)

	// Dequeue takes the ticket at place out of the backlog, if it is there. The
	// change is atomic but need not be durable on return: a ticket that a crash
	// brings back is one that is not wanted any more.
	Dequeue(ctx context.Context, place Place) error

	// Depth tells how much there is in the whole backlog.
	Depth(ctx context.Context) (Depth, error)

	// OnEnqueue has enqueued called when a ticket may have been added to a part by
	// any process, from then on until Close; some may be missed where there are
	// several processes. It is called once. enqueued must not block, nor call the
	// store.
	OnEnqueue(enqueued func(Part))
}

// BacklogOf returns the backlog that store is, or that it says it has by a method
// Backlog() Backlog, as a wrapper of stores does; nil: none.
func BacklogOf(store Store) Backlog {
	switch s := store.(type) {
	case Backlog:
		return s
	case interface{ Backlog() Backlog }:
		return s.Backlog()
	default:
		return nil
	}
}

// Bounds are what a backlog may grow to. Zero: no bound.
type Bounds struct {
	Calls int
	Bytes int64 // of the requests, as Deferred.Size tells them
}

// Depth is how much there is in a backlog.
type Depth struct {
	Calls  int
	Bytes  int64
	Oldest time.Time // Since of the ticket that comes first; zero: there is none
}

// Part names a part of a backlog.
type Part string

// Place is where a ticket stands in a backlog. What is in it is the store's
// affair; it has at most 64 bytes.
type Place string

// LaneID names a lane: calls that are made one after the other, in the order in
// which they were handed over.
type LaneID [16]byte

// Ticket stands in a backlog for a call.
type Ticket struct {
	Place Place
	ID    ID
	Lane  LaneID
	Since time.Time // when it was put there; to the millisecond
	Size  int64     // Deferred.Size
}

// Deferred is a call that was handed over for later, as it is to be sent. Whoever
// has one must not change it or what it points to.
type Deferred struct {
	Place  Place
	Lane   LaneID
	Since  time.Time // when it was handed over
	Policy uint64    // which configuration it came in by; a digest
	Method string
	URL    string // path and query
	Header Header
	Body   []byte
}

// Size returns what the call counts for in Bounds, in bytes.
func (d *Deferred) Size() int64 {
	return int64(len(d.Method) + len(d.URL) + len(d.Header) + len(d.Body))
}
