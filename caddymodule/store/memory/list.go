package memory

import (
	"bytes"
	"context"
	"fmt"

	"github.com/RaduBerinde/btreemap"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Lister = (*Store)(nil)

// tree has entries in the reverse order of a listing.
type tree = btreemap.BTreeMap[position, *entry]

// treeDegree is what the tree's own package and Pebble take for such values.
const treeDegree = 32

func newTree() *tree { return btreemap.New[position, *entry](treeDegree, comparePositions) }

func comparePositions(a, b position) int { return bytes.Compare(a[:], b[:]) }

// listBatch is how many entries are passed over at a time with the lock held.
const listBatch = 256

// List implements idempotency.Lister. Its records have their bodies.
func (s *Store) List(ctx context.Context, q idempotency.Query) (idempotency.Listing, error) {
	page := store.NewPage(q)
	for {
		if err := ctx.Err(); err != nil {
			return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
		}
		recs := s.after(page.Last(), store.ButDone(q), min(page.Want(), listBatch))
		for _, rec := range recs {
			at := store.PositionOf(rec)
			if rec.Expired(s.now()) {
				rec = nil
			}
			if !page.Look(at, rec) {
				return page.Listing(), nil
			}
		}
		if len(recs) == 0 {
			return page.Listing(), nil
		}
	}
}

// Tally implements idempotency.Lister.
func (s *Store) Tally(ctx context.Context) (map[idempotency.State]int, error) {
	tally := make(map[idempotency.State]int)
	var last idempotency.Position
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		recs := s.after(last, true, listBatch)
		if len(recs) == 0 {
			return tally, nil
		}
		for _, rec := range recs {
			if !rec.Expired(s.now()) {
				tally[rec.State]++
			}
		}
		last = store.PositionOf(recs[len(recs)-1])
	}
}

// after returns the first n records after p, of all or of those that are not Done,
// also those that have expired.
func (s *Store) after(p idempotency.Position, butDone bool, n int) []*idempotency.Record {
	s.mu.RLock()
	defer s.mu.RUnlock()
	entries, start := s.byStart, btreemap.LT(positionOf(p))
	if butDone {
		entries = s.open
	}
	if p.IsZero() {
		start = btreemap.Max[position]()
	}
	recs := make([]*idempotency.Record, 0, n)
	for _, e := range entries.Descend(start, btreemap.Min[position]()) {
		if len(recs) == n {
			break
		}
		recs = append(recs, e.record())
	}
	return recs
}
