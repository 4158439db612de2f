package idempotency

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// Lister is a Store that can be looked through. Operators do; calls never
// depend on it.
type Lister interface {
	Store

	// List returns records that match q, the latest Started first, those that
	// started at the same time in descending order of their IDs. It looks at a
	// bounded number of records and may return fewer than q.Limit, or none,
	// although there are more: then the listing has a Next.
	//
	// What is claimed, changed or removed while pages are read may be on one,
	// on none, or in another state; a record that stays as it is, is on exactly
	// one. The bodies of answers and of deferred calls may be missing from records
	// in a listing.
	List(ctx context.Context, q Query) (Listing, error)

	// Tally returns how many records there are in each state but Done.
	Tally(ctx context.Context) (map[State]int, error)
}

// Finder is a store that finds records by how their IDs begin without looking
// through all.
type Finder interface {
	// Find returns up to two IDs of records that begin with prefix.
	Find(ctx context.Context, prefix []byte) ([]ID, error)
}

// Purger is a store that keeps what was removed or replaced in its files for a
// while.
type Purger interface {
	// Purge returns when nothing of what was removed or replaced before is in
	// them any more.
	Purge(ctx context.Context) error
}

// Query says which records are wanted. A zero field does not restrict them.
type Query struct {
	States []State   // any of these
	Action string    // Label.Action, to the letter
	Scopes []ScopeID // Label.Scope is any of these
	Since  time.Time // not Started before
	After  Position  // beginning after this record
	Limit  int       // how many at most; 0: DefaultLimit
}

// DefaultLimit is how many records are listed where a Query does not say.
const DefaultLimit = 100

// Position is where a record stands in a listing. The zero Position is before
// the first.
type Position struct {
	Started time.Time
	ID      ID
}

// IsZero tells whether p is the zero Position.
func (p Position) IsZero() bool { return p.Started.IsZero() && p.ID == ID{} }

// Listing is a part of what was listed.
type Listing struct {
	Records []*Record
	Next    Position // where to go on; zero: there are no more
}

// Matches tells whether rec is wanted, but for where the listing begins.
func (q Query) Matches(rec *Record) bool {
	return (len(q.States) == 0 || slices.Contains(q.States, rec.State)) &&
		(q.Action == "" || q.Action == rec.Label.Action) &&
		(len(q.Scopes) == 0 || slices.Contains(q.Scopes, rec.Label.Scope)) &&
		!rec.Started.Before(q.Since)
}

// Before tells whether rec comes after p in a listing.
func (p Position) Before(rec *Record) bool {
	if p.IsZero() {
		return true
	}
	if c := rec.Started.Compare(p.Started); c != 0 {
		return c < 0
	}
	return bytes.Compare(rec.ID[:], p.ID[:]) < 0
}
