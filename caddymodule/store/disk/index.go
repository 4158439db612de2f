package disk

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// placeKey is the key of a record in one of the two keyspaces that listings go
// through: where it stands there, backwards.
func placeKey(keyspace byte, at idempotency.Position) []byte {
	return store.AppendPlace(append(make([]byte, 0, 1+store.PlaceSize), keyspace), at)
}

// keyPosition returns the position that a key of placeKey's is of.
func keyPosition(key []byte) (at idempotency.Position, ok bool) {
	if len(key) == 0 {
		return at, false
	}
	return store.ParsePlace(key[1:])
}

// isOpen tells whether rec, where there is one, is in the keyspace of those that
// are not done.
func isOpen(rec *idempotency.Record) bool { return rec != nil && rec.State != idempotency.Done }

// place puts into b what changes in the indexes of listings where old, which is
// the record even if it has expired, becomes next; nil: there is none.
//
// An entry of those that are not done is set exactly once between two removals,
// so that a SingleDelete may remove it: it goes with the entry when both are
// written to a table, as most are within a call, where a Delete would be compacted
// down to the last level with each call.
func place(b *pebble.Batch, old, next *idempotency.Record) error {
	var errs [4]error
	moved := old == nil || next == nil || !old.Started.Round(0).Equal(next.Started.Round(0))
	if old != nil && moved {
		errs[0] = b.Delete(placeKey(keyspaceStarted, store.PositionOf(old)), nil)
	}
	if next != nil && moved {
		errs[1] = b.Set(placeKey(keyspaceStarted, store.PositionOf(next)), nil, nil)
	}
	if isOpen(old) && (moved || !isOpen(next)) {
		errs[2] = b.SingleDelete(placeKey(keyspaceOpen, store.PositionOf(old)), nil)
	}
	if isOpen(next) && (moved || !isOpen(old)) {
		errs[3] = b.Set(placeKey(keyspaceOpen, store.PositionOf(next)), nil, nil)
	}
	return errors.Join(errs[:]...)
}

// takeOverBatch is how much of the indexes is gathered before it is written, in
// bytes.
const takeOverBatch = 1 << 20

// takeOver makes the database one of format 3, which has the indexes of listings.
// One that is interrupted begins again: until its last batch the format is the
// old one, and an older program may use the database in between.
func (d *database) takeOver() error {
	b := d.db.NewBatch()
	defer func() { _ = b.Close() }()
	// What an earlier attempt has left may not be so any more. (Of those that are
	// not done it has left nothing.)
	err := b.DeleteRange([]byte{keyspaceStarted}, after([]byte{keyspaceStarted}), nil)
	var open [][]byte
	skipped, walkErr := d.eachRecord(func(rec *idempotency.Record) error {
		if isOpen(rec) {
			open = append(open, placeKey(keyspaceOpen, store.PositionOf(rec)))
		}
		if err := b.Set(placeKey(keyspaceStarted, store.PositionOf(rec)), nil, nil); err != nil || b.Len() < takeOverBatch {
			return err
		}
		if err := b.Commit(pebble.NoSync); err != nil {
			return err
		}
		written := b
		b = d.db.NewBatch()
		return written.Close()
	})
	err = errors.Join(err, walkErr)
	for _, key := range open {
		err = errors.Join(err, b.Set(key, nil, nil))
	}
	if skipped == 0 {
		err = errors.Join(err, b.Set(indexedKey, nil, nil))
	} else {
		err = errors.Join(err, b.Delete(indexedKey, nil))
	}
	err = errors.Join(err, b.Set(formatKey, binary.AppendUvarint(nil, format), nil))
	if err == nil {
		err = b.Commit(pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("making indexes: %w", err)
	}
	return nil
}

// eachRecord calls f for each record of the database, expired or not, without its
// body. It skips those that cannot be read, and tells how many: whoever wants one
// is told.
func (d *database) eachRecord(f func(*idempotency.Record) error) (skipped int, err error) {
	it, err := d.db.NewIter(&pebble.IterOptions{
		LowerBound: []byte{keyspaceRecord}, UpperBound: after([]byte{keyspaceRecord}),
	})
	if err != nil {
		return 0, d.readError(err)
	}
	defer func() { err = errors.Join(err, d.readError(it.Close())) }()
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return skipped, d.readError(err)
		}
		rec, _, need, err := store.DecodeClear(value)
		if err == nil && rec == nil && need == 0 { // it is not sealed
			rec, need, err = store.DecodeHead(value)
		}
		if err == nil && need > 0 {
			err = fmt.Errorf("decoding record: %w: it ends too early", store.ErrDamaged)
		}
		if err != nil {
			d.logger.Error("reading a record of the store, which is skipped", "error", err)
			skipped++
			continue
		}
		if err := f(rec); err != nil {
			return skipped, err
		}
	}
	return skipped, nil
}
