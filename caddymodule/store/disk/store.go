package disk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// Store is an idempotency.Store in a directory. It is safe for concurrent use.
// Claims, finishes and releases that are under way at the same time share one
// sync of the disk. A context is looked at when a method starts; nothing that
// is under way is cancelled.
type Store struct {
	fs      vfs.FS
	lock    *lock // of the directory
	dbLock  *lock // of the database in it, against Pebble's own tools
	options Options
	clock   *clock    // nil where the options have one
	noted   time.Time // by the clock, when the database was opened first
	logger  *slog.Logger
	keys    store.Keys

	// use is held for reading by every method, so that the database is not
	// closed or replaced under one.
	use      sync.RWMutex
	database       // guarded by use; replaced by the goroutine of run alone
	down     error // guarded by use; why there is no database
	closed   bool  // guarded by use; Close was called

	stop       chan struct{} // closed by Close
	background sync.WaitGroup
	syncing    atomic.Bool                            // a sync of notes is about to begin
	enqueued   atomic.Pointer[func(idempotency.Part)] // see OnEnqueue

	groups  groups
	stripes [stripes]stripe
}

var _ idempotency.Store = (*Store)(nil)

// Get implements idempotency.Store.
func (s *Store) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	r, err := s.share(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	defer r.unshare()
	rec, err := r.live()
	if err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	return rec, nil
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	return s.claim(ctx, rec, over, nil)
}

// claim is Claim, and where e is not nil, it is Enqueue.
func (s *Store) claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, e *enqueuing) (*idempotency.Record, error) {
	r, err := s.hold(ctx, rec.ID)
	if err != nil {
		return nil, fmt.Errorf("claiming record: %w: %w", idempotency.ErrNotMade, err)
	}
	defer r.release()
	read := r.stored
	if over == (idempotency.Owner{}) {
		read = r.storedSeldom // most keys are new
	}
	old, err := read()
	if err != nil {
		return nil, fmt.Errorf("claiming record: %w: %w", idempotency.ErrNotMade, err)
	}
	if old != nil && !s.isGone(old) && (over == idempotency.Owner{} || old.Owner != over) {
		return old, nil
	}
	made := false
	if e != nil {
		if rec, err = s.reserve(rec, e); err != nil {
			return nil, fmt.Errorf("claiming record: %w: %w", idempotency.ErrNotMade, err)
		}
		defer func() { s.decide(e, made) }()
	}

	b := s.db.NewBatch()
	settled := false
	if e != nil {
		err = b.Set(ticketKey(e.number), ticketValue(rec.ID, rec.Deferred), nil)
	}
	if old != nil {
		var settleErr error
		settled, settleErr = r.settle(b, old)
		err = errors.Join(err, settleErr, s.leave(b, old, rec), b.Delete(expiryKey(old.Expires, old.ID), nil))
	}
	unsettled := rec.Adoption != idempotency.AdoptionID{}
	if old != nil && !settled && old.Deferred != nil && rec.Deferred != nil && old.Adoption == rec.Adoption {
		unsettled = false // its caller has been told where to ask
	}
	if unsettled {
		s.unsettled.count(rec.Adoption).Add(1)
		err = errors.Join(err, b.Set(unsettledKey(rec.Adoption, rec.ID), nil, nil))
	}
	err = errors.Join(err, s.setRecord(b, rec), place(b, old, rec), b.Set(expiryKey(rec.Expires, rec.ID), nil, nil))
	if err = s.commit(b, err); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	made = true
	s.left(old, rec)
	if settled {
		s.unsettled.count(old.Adoption).Add(-1)
	}
	r.begin(rec, unsettled)
	return nil, nil
}

// Finish implements idempotency.Store.
//
// It leaves the expiry index as the claim made it, which saves a third of the
// writes: a finished record expires a little earlier than the claim foresaw,
// and the sweep goes by the record.
func (s *Store) Finish(ctx context.Context, rec *idempotency.Record) error {
	r, err := s.hold(ctx, rec.ID)
	if err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	defer r.release()
	old, err := r.owned(rec.Owner)
	if err == nil && old == nil {
		err = idempotency.ErrNotOwner
	}
	if err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}

	b := s.db.NewBatch()
	settled := false
	if old.Adoption != rec.Adoption {
		settled, err = r.settle(b, old)
		if settled && rec.Adoption != (idempotency.AdoptionID{}) {
			s.unsettled.count(rec.Adoption).Add(1)
			err = errors.Join(err, b.Set(unsettledKey(rec.Adoption, rec.ID), nil, nil))
		}
	}
	if err = s.commit(b, errors.Join(err, s.setRecord(b, rec), place(b, old, rec), s.leave(b, old, rec))); err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	s.left(old, rec)
	if settled {
		s.unsettled.count(old.Adoption).Add(-1)
	}
	r.end()
	return nil
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	r, err := s.hold(ctx, id)
	if err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	defer r.release()
	old, err := r.live()
	if err == nil && old != nil && !old.OwnedBy(owner) {
		err = idempotency.ErrNotOwner
	}
	settled := false
	if err == nil && old != nil {
		b := s.db.NewBatch()
		settled, err = r.settle(b, old)
		err = s.commit(b, errors.Join(err, place(b, old, nil), s.leave(b, old, nil),
			b.Delete(recordKey(id), nil), b.Delete(expiryKey(old.Expires, id), nil)))
	}
	if err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	s.left(old, nil)
	if settled {
		s.unsettled.count(old.Adoption).Add(-1)
	}
	if old != nil {
		s.filter.removed()
	}
	r.end()
	return nil
}

// Unsettled implements idempotency.Store.
func (s *Store) Unsettled(ctx context.Context, adoption idempotency.AdoptionID) ([]*idempotency.Record, error) {
	ids, err := s.unsettledIDs(ctx, adoption)
	if err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	var recs []*idempotency.Record
	for _, id := range ids {
		rec, err := s.stillUnsettled(ctx, id, adoption)
		if err != nil {
			return nil, fmt.Errorf("listing unsettled records: %w", err)
		}
		if rec != nil {
			recs = append(recs, rec)
		}
	}
	slices.SortStableFunc(recs, func(a, b *idempotency.Record) int { return a.Started.Compare(b.Started) })
	return recs, nil
}

// Settle implements idempotency.Store.
func (s *Store) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	r, err := s.hold(ctx, id)
	if err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	defer r.release()
	old, err := r.owned(owner)
	if err == nil && old != nil {
		b := s.db.NewBatch()
		var settled bool
		settled, err = r.settle(b, old)
		if err = s.note(b, err); err == nil && settled {
			s.unsettled.count(old.Adoption).Add(-1)
			r.amend(old, false)
		}
	}
	if err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	return nil
}

// Tell implements idempotency.Store.
func (s *Store) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	r, err := s.hold(ctx, id)
	if err != nil {
		return fmt.Errorf("noting what a caller was told: %w", err)
	}
	defer r.release()
	old, err := r.owned(owner)
	if err == nil && old != nil {
		rec := *old
		rec.Told = told
		b := s.db.NewBatch()
		if err = s.note(b, s.setRecord(b, &rec)); err == nil {
			r.amend(&rec, true)
		}
	}
	if err != nil {
		return fmt.Errorf("noting what a caller was told: %w", err)
	}
	return nil
}

// Close implements idempotency.Store. It waits for methods that are under way.
// Calling it again returns ErrClosed.
func (s *Store) Close() error {
	s.use.Lock()
	if s.closed {
		s.use.Unlock()
		return ErrClosed
	}
	s.closed = true
	close(s.stop)
	s.use.Unlock()
	s.background.Wait()

	s.use.Lock()
	defer s.use.Unlock()
	err := s.down
	if err == nil {
		if s.guard.failure() == nil {
			if s.clock != nil {
				value, _ := s.clockNote()
				err = s.db.Set(clockKey, value, pebble.NoSync)
			}
			// Damage to tables is always detected, damage to the end of a log
			// may not be.
			err = errors.Join(err, s.db.Flush())
		}
		err = errors.Join(err, closeDB(s.db), s.failed())
	}
	err = errors.Join(err, s.dbLock.Close(), s.lock.Close())
	if err != nil {
		return fmt.Errorf("closing store: %w", err)
	}
	return nil
}

// begin starts a method. Where it returns nil, end must follow.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.use.RLock()
	err := s.down
	if err == nil {
		err = s.failed()
	}
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.use.RUnlock()
	}
	return err
}

func (s *Store) end() { s.use.RUnlock() }

// commit makes b durable, unless err, with which it was filled, is not nil. It
// keeps b.
func (s *Store) commit(b *pebble.Batch, err error) error {
	if err != nil {
		return errors.Join(err, b.Close())
	}
	err = s.groups.commit(b)
	if failed := s.failed(); failed != nil {
		return failed
	}
	return err
}

// note commits b, which is made durable soon, unless err, with which it was
// filled, is not nil. It must be called between begin and end.
func (s *Store) note(b *pebble.Batch, err error) error {
	if err != nil {
		return errors.Join(err, b.Close())
	}
	if b.Empty() {
		return b.Close()
	}
	err = b.Commit(pebble.NoSync)
	if failed := s.failed(); failed != nil {
		return failed // and let the batch go: who knows who holds it
	}
	s.syncSoon()
	return errors.Join(err, b.Close())
}

// syncDelay is how long notes wait for others, to share a sync with them.
const syncDelay = 10 * time.Millisecond

// syncSoon has what was committed without a sync made durable in the
// background. Left alone, it would stay in Pebble's buffer until the next
// commit that asks for a sync, for hours where there is little to do. It must
// be called between begin and end.
func (s *Store) syncSoon() {
	if s.syncing.Load() || !s.syncing.CompareAndSwap(false, true) {
		return // it will be synced along
	}
	s.background.Go(func() {
		select {
		case <-time.After(syncDelay):
		case <-s.stop:
		}
		s.syncing.Store(false)
		if s.begin(context.Background()) != nil {
			return // Close flushes
		}
		defer s.end()
		if err := s.db.LogData(nil, pebble.Sync); err != nil && s.failed() == nil {
			s.logger.Error("syncing notes", slog.Any("error", err))
		}
	})
}

// setRecord puts rec into b, without its entries in the indexes.
func (s *Store) setRecord(b *pebble.Batch, rec *idempotency.Record) error {
	if err := s.admit(rec); err != nil {
		return err
	}
	s.filter.add(rec.ID)
	buf := encodings.Get().(*[]byte)
	defer encodings.Put(buf)
	*buf = s.keys.Ring().Encode((*buf)[:0], rec)
	err := b.Set(recordKey(rec.ID), *buf, nil)
	if cap(*buf) > maxEncoding {
		*buf = nil // else one large answer would stay in memory for long
	}
	return err
}

// encodings are buffers that records are encoded in.
var encodings = sync.Pool{New: func() any { return new([]byte) }}

// maxEncoding is the size of the largest buffer that is kept, in bytes.
const maxEncoding = 64 << 10
