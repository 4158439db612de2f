package disk

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// What follows reads the database for methods that have begun. Who reads a
// record holds the lock of its ID.

// owned returns the record of id if it is there and owner owns it, else nil.
func (s *Store) owned(id idempotency.ID, owner idempotency.Owner) (*idempotency.Record, error) {
	rec, err := s.live(id)
	if err != nil || rec == nil || !rec.OwnedBy(owner) {
		return nil, err
	}
	return rec, nil
}

// live returns the record of id, or nil where there is none or it has expired.
func (s *Store) live(id idempotency.ID) (*idempotency.Record, error) {
	rec, err := s.stored(id)
	if err != nil || rec == nil || rec.Expired(s.now()) {
		return nil, err
	}
	return rec, nil
}

// stored returns the record of id, expired or not, or nil where there is none.
func (s *Store) stored(id idempotency.ID) (*idempotency.Record, error) {
	value, closer, err := s.db.Get(recordKey(id))
	if err := s.readError(err); err != nil || closer == nil {
		return nil, err
	}
	defer closer.Close()
	rec, err := store.Decode(value)
	if errors.Is(err, store.ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return rec, err
}

// unsettled tells whether rec, which is stored, is unsettled.
func (s *Store) unsettled(rec *idempotency.Record) (bool, error) {
	if rec.Adoption == (idempotency.AdoptionID{}) {
		return false, nil
	}
	value, err := s.get(unsettledKey(rec.Adoption, rec.ID))
	return value != nil, err
}

// get returns a copy of the value of key, or nil where there is none.
func (s *Store) get(key []byte) ([]byte, error) {
	value, closer, err := s.db.Get(key)
	if err := s.readError(err); err != nil || closer == nil {
		return nil, err
	}
	return append([]byte{}, value...), closer.Close()
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

// readError returns what to make of err, with which Pebble has read something.
func (s *Store) readError(err error) error {
	switch failed := s.failed(); {
	case failed != nil:
		return failed
	case err == nil || errors.Is(err, pebble.ErrNotFound):
		return nil
	case pebble.IsCorruptionError(err):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	default:
		return err
	}
}
