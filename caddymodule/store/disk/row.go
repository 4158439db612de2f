package disk

import (
	"context"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// stripes is the number of locks that IDs share. A claim holds its lock while
// the disk syncs, so two IDs that share one wait for two syncs; with this many
// that is rare.
const stripes = 1024

// stripe makes changes of one record atomic. Writers hold its lock until the
// change is durable, and readers take it as well, so that nobody acts on what a
// crash could take back.
type stripe struct {
	sync.RWMutex

	// running has the records that were claimed here and are not finished, as
	// the database has them: they are read once more each, to be finished, and
	// are few.
	running map[idempotency.ID]running
}

// running is a record without an answer, as the database has it.
type running struct {
	rec       *idempotency.Record
	unsettled bool
}

// row is the record of one ID for as long as its lock is held. The store is not
// closed meanwhile.
type row struct {
	s      *Store
	id     idempotency.ID
	stripe *stripe
}

// hold starts a method that may change the record of id. Where it returns no
// error, release must follow.
func (s *Store) hold(ctx context.Context, id idempotency.ID) (row, error) {
	if err := s.begin(ctx); err != nil {
		return row{}, err
	}
	r := s.row(id)
	r.stripe.Lock()
	return r, nil
}

func (r row) release() {
	r.stripe.Unlock()
	r.s.end()
}

// share starts a method that reads the record of id. Where it returns no error,
// unshare must follow.
func (s *Store) share(ctx context.Context, id idempotency.ID) (row, error) {
	if err := s.begin(ctx); err != nil {
		return row{}, err
	}
	r := s.row(id)
	r.stripe.RLock()
	return r, nil
}

func (r row) unshare() {
	r.stripe.RUnlock()
	r.s.end()
}

func (s *Store) row(id idempotency.ID) row {
	return row{s, id, &s.stripes[(int(id[0])<<8|int(id[1]))%stripes]}
}

// begin notes that the database now has rec.
func (r row) begin(rec *idempotency.Record, unsettled bool) {
	if rec.Answer != nil || rec.State == idempotency.Queued {
		r.end() // it would take too much room
		return
	}
	if r.stripe.running == nil {
		r.stripe.running = make(map[idempotency.ID]running)
	}
	kept := *rec
	r.stripe.running[r.id] = running{&kept, unsettled}
}

// amend notes that the database now has rec, if the record is running.
func (r row) amend(rec *idempotency.Record, unsettled bool) {
	if old, ok := r.stripe.running[r.id]; ok {
		r.stripe.running[r.id] = running{rec, unsettled && old.unsettled}
	}
}

// settle puts into b that old, which is the record, is unsettled no longer, and
// tells whether it was.
func (r row) settle(b *pebble.Batch, old *idempotency.Record) (was bool, err error) {
	if was, err = r.unsettled(old); was {
		err = b.Delete(unsettledKey(old.Adoption, old.ID), nil)
	}
	return was, err
}

// end notes that the record is not running any more.
func (r row) end() { delete(r.stripe.running, r.id) }
