package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// stripes is the number of locks that IDs share. A claim holds its lock while
// the disk syncs, so two IDs that share one wait for two syncs; with this many
// that is rare.
const stripes = 1024

// Store is an idempotency.Store in a directory. It is safe for concurrent use.
// Claims, finishes and releases that are under way at the same time share one
// sync of the disk. A context is looked at when a method starts; nothing that
// is under way is cancelled.
type Store struct {
	db     *pebble.DB
	guard  *guard
	lock   io.Closer
	now    func() time.Time
	logger *slog.Logger

	// use is held for reading by every method, so that the database is not
	// closed under one.
	use      sync.RWMutex
	closed   bool // guarded by use; Close was called
	dbClosed bool // guarded by use

	stop       chan struct{} // closed by Close
	background sync.WaitGroup
	syncing    atomic.Bool // a sync of notes is about to begin

	// ids makes changes of one record atomic. Writers hold their lock until
	// the change is durable, and readers take it as well, so that nobody acts
	// on what a crash could take back.
	ids [stripes]sync.RWMutex
}

var _ idempotency.Store = (*Store)(nil)

// Get implements idempotency.Store.
func (s *Store) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	defer s.end()
	mu := s.mutex(id)
	mu.RLock()
	defer mu.RUnlock()

	rec, err := s.live(id)
	if err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	return rec, nil
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	var standing *idempotency.Record
	err := s.change(ctx, rec.ID, pebble.Sync, func(b *pebble.Batch) error {
		old, err := s.stored(rec.ID)
		if err != nil {
			return err
		}
		if old != nil && !old.Expired(s.now()) && (over == idempotency.Owner{} || old.Owner != over) {
			standing = old
			return nil
		}
		return replace(b, old, rec, true)
	})
	if err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	return standing, nil
}

// Finish implements idempotency.Store.
func (s *Store) Finish(ctx context.Context, rec *idempotency.Record) error {
	err := s.change(ctx, rec.ID, pebble.Sync, func(b *pebble.Batch) error {
		old, err := s.owned(rec.ID, rec.Owner)
		if err != nil {
			return err
		}
		if old == nil {
			return idempotency.ErrNotOwner
		}
		unsettled, err := s.unsettled(old)
		if err != nil {
			return err
		}
		return replace(b, old, rec, unsettled)
	})
	if err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	return nil
}

// Release implements idempotency.Store.
func (s *Store) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	err := s.change(ctx, id, pebble.Sync, func(b *pebble.Batch) error {
		old, err := s.live(id)
		if err != nil || old == nil {
			return err
		}
		if !old.OwnedBy(owner) {
			return idempotency.ErrNotOwner
		}
		return remove(b, old)
	})
	if err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	return nil
}

// Unsettled implements idempotency.Store.
func (s *Store) Unsettled(ctx context.Context, adoption idempotency.AdoptionID) ([]*idempotency.Record, error) {
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	defer s.end()

	ids, err := s.list(unsettledPrefix(adoption), after(unsettledPrefix(adoption)), -1)
	if err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	var recs []*idempotency.Record
	for _, id := range ids {
		rec, err := s.stillUnsettled(id, adoption)
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

// stillUnsettled returns the record of id, which a listing showed to be
// unsettled a moment ago, unless it is no longer.
func (s *Store) stillUnsettled(id idempotency.ID, adoption idempotency.AdoptionID) (*idempotency.Record, error) {
	mu := s.mutex(id)
	mu.RLock()
	defer mu.RUnlock()
	rec, err := s.live(id)
	if err != nil || rec == nil || rec.Adoption != adoption {
		return nil, err
	}
	if unsettled, err := s.unsettled(rec); err != nil || !unsettled {
		return nil, err
	}
	return rec, nil
}

// Settle implements idempotency.Store.
func (s *Store) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	err := s.change(ctx, id, pebble.NoSync, func(b *pebble.Batch) error {
		old, err := s.owned(id, owner)
		if err != nil || old == nil || old.Adoption == (idempotency.AdoptionID{}) {
			return err
		}
		return b.Delete(unsettledKey(old.Adoption, id), nil)
	})
	if err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	return nil
}

// Tell implements idempotency.Store.
func (s *Store) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	err := s.change(ctx, id, pebble.NoSync, func(b *pebble.Batch) error {
		old, err := s.owned(id, owner)
		if err != nil || old == nil {
			return err
		}
		rec := *old
		rec.Told = told
		return b.Set(recordKey(id), store.Encode(nil, &rec), nil)
	})
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
	var err error
	if !s.dbClosed && s.guard.failure() == nil {
		// Damage to tables is always detected, damage to the end of a log
		// may not be.
		err = s.db.Flush()
	}
	err = errors.Join(err, s.closeDBLocked(), s.failed(), s.lock.Close())
	if err != nil {
		return fmt.Errorf("closing store: %w", err)
	}
	return nil
}

// closeDBLocked closes the database unless it is closed already.
func (s *Store) closeDBLocked() error {
	if s.dbClosed {
		return nil
	}
	s.dbClosed = true
	return s.db.Close()
}

// begin starts a method. Where it returns nil, end must follow.
func (s *Store) begin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.use.RLock()
	err := s.failed()
	if s.closed {
		err = ErrClosed
	}
	if err != nil {
		s.use.RUnlock()
	}
	return err
}

func (s *Store) end() { s.use.RUnlock() }

// failed returns an error if a write has failed. Whatever Pebble says counts
// only if this returns nil afterwards.
func (s *Store) failed() error {
	if err := s.guard.failure(); err != nil {
		return fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return nil
}

func (s *Store) mutex(id idempotency.ID) *sync.RWMutex {
	return &s.ids[(int(id[0])<<8|int(id[1]))%stripes]
}

// change commits what fill puts into a batch, with nobody else changing or
// reading the record of id until it is durable as opts has it. It commits
// nothing if fill fails or leaves the batch empty.
func (s *Store) change(ctx context.Context, id idempotency.ID, opts *pebble.WriteOptions, fill func(*pebble.Batch) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	mu := s.mutex(id)
	mu.Lock()
	defer mu.Unlock()

	b := s.db.NewBatch()
	if err := fill(b); err != nil {
		return errors.Join(err, b.Close())
	}
	if b.Empty() {
		return b.Close()
	}
	err := b.Commit(opts)
	if failed := s.failed(); failed != nil {
		return failed // and let the batch go: who knows who holds it
	}
	if !opts.Sync {
		s.syncSoon()
	}
	return errors.Join(err, b.Close())
}

// syncSoon has what was committed without a sync made durable in the
// background. Left alone, it would stay in Pebble's buffer until the next
// commit that asks for a sync, for hours where there is little to do. It must
// be called between begin and end.
func (s *Store) syncSoon() {
	if !s.syncing.CompareAndSwap(false, true) {
		return // it will be synced along
	}
	s.background.Go(func() {
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

// replace puts rec in the place of old, which may be nil, indexes included.
func replace(b *pebble.Batch, old, rec *idempotency.Record, unsettled bool) error {
	var err error
	if old != nil {
		err = removeEntries(b, old)
	}
	err = errors.Join(err,
		b.Set(recordKey(rec.ID), store.Encode(nil, rec), nil),
		b.Set(expiryKey(rec.Expires, rec.ID), nil, nil))
	if unsettled && rec.Adoption != (idempotency.AdoptionID{}) {
		err = errors.Join(err, b.Set(unsettledKey(rec.Adoption, rec.ID), nil, nil))
	}
	return err
}

// remove removes old and its entries in the indexes.
func remove(b *pebble.Batch, old *idempotency.Record) error {
	return errors.Join(b.Delete(recordKey(old.ID), nil), removeEntries(b, old))
}

// removeEntries removes old's entries in the indexes.
func removeEntries(b *pebble.Batch, old *idempotency.Record) error {
	err := b.Delete(expiryKey(old.Expires, old.ID), nil)
	if old.Adoption != (idempotency.AdoptionID{}) {
		err = errors.Join(err, b.Delete(unsettledKey(old.Adoption, old.ID), nil))
	}
	return err
}
