// Package memory keeps records in memory, within a bound. Nothing survives the
// process: after a restart every call may run once more.
//
// Where room runs short, the answers of done records are given up, those first
// that were finished first, and tombstones stay: a repeat is then told that the
// call ran, and nothing more. Claims are never given up, since a call whose
// claim is forgotten would run again, nor are calls that were handed over for
// later, since they would not run at all. Where that is not enough, new claims are
// refused.
//
// What is removed is in no file, since nothing ever is.
package memory

import (
	"container/heap"
	"context"
	"fmt"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// DefaultMaxSize is the size of a store whose options name none: some 28,000
// calls with answers of 1 KiB, or 50,000 without.
const DefaultMaxSize = 64 << 20

// reclaimBatch is how many expired records a write removes at most, so that no
// caller pays for all of them. It is more than the one that a write can add, so
// the expired ones do not pile up.
const reclaimBatch = 8

// Options are the options of a Store. The zero value is ready for use.
type Options struct {
	// MaxSize bounds the memory that the records take, in bytes, as far as that
	// can be told from outside. 0: DefaultMaxSize.
	MaxSize int64

	// Now tells the time that records expire by. It must be safe for
	// concurrent use. nil: time.Now.
	Now func() time.Time
}

// Store is an idempotency.Store in memory. It is safe for concurrent use. It
// shares the bodies that it is given and hands out, which nobody may change.
type Store struct {
	now func() time.Time

	mu        sync.RWMutex // guards all below
	maxSize   int64
	size      int64
	records   map[idempotency.ID]*entry
	unsettled map[idempotency.AdoptionID]map[*entry]struct{}
	expiry    expiryHeap
	finished  queue // of entries that are done with an answer
	byStart   *tree // of all
	open      *tree // of those that are not Done
	tickets   *store.Tickets
	enqueued  func(idempotency.Part) // see OnEnqueue; nil: nobody wants to know
}

var _ idempotency.Store = (*Store)(nil)

// New returns an empty store.
func New(opts Options) *Store {
	s := &Store{
		now:       opts.Now,
		maxSize:   maxSize(opts.MaxSize),
		records:   make(map[idempotency.ID]*entry),
		unsettled: make(map[idempotency.AdoptionID]map[*entry]struct{}),
		byStart:   newTree(),
		open:      newTree(),
		tickets:   store.NewTickets(0),
	}
	if s.now == nil {
		s.now = time.Now
	}
	return s
}

func maxSize(n int64) int64 {
	if n == 0 {
		return DefaultMaxSize
	}
	return n
}

// SetMaxSize changes the bound, as Options.MaxSize has it, and gives up answers
// that are beyond it.
func (s *Store) SetMaxSize(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.maxSize = maxSize(n)
	s.makeRoomLocked(0)
}

// Size returns about how many bytes of memory the records take.
func (s *Store) Size() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.size
}

// Get implements idempotency.Store.
func (s *Store) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if e := s.liveLocked(id); e != nil {
		return e.record(), nil
	}
	return nil, nil
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	e := &entry{kept: newKept(rec)} // encoded here, where nobody waits for it
	s.mu.Lock()
	defer s.mu.Unlock()
	if standing := s.standingLocked(rec.ID, over); standing != nil {
		return standing, nil
	}
	if err := s.claimLocked(e); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	return nil, nil
}

// standingLocked returns the record that stands in the way of a claim of id over
// the token over, or nil.
func (s *Store) standingLocked(id idempotency.ID, over idempotency.Owner) *idempotency.Record {
	if e := s.liveLocked(id); e != nil && !e.ownedBy(over) {
		return e.record()
	}
	return nil
}

// claimLocked makes the claim e, which nothing stands in the way of, or returns
// ErrFull.
func (s *Store) claimLocked(e *entry) error {
	s.reclaimLocked(reclaimBatch)
	old := s.records[e.id]
	if old != nil {
		s.removeLocked(old)
	}
	if !s.makeRoomLocked(e.size()) {
		if old != nil {
			s.addLocked(old, old.unsettled)
		}
		return idempotency.ErrFull
	}
	unsettled := true
	if old != nil {
		s.leaveLocked(old, &e.kept)
		unsettled = old.unsettled || e.place == "" || old.place == "" || old.adoption != e.adoption
	}
	s.addLocked(e, unsettled)
	return nil
}

// Finish implements idempotency.Store. An answer that does not fit, even where
// all others are given up, becomes a tombstone at once.
func (s *Store) Finish(ctx context.Context, rec *idempotency.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	next := newKept(rec)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.ownedLocked(rec.ID, rec.Owner)
	if e == nil {
		return fmt.Errorf("finishing record: %w", idempotency.ErrNotOwner)
	}
	s.leaveLocked(e, &next)
	if next.at == e.at && next.adoption == e.adoption {
		s.replaceLocked(e, &next)
	} else {
		s.removeLocked(e)
		s.addLocked(&entry{kept: next}, e.unsettled)
	}
	s.reclaimLocked(reclaimBatch)
	s.makeRoomLocked(0)
	return nil
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.liveLocked(id)
	if e == nil {
		return nil
	}
	if !e.ownedBy(owner) {
		return fmt.Errorf("releasing record: %w", idempotency.ErrNotOwner)
	}
	s.removeLocked(e)
	s.leaveLocked(e, nil)
	return nil
}

// Unsettled implements idempotency.Store.
func (s *Store) Unsettled(ctx context.Context, adoption idempotency.AdoptionID) ([]*idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	now := s.now()
	var recs []*idempotency.Record
	for e := range s.unsettled[adoption] {
		if !e.expired(now) {
			recs = append(recs, e.record())
		}
	}
	store.SortOldestFirst(recs)
	return recs, nil
}

// Settle implements idempotency.Store.
func (s *Store) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ownedLocked(id, owner); e != nil {
		s.settleLocked(e)
	}
	return nil
}

// Tell implements idempotency.Store.
func (s *Store) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("noting what a caller was told: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.ownedLocked(id, owner); e != nil {
		e.told = told.UTC()
	}
	return nil
}

// Close implements idempotency.Store. It forgets every record.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.records)
	clear(s.unsettled)
	s.expiry, s.size = nil, 0
	s.finished = queue{}
	s.byStart, s.open = newTree(), newTree()
	s.tickets, s.enqueued = store.NewTickets(0), nil
	return nil
}

// liveLocked returns the entry of id, or nil where there is none or it has
// expired.
func (s *Store) liveLocked(id idempotency.ID) *entry {
	e := s.records[id]
	if e == nil || e.expired(s.now()) {
		return nil
	}
	return e
}

// ownedLocked returns the entry of id if it is there and owner owns it.
func (s *Store) ownedLocked(id idempotency.ID, owner idempotency.Owner) *entry {
	e := s.liveLocked(id)
	if e == nil || !e.ownedBy(owner) {
		return nil
	}
	return e
}

// addLocked adds e, whose ID has no entry.
func (s *Store) addLocked(e *entry, unsettled bool) {
	s.records[e.id] = e
	s.size += e.size()
	heap.Push(&s.expiry, e)
	s.byStart.ReplaceOrInsert(e.at, e)
	if e.state != idempotency.Done {
		s.open.ReplaceOrInsert(e.at, e)
	}
	if e.mayBeGivenUp() {
		s.finished.push(e)
	}
	if unsettled && e.adoption != (idempotency.AdoptionID{}) {
		e.unsettled = true
		alike := s.unsettled[e.adoption]
		if alike == nil {
			alike = make(map[*entry]struct{}, 1)
			s.unsettled[e.adoption] = alike
		}
		alike[e] = struct{}{}
	}
}

// replaceLocked puts what next has of its record into e, which has the same place in
// listings and the same adoption ID: as most outcomes do, for less than a removal and
// an addition.
func (s *Store) replaceLocked(e *entry, next *kept) {
	if next.state == idempotency.Done {
		s.open.Delete(e.at)
	} else {
		s.open.ReplaceOrInsert(e.at, e)
	}
	s.finished.remove(e)
	s.size += next.size() - e.size()
	e.kept = *next
	heap.Fix(&s.expiry, e.expiryPos)
	if e.mayBeGivenUp() {
		s.finished.push(e)
	}
}

// removeLocked removes e. It leaves e.unsettled as it was.
func (s *Store) removeLocked(e *entry) {
	delete(s.records, e.id)
	s.size -= e.size()
	heap.Remove(&s.expiry, e.expiryPos)
	s.byStart.Delete(e.at)
	if e.state != idempotency.Done {
		s.open.Delete(e.at)
	}
	s.finished.remove(e)
	unsettled := e.unsettled
	s.settleLocked(e)
	e.unsettled = unsettled
}

func (s *Store) settleLocked(e *entry) {
	if !e.unsettled {
		return
	}
	e.unsettled = false
	alike := s.unsettled[e.adoption]
	delete(alike, e)
	if len(alike) == 0 {
		delete(s.unsettled, e.adoption)
	}
}

// reclaimLocked removes up to n expired records, and tells how many it was.
func (s *Store) reclaimLocked(n int) (removed int) {
	for now := s.now(); removed < n && len(s.expiry) > 0 && s.expiry[0].expired(now); removed++ {
		e := s.expiry[0]
		s.removeLocked(e)
		s.leaveLocked(e, nil)
	}
	return removed
}

// makeRoomLocked makes room for need more bytes: by removing what has expired,
// then by giving up answers. It tells whether there is that much room.
func (s *Store) makeRoomLocked(need int64) bool {
	for s.size+need > s.maxSize {
		if s.reclaimLocked(reclaimBatch) > 0 {
			continue
		}
		e := s.finished.oldest
		if e == nil {
			return false
		}
		s.finished.remove(e)
		s.size -= e.size()
		e.giveUp()
		s.size += e.size()
	}
	return true
}
