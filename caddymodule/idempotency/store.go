package idempotency

import (
	"context"
	"errors"
	"time"
)

// Store keeps records. It must be safe for concurrent use, and every method
// that changes a record must be atomic with respect to all others on the same
// ID, also across processes where the store is shared.
//
// A record whose Expires has passed counts as absent everywhere. Times are
// kept to the nanosecond. Fields and the answer's body and headers come back
// as they went in; an empty body may come back nil and the reverse.
//
// "Durable" below means as durable as the store can be: for a store that
// outlives the process, the change must survive kill -9 and loss of power
// once the method has returned nil.
//
// Package storetest is the conformance suite of this interface.
type Store interface {
	// Get returns the record of id, or nil where there is none.
	Get(ctx context.Context, id ID) (*Record, error)

	// Claim durably stores rec if its ID has no record, or if the ID's record
	// carries the token over (the zero Owner never matches). It returns nil if
	// the claim was made, else the record that stands in the way.
	//
	// Where rec.Adoption is not zero, the record becomes unsettled: Unsettled
	// reports it until Settle, Release or expiry. But where a claim takes over the
	// Deferred of a record that was settled, with the same Adoption, it is so still:
	// its caller knows where to ask.
	//
	// A claim that returned an error may have been made, or may be made yet, up
	// to ClaimGrace after the call, unless the error wraps ErrNotMade.
	Claim(ctx context.Context, rec *Record, over Owner) (*Record, error)

	// Finish durably replaces the record of rec.ID if that carries rec.Owner,
	// whatever its state; else it returns ErrNotOwner and changes nothing.
	Finish(ctx context.Context, rec *Record) error

	// Release durably removes the record of id if it carries owner. It returns
	// ErrNotOwner if the record is another's, and nil if there is none. Where a
	// claim can be made late, none of owner's is made any more.
	Release(ctx context.Context, id ID, owner Owner) error

	// Unsettled returns the unsettled records of adoption, oldest Started first.
	Unsettled(ctx context.Context, adoption AdoptionID) ([]*Record, error)

	// Settle notes that the caller was given the answer of the record of id:
	// it is unsettled no longer. It does nothing if the record does not carry
	// owner. The change is atomic but need not be durable on return.
	Settle(ctx context.Context, id ID, owner Owner) error

	// Tell sets Told of the record of id if that carries owner, else it does
	// nothing. The change is atomic but need not be durable on return.
	Tell(ctx context.Context, id ID, owner Owner, told time.Time) error

	// Close releases what the store holds. No method may be under way or be
	// called afterwards.
	Close() error
}

// Clock is a Store with a clock of its own, by which its records go: times in
// them are compared with no other. Where a store has none, that is the wall clock.
type Clock interface {
	// Now tells the time.
	Now() time.Time

	// Elapsed tells how long ago since is at the most. Where a clock cannot know
	// for sure how much time has passed, it is behind: what it says is kept for a
	// while is kept for at least as long.
	Elapsed(since time.Time) time.Duration
}

// wallClock is the Clock of stores that have none.
type wallClock struct{}

func (wallClock) Now() time.Time                        { return time.Now() }
func (wallClock) Elapsed(since time.Time) time.Duration { return time.Since(since) }

// ClaimGrace is how long after it was asked for a claim can be made that has
// returned an error: it may be under way in a network that has stopped.
const ClaimGrace = 10 * time.Second

var (
	// ErrNotOwner is returned to who would change a record with the token of
	// a claim that is not, or no longer, the record's latest.
	ErrNotOwner = errors.New("the record belongs to another claim")

	// ErrFull is returned by Claim where a bounded store has no room for
	// another claim.
	ErrFull = errors.New("the store is full")

	// ErrBacklogFull is returned where a backlog has no room for another call.
	ErrBacklogFull = errors.New("the backlog is full")

	// ErrNotMade is wrapped by errors of Claim that say for certain that the
	// claim was not made, and will not be.
	ErrNotMade = errors.New("the claim was not made")
)
