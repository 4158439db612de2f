package idempotency

import (
	"context"
	"time"
)

// SharedStore is a Store that several processes use at a time, each through gates of
// its own. What one of them leaves unsaid by being gone, the others have to
// find out: every gate shows signs of life, under its Process.
//
// Copies of a change may come late, when the network held them up. A record that
// has ended is not Started or Queued again by its own claim: Finish returns
// ErrNotOwner.
//
// Package storetest has the conformance suite of this interface too.
type SharedStore interface {
	Store

	// Join has p show signs of life from now on until Close. It is called once.
	// Before each sign, before is called; where that fails, none is shown: who
	// sees one can take it that p has noted what it had to note until then.
	Join(p Process, before func(context.Context) error)

	// Life tells what is known of p's life.
	Life(ctx context.Context, p Process) (Life, error)

	// Ping waits for p to show a sign of life that is later than the beginning
	// of Ping, and asks it for one. It tells whether there was one before p was
	// taken for dead.
	Ping(ctx context.Context, p Process) (bool, error)

	// Watch returns a channel that gets a value when the record of id, which is
	// there, changes its state or its owner, or goes. What happened before Watch
	// returned may be missed, and more where the store's notices are lost:
	// whoever watches must look for themselves after Watch has returned, and now
	// and then. stop ends the watch; it must be called, and may be again.
	Watch(ctx context.Context, id ID) (changed <-chan struct{}, stop func(), err error)

	// Renew makes sure that rec's claim stands: where a store that has failed
	// over has lost it, Renew makes it anew. It changes nothing where there is a
	// record, and returns that if it is another's. It need not be durable on
	// return.
	Renew(ctx context.Context, rec *Record) (*Record, error)

	// Drop tells all processes that the record of id was changed after it had
	// ended, so that none repeats it from memory.
	Drop(ctx context.Context, id ID) error

	// OnDrop has drop called for each Drop of any process, from then on until
	// Close: with its ID, or with all set where some may have been missed. It is
	// called once. drop must not block.
	OnDrop(drop func(id ID, all bool))

	// Attend sets Attendant of the record of id to next if it is was, and tells
	// whether it is next now, be it from before. The change is atomic but need not be durable on
	// return. Finish leaves Attendant as it is.
	Attend(ctx context.Context, id ID, was, next Owner) (bool, error)
}

// Life is what a shared store knows of a process's life.
type Life struct {
	// Alive says that the process lives, or that it cannot be told yet: it was
	// heard of within the store's lease, or this process could not have heard
	// of it, having been cut off from the store.
	Alive bool

	// Seen is when the process was last heard of; zero: never, or too long ago.
	Seen time.Time
}
