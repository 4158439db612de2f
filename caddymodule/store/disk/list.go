package disk

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Lister = (*Store)(nil)

// listBatch is how many places are read at a time.
const listBatch = 256

// List implements idempotency.Lister. Its records have no bodies. It takes the
// locks of the records one after the other, each for as long as that is read.
func (s *Store) List(ctx context.Context, q idempotency.Query) (idempotency.Listing, error) {
	keyspace := byte(keyspaceStarted)
	if store.ButDone(q) {
		keyspace = keyspaceOpen
	}
	page := store.NewPage(q)
	for {
		places, err := s.places(ctx, keyspace, page.Last(), min(page.Want(), listBatch))
		if err != nil {
			return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
		}
		for _, at := range places {
			rec, err := s.placed(ctx, at)
			if err != nil {
				return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
			}
			if !page.Look(at, rec) {
				return page.Listing(), nil
			}
		}
		if len(places) == 0 {
			return page.Listing(), nil
		}
	}
}

// Find implements idempotency.Finder.
func (s *Store) Find(ctx context.Context, prefix []byte) ([]idempotency.ID, error) {
	if err := s.begin(ctx); err != nil {
		return nil, fmt.Errorf("finding record: %w", err)
	}
	defer s.end()
	start := append([]byte{keyspaceRecord}, prefix...)
	ids, err := s.list(start, after(start), 2)
	if err != nil {
		return nil, fmt.Errorf("finding record: %w", err)
	}
	return ids, nil
}

// Tally implements idempotency.Lister. It reads every record that is not done.
func (s *Store) Tally(ctx context.Context) (map[idempotency.State]int, error) {
	tally := make(map[idempotency.State]int)
	var last idempotency.Position
	for {
		places, err := s.places(ctx, keyspaceOpen, last, listBatch)
		if err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		if len(places) == 0 {
			return tally, nil
		}
		for _, at := range places {
			rec, err := s.placed(ctx, at)
			if err != nil {
				return nil, fmt.Errorf("counting records: %w", err)
			}
			if isOpen(rec) {
				tally[rec.State]++
			}
		}
		last = places[len(places)-1]
	}
}

// places returns the first n positions after p in a keyspace of placeKey's.
func (s *Store) places(ctx context.Context, keyspace byte, p idempotency.Position, n int) (places []idempotency.Position, err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	defer s.end()
	end := after([]byte{keyspace})
	if !p.IsZero() {
		end = placeKey(keyspace, p)
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{keyspace}, UpperBound: end})
	if err != nil {
		return nil, s.readError(err)
	}
	defer func() { err = errors.Join(err, s.readError(it.Close())) }()
	for ok := it.Last(); ok && len(places) < n; ok = it.Prev() {
		at, ok := keyPosition(it.Key())
		if !ok {
			return nil, fmt.Errorf("%w: it has a key %x", ErrDamaged, it.Key())
		}
		places = append(places, at)
	}
	return places, nil
}

// placed returns the record at a place that was read a moment ago, without its
// body, or nil if there is none any more.
func (s *Store) placed(ctx context.Context, at idempotency.Position) (*idempotency.Record, error) {
	r, err := s.share(ctx, at.ID)
	if err != nil {
		return nil, err
	}
	defer r.unshare()
	rec, err := r.read(r.decodeHead)
	if err != nil || rec == nil || s.isGone(rec) {
		return nil, err
	}
	if now, _ := keyPosition(placeKey(0, store.PositionOf(rec))); !now.Started.Equal(at.Started) {
		return nil, nil // it is elsewhere by now
	}
	return rec, nil
}
