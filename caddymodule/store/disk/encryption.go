package disk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// keysKey is where it is kept which keys records may be encrypted with, a list
// of their IDs. Versions that do not know it do not know such records either,
// and fail with each.
var keysKey = []byte{keyspaceMeta, 'k', 'e', 'y', 's'}

// SetKeyring makes ring the keys that records are encrypted with from now on. It
// fails, and changes nothing, where records that live need a key that ring does
// not have; the error wraps a store.KeysMissingError then.
func (s *Store) SetKeyring(ring *store.Keyring) error {
	if err := s.keys.Change(context.Background(), ring, keyList{s}); err != nil {
		return fmt.Errorf("changing the keys of store %s: %w", s.dir, err)
	}
	return nil
}

// checkKeys checks that the records can be decrypted.
func (s *Store) checkKeys() error {
	s.keys.Set(s.options.Keyring)
	return errors.Join(s.keys.Check(context.Background(), keyList{s}), s.failed())
}

// decode decodes the record of r.
func (r row) decode(value []byte) (*idempotency.Record, error) {
	rec, err := r.s.keys.Ring().Decode(value)
	return r.decoded(value, rec, err)
}

// decodeHead is decode, without the body.
func (r row) decodeHead(value []byte) (*idempotency.Record, error) {
	rec, need, err := r.s.keys.Ring().DecodeHead(value)
	if err == nil && need > 0 {
		err = fmt.Errorf("decoding record: %w: it ends too early", store.ErrDamaged)
	}
	return r.decoded(value, rec, err)
}

// decoded returns rec, which value was decoded to, or what err means.
func (r row) decoded(value []byte, rec *idempotency.Record, err error) (*idempotency.Record, error) {
	var missing *store.NoKeyError
	switch {
	case err == nil && rec.ID != r.id:
		err = fmt.Errorf("%w: it is the record of another call", store.ErrDamaged)
	case errors.As(err, &missing):
		// What has expired is gone, and makes room, whoever could read it.
		if clear, _, _, wrong := store.DecodeClear(value); wrong == nil && clear != nil && clear.ID == r.id && r.s.isGone(clear) {
			return clear, nil
		}
		return nil, fmt.Errorf("store %s: %w; add that key to it", r.s.dir, err)
	}
	if errors.Is(err, store.ErrDamaged) {
		return nil, fmt.Errorf("store %s: %w", r.s.dir, withAdvice(fmt.Errorf("%w: %w", ErrDamaged, err)))
	}
	if err != nil {
		return nil, err
	}
	return rec, nil
}

// keyList is the store.KeyList of a store.
type keyList struct{ s *Store }

var _ store.KeyList = keyList{}

// Listed implements store.KeyList.
func (l keyList) Listed(ctx context.Context) (ids []store.KeyID, err error) {
	if err := l.s.begin(ctx); err != nil {
		return nil, err
	}
	defer l.s.end()
	value, err := l.s.get(keysKey)
	if err != nil || value == nil {
		return nil, err
	}
	var texts []string
	if err := json.Unmarshal(value, &texts); err != nil {
		return nil, fmt.Errorf("%w: what it says of its keys: %w", ErrDamaged, err)
	}
	for _, text := range texts {
		id, err := store.ParseKeyID(text)
		if err != nil {
			return nil, fmt.Errorf("%w: what it says of its keys: %w", ErrDamaged, err)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Note implements store.KeyList.
func (l keyList) Note(ctx context.Context, id store.KeyID) error {
	return l.amend(ctx, func(ids []store.KeyID) []store.KeyID {
		if slices.Contains(ids, id) {
			return ids
		}
		return append(ids, id)
	})
}

// Drop implements store.KeyList.
func (l keyList) Drop(ctx context.Context, unused []store.KeyID) error {
	return l.amend(ctx, func(ids []store.KeyID) []store.KeyID {
		return slices.DeleteFunc(ids, func(id store.KeyID) bool { return slices.Contains(unused, id) })
	})
}

// amend changes the list; two changes must not be under way at a time.
func (l keyList) amend(ctx context.Context, change func([]store.KeyID) []store.KeyID) error {
	was, err := l.Listed(ctx)
	if err != nil {
		return err
	}
	ids := change(slices.Clone(was))
	if slices.Equal(ids, was) {
		return nil
	}
	texts := make([]string, 0, len(ids))
	for _, id := range ids {
		texts = append(texts, id.String())
	}
	value, err := json.Marshal(texts)
	if err != nil {
		return err
	}
	if err := l.s.begin(ctx); err != nil {
		return err
	}
	defer l.s.end()
	err = l.s.db.Set(keysKey, value, pebble.Sync)
	if failed := l.s.failed(); failed != nil {
		return failed
	}
	return err
}

// Uses implements store.KeyList. It goes through all records.
func (l keyList) Uses(ctx context.Context, ids []store.KeyID) (uses store.KeyUses, err error) {
	if err := l.s.begin(ctx); err != nil {
		return nil, err
	}
	defer l.s.end()
	start := []byte{keyspaceRecord}
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: after(start)})
	if err != nil {
		return nil, l.s.readError(err)
	}
	defer func() {
		if closeErr := l.s.readError(it.Close()); err == nil {
			err = closeErr
		}
	}()
	uses = make(store.KeyUses)
	for ok := it.First(); ok; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return nil, l.s.readError(err)
		}
		clear, key, need, err := store.DecodeClear(value)
		if err != nil || need > 0 || clear == nil {
			continue // it is plain, or damaged, which who reads it is told
		}
		if slices.Contains(ids, key) && !l.s.isGone(clear) {
			uses.Add(key, l.s.expiry(clear))
		}
	}
	return uses, nil
}

// Barrier implements store.KeyList.
func (l keyList) Barrier() {
	l.s.use.Lock()
	defer l.s.use.Unlock()
}
