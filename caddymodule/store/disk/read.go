package disk

import (
	"context"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// owned returns the record if it is there and owner owns it, else nil.
func (r row) owned(owner idempotency.Owner) (*idempotency.Record, error) {
	rec, err := r.live()
	if err != nil || rec == nil || !rec.OwnedBy(owner) {
		return nil, err
	}
	return rec, nil
}

// live returns the record, or nil where there is none or it has expired.
func (r row) live() (*idempotency.Record, error) {
	rec, err := r.stored()
	if err != nil || rec == nil || r.s.isGone(rec) {
		return nil, err
	}
	return rec, nil
}

// stored returns the record, expired or not, or nil where there is none.
func (r row) stored() (*idempotency.Record, error) { return r.read(r.decode) }

// read is stored, with what decodes the record.
func (r row) read(decode func([]byte) (*idempotency.Record, error)) (*idempotency.Record, error) {
	if running, ok := r.stripe.running[r.id]; ok {
		return running.rec, nil
	}
	value, closer, err := r.s.db.Get(recordKey(r.id))
	if err := r.s.readError(err); err != nil || closer == nil {
		return nil, err
	}
	defer closer.Close()
	return decode(value)
}

// storedSeldom is stored, for a record that most likely is not there: unlike a
// Get, an iterator can be made to ask the last level's Bloom filters, where the
// store's own does not suffice.
func (r row) storedSeldom() (rec *idempotency.Record, err error) {
	if running, ok := r.stripe.running[r.id]; ok {
		return running.rec, nil
	}
	if !r.s.filter.known.mayHave(r.id) {
		return nil, nil
	}
	key := recordKey(r.id)
	it, err := r.s.db.NewIter(&pebble.IterOptions{LowerBound: key, UpperBound: append(key, 0), UseL6Filters: true})
	if err != nil {
		return nil, r.s.readError(err)
	}
	defer func() {
		if closeErr := r.s.readError(it.Close()); err == nil {
			err = closeErr
		}
	}()
	if !it.SeekPrefixGE(key) {
		return nil, nil
	}
	value, err := it.ValueAndErr()
	if err != nil {
		return nil, r.s.readError(err)
	}
	return r.decode(value)
}

// unsettled tells whether rec, which is stored, is unsettled.
func (r row) unsettled(rec *idempotency.Record) (bool, error) {
	if running, ok := r.stripe.running[r.id]; ok {
		return running.unsettled, nil
	}
	if rec.Adoption == (idempotency.AdoptionID{}) {
		return false, nil
	}
	value, err := r.s.get(unsettledKey(rec.Adoption, rec.ID))
	return value != nil, err
}

// unsettledIDs returns the IDs of records that are unsettled, or were a moment
// ago.
func (s *Store) unsettledIDs(ctx context.Context, adoption idempotency.AdoptionID) ([]idempotency.ID, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	if s.unsettled.count(adoption).Load() == 0 {
		return nil, nil
	}
	return s.list(unsettledPrefix(adoption), after(unsettledPrefix(adoption)), -1)
}

// stillUnsettled returns the record of id, which a listing showed to be
// unsettled a moment ago, unless it is no longer.
func (s *Store) stillUnsettled(ctx context.Context, id idempotency.ID, adoption idempotency.AdoptionID) (*idempotency.Record, error) {
	r, err := s.share(ctx, id)
	if err != nil {
		return nil, err
	}
	defer r.unshare()
	rec, err := r.live()
	if err != nil || rec == nil || rec.Adoption != adoption {
		return nil, err
	}
	if unsettled, err := r.unsettled(rec); err != nil || !unsettled {
		return nil, err
	}
	return rec, nil
}

// list returns the IDs at the end of the keys from start to end, the first n of
// them, or all where n is negative.
func (s *Store) list(start, end []byte, n int) (ids []idempotency.ID, err error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() {
		if closeErr := s.readError(it.Close()); err == nil {
			err = closeErr
		}
	}()
	for ok := it.First(); ok && n != 0; ok = it.Next() {
		id, ok := keyID(it.Key())
		if !ok {
			return nil, fmt.Errorf("%w: it has a key %x", ErrDamaged, it.Key())
		}
		ids = append(ids, id)
		n--
	}
	return ids, nil
}
