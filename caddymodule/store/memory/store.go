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
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// DefaultMaxSize is the size of a store whose options name none: some 30,000
// calls with answers of 1 KiB, or 80,000 without.
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
// shares the answers that it is given and hands out, which nobody may change.
type Store struct {
	now func() time.Time

	mu        sync.RWMutex // guards all below
	maxSize   int64
	size      int64
	records   map[idempotency.ID]*entry
	unsettled map[idempotency.AdoptionID]map[*entry]struct{}
	expiry    expiryHeap
	finished  list.List // of *entry that are done with an answer, oldest first
	byStart   *tree     // of all
	open      *tree     // of those that are not Done
	tickets   *store.Tickets
	enqueued  func(idempotency.Part) // see OnEnqueue; nil: nobody wants to know
}

// entry is what the store keeps of a record.
type entry struct {
	rec       *idempotency.Record // replaced, never changed: others hold it
	size      int64
	unsettled bool
	expiryPos int           // in Store.expiry
	finished  *list.Element // in Store.finished, or nil
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
		return e.rec, nil
	}
	return nil, nil
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if standing := s.standingLocked(rec.ID, over); standing != nil {
		return standing, nil
	}
	if err := s.claimLocked(clone(rec)); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	return nil, nil
}

// standingLocked returns the record that stands in the way of a claim of id over
// the token over, or nil.
func (s *Store) standingLocked(id idempotency.ID, over idempotency.Owner) *idempotency.Record {
	if e := s.liveLocked(id); e != nil && !e.rec.OwnedBy(over) {
		return e.rec
	}
	return nil
}

// claimLocked makes the claim rec, which nothing stands in the way of, or returns
// ErrFull. From here on rec never changes.
func (s *Store) claimLocked(rec *idempotency.Record) error {
	s.reclaimLocked(reclaimBatch)
	old := s.records[rec.ID]
	if old != nil {
		s.removeLocked(old)
	}
	if !s.makeRoomLocked(size(rec)) {
		if old != nil {
			s.addLocked(old.rec, old.unsettled)
		}
		return idempotency.ErrFull
	}
	unsettled := true
	if old != nil {
		s.leaveLocked(old.rec, rec)
		unsettled = old.unsettled || rec.Deferred == nil || old.rec.Deferred == nil || old.rec.Adoption != rec.Adoption
	}
	s.addLocked(rec, unsettled)
	return nil
}

// Finish implements idempotency.Store. An answer that does not fit, even where
// all others are given up, becomes a tombstone at once.
func (s *Store) Finish(ctx context.Context, rec *idempotency.Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.ownedLocked(rec.ID, rec.Owner)
	if e == nil {
		return fmt.Errorf("finishing record: %w", idempotency.ErrNotOwner)
	}
	s.leaveLocked(e.rec, rec)
	if rec.Started.Equal(e.rec.Started) && rec.Adoption == e.rec.Adoption {
		s.replaceLocked(e, clone(rec))
	} else {
		s.removeLocked(e)
		s.addLocked(clone(rec), e.unsettled)
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
	if !e.rec.OwnedBy(owner) {
		return fmt.Errorf("releasing record: %w", idempotency.ErrNotOwner)
	}
	s.removeLocked(e)
	s.leaveLocked(e.rec, nil)
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
		if !e.rec.Expired(now) {
			recs = append(recs, e.rec)
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
		e.rec = clone(e.rec)
		e.rec.Told = told
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
	s.finished.Init()
	s.byStart, s.open = newTree(), newTree()
	s.tickets, s.enqueued = store.NewTickets(0), nil
	return nil
}

// liveLocked returns the entry of id, or nil where there is none or it has
// expired.
func (s *Store) liveLocked(id idempotency.ID) *entry {
	e := s.records[id]
	if e == nil || e.rec.Expired(s.now()) {
		return nil
	}
	return e
}

// ownedLocked returns the entry of id if it is there and owner owns it.
func (s *Store) ownedLocked(id idempotency.ID, owner idempotency.Owner) *entry {
	e := s.liveLocked(id)
	if e == nil || !e.rec.OwnedBy(owner) {
		return nil
	}
	return e
}

// addLocked adds rec, whose ID has no entry. From here on rec never changes.
func (s *Store) addLocked(rec *idempotency.Record, unsettled bool) {
	e := &entry{rec: rec, size: size(rec)}
	s.records[rec.ID] = e
	s.size += e.size
	heap.Push(&s.expiry, e)
	s.byStart.ReplaceOrInsert(store.PositionOf(rec), e)
	if rec.State != idempotency.Done {
		s.open.ReplaceOrInsert(store.PositionOf(rec), e)
	}
	if rec.State == idempotency.Done && rec.Answer != nil {
		e.finished = s.finished.PushBack(e)
	}
	if unsettled && rec.Adoption != (idempotency.AdoptionID{}) {
		e.unsettled = true
		alike := s.unsettled[rec.Adoption]
		if alike == nil {
			alike = make(map[*entry]struct{}, 1)
			s.unsettled[rec.Adoption] = alike
		}
		alike[e] = struct{}{}
	}
}

// replaceLocked puts rec, which has the same place in listings and the same adoption
// ID, into e: as most outcomes do, for less than a removal and an addition. From here
// on rec never changes.
func (s *Store) replaceLocked(e *entry, rec *idempotency.Record) {
	at := store.PositionOf(rec)
	if rec.State == idempotency.Done {
		s.open.Delete(at)
	} else {
		s.open.ReplaceOrInsert(at, e)
	}
	s.dropFinishedLocked(e)
	e.rec = rec
	s.size -= e.size
	e.size = size(rec)
	s.size += e.size
	heap.Fix(&s.expiry, e.expiryPos)
	if rec.State == idempotency.Done && rec.Answer != nil {
		e.finished = s.finished.PushBack(e)
	}
}

// removeLocked removes e. It leaves e.unsettled as it was.
func (s *Store) removeLocked(e *entry) {
	delete(s.records, e.rec.ID)
	s.size -= e.size
	heap.Remove(&s.expiry, e.expiryPos)
	s.byStart.Delete(store.PositionOf(e.rec))
	if e.rec.State != idempotency.Done {
		s.open.Delete(store.PositionOf(e.rec))
	}
	s.dropFinishedLocked(e)
	unsettled := e.unsettled
	s.settleLocked(e)
	e.unsettled = unsettled
}

func (s *Store) settleLocked(e *entry) {
	if !e.unsettled {
		return
	}
	e.unsettled = false
	alike := s.unsettled[e.rec.Adoption]
	delete(alike, e)
	if len(alike) == 0 {
		delete(s.unsettled, e.rec.Adoption)
	}
}

func (s *Store) dropFinishedLocked(e *entry) {
	if e.finished != nil {
		s.finished.Remove(e.finished)
		e.finished = nil
	}
}

// reclaimLocked removes up to n expired records, and tells how many it was.
func (s *Store) reclaimLocked(n int) (removed int) {
	for now := s.now(); removed < n && len(s.expiry) > 0 && s.expiry[0].rec.Expired(now); removed++ {
		e := s.expiry[0]
		s.removeLocked(e)
		s.leaveLocked(e.rec, nil)
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
		oldest := s.finished.Front()
		if oldest == nil {
			return false
		}
		e := oldest.Value.(*entry)
		s.dropFinishedLocked(e)
		e.rec = clone(e.rec)
		e.rec.Answer = nil
		s.size -= e.size
		e.size = size(e.rec)
		s.size += e.size
	}
	return true
}

// clone returns a copy of rec that shares its answer, and its deferred call.
func clone(rec *idempotency.Record) *idempotency.Record {
	c := *rec
	return &c
}
