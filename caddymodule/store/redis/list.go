package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var _ idempotency.Lister = (*Store)(nil)

const (
	// listBatch is how many records are read at a time.
	listBatch = 256

	// firstBytes is how much of a record is read at first: nearly always all but
	// the body.
	firstBytes = 4 << 10

	// fewBytes suffices to tell when a record started.
	fewBytes = 331
)

// List implements idempotency.Lister. Its records have no bodies. It knows nothing
// of records that a version without listings has claimed and finished.
func (s *Store) List(ctx context.Context, q idempotency.Query) (idempotency.Listing, error) {
	index := s.indexes.all
	if store.ButDone(q) {
		index = s.indexes.open
	}
	page := store.NewPage(q)
	for {
		places, err := s.placesAfter(ctx, index, page.Last(), min(page.Want(), listBatch))
		if err != nil {
			return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
		}
		recs, err := s.heads(ctx, places)
		if err != nil {
			return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
		}
		for i, rec := range recs {
			at, ok := positionOf(places[i])
			if !ok {
				return idempotency.Listing{}, errors.New("listing records: something else is in the index")
			}
			if rec != nil && placeAt(store.PositionOf(rec)).member() != places[i] {
				rec = nil // it is elsewhere
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

// Tally implements idempotency.Lister. It reads every record that is not done.
func (s *Store) Tally(ctx context.Context) (map[idempotency.State]int, error) {
	tally := make(map[idempotency.State]int)
	var last idempotency.Position
	for {
		places, err := s.placesAfter(ctx, s.indexes.open, last, listBatch)
		if err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		if len(places) == 0 {
			return tally, nil
		}
		recs, err := s.heads(ctx, places)
		if err != nil {
			return nil, fmt.Errorf("counting records: %w", err)
		}
		for i, rec := range recs {
			if rec != nil && rec.State != idempotency.Done && placeAt(store.PositionOf(rec)).member() == places[i] {
				tally[rec.State]++
			}
		}
		last, _ = positionOf(places[len(places)-1])
	}
}

// placesAfter returns the first n places after p in an index.
func (s *Store) placesAfter(ctx context.Context, index string, p idempotency.Position, n int) ([]string, error) {
	start := "+"
	if !p.IsZero() {
		start = "(" + placeAt(p).member()
	}
	result, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Zrange().Key(index).Min(start).Max("-").Bylex().Rev().Limit(0, int64(n)).Build()
	})
	if err != nil {
		return nil, err
	}
	return result.AsStrSlice()
}

// heads returns the records at places without their bodies, nil for each that is
// not there.
func (s *Store) heads(ctx context.Context, places []string) ([]*idempotency.Record, error) {
	recs := make([]*idempotency.Record, len(places))
	var wanted []int // those that are still to be read
	for i := range places {
		wanted = append(wanted, i)
	}
	needs := make([]int, len(places))
	for n := firstBytes; len(wanted) > 0; n = 0 {
		values, err := s.starts(ctx, wanted, func(i int) (string, int) { return places[i], max(n, needs[i]) })
		if err != nil {
			return nil, err
		}
		var again []int
		for k, i := range wanted {
			if len(values[k]) == 0 {
				continue // there is no such key
			}
			e, need, err := decodeHead(s.keys.Ring(), values[k])
			switch at, _ := positionOf(places[i]); {
			case err != nil:
				return nil, err
			case e.Record != nil && e.ID != at.ID:
				return nil, fmt.Errorf("decoding record: %w: it is the record of another call", store.ErrDamaged)
			case need > 0 && need <= max(n, needs[i]):
				return nil, fmt.Errorf("decoding record: %w: it ends too early", store.ErrDamaged)
			case need > 0:
				needs[i] = need
				again = append(again, i)
			default:
				recs[i] = e.Record
			}
		}
		wanted = again
	}
	return recs, nil
}

// starts returns the first bytes of records; what tells each one's place, and how
// many bytes.
func (s *Store) starts(ctx context.Context, which []int, what func(int) (place string, n int)) ([][]byte, error) {
	if len(which) == 0 {
		return nil, nil
	}
	values := make([][]byte, len(which))
	_, err := s.twice(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		gets := make([]rueidis.Completed, len(which))
		for k, i := range which {
			place, n := what(i)
			at, _ := positionOf(place)
			end := int64(-1)
			if n < math.MaxInt {
				end = int64(n) - 1
			}
			gets[k] = c.B().Getrange().Key(s.recordKey(at.ID)).Start(0).End(end).Build()
		}
		results := c.DoMulti(ctx, gets...)
		for k, r := range results {
			var err error
			if values[k], err = r.AsBytes(); err != nil {
				return r
			}
		}
		return results[0]
	})
	return values, err
}

const (
	// sweepInterval is how often the indexes are swept.
	sweepInterval = time.Minute

	// sweepBatch is how many places are looked at at a time, and sweepBatches
	// how often in one sweep: what a busy fleet claims in a minute.
	sweepBatch   = 500
	sweepBatches = 200

	// sweepAge is how old a place has to be before it is removed where nobody
	// is: one that is new may be that of a claim under way.
	sweepAge = time.Hour
)

// sweepIndexes removes now and then what is in the indexes of records that are
// gone, until ctx ends. Records that expire take no leave.
func (s *Store) sweepIndexes(ctx context.Context) {
	next := map[string]string{s.indexes.all: "-", s.indexes.open: "-"}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepInterval/2 + rand.N(sweepInterval)): // not all of a fleet at once
		}
		for index := range next {
			after, err := s.sweep(ctx, index, next[index])
			if err != nil {
				s.log.Debug("sweeping the index of calls", slog.Any("error", err))
			}
			next[index] = after
		}
	}
}

// sweep removes from an index places where nobody is: from the oldest on as long
// as that is worth it, and then some from after on. It returns where to go on.
func (s *Store) sweep(ctx context.Context, index, after string) (string, error) {
	from := "-"
	for range sweepBatches {
		last, looked, removed, err := s.sweepFrom(ctx, index, from)
		if err != nil {
			return after, err
		}
		if removed < looked/2 || looked < sweepBatch {
			break
		}
		from = last
	}
	last, looked, _, err := s.sweepFrom(ctx, index, after)
	if err != nil {
		return after, err
	}
	if looked < sweepBatch {
		last = "-"
	}
	return last, nil
}

// sweepFrom looks at the places of an index that follow from, as ZRANGE has it,
// and removes those where nobody is. It returns the last.
func (s *Store) sweepFrom(ctx context.Context, index, from string) (last string, looked, removed int, err error) {
	result, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Zrange().Key(index).Min(from).Max("+").Bylex().Limit(0, sweepBatch).Build()
	})
	if err != nil {
		return from, 0, 0, err
	}
	places, err := result.AsStrSlice()
	if err != nil || len(places) == 0 {
		return from, 0, 0, err
	}
	var old []int
	for i, p := range places {
		if at, ok := positionOf(p); !ok || time.Since(at.Started) > sweepAge {
			old = append(old, i)
		}
	}
	values, err := s.starts(ctx, old, func(i int) (string, int) { return places[i], fewBytes })
	if err != nil {
		return from, 0, 0, err
	}
	var empty []string
	for k, i := range old {
		if !isAt(values[k], places[i], index == s.indexes.open) {
			empty = append(empty, places[i])
		}
	}
	if len(empty) > 0 {
		_, err = s.do(ctx, func(c rueidis.Client) rueidis.Completed {
			return c.B().Zrem().Key(index).Member(empty...).Build()
		})
	}
	return "(" + places[len(places)-1], len(places), len(empty), err
}

// isAt tells whether value begins with a record that belongs to that place, in
// the index of those that are not done if open is true. What it cannot tell it
// takes for one.
func isAt(value []byte, at string, open bool) bool {
	if len(value) == 0 || value[0] == 0 {
		return false // or the owner of one that was released
	}
	if len(value) < headSize {
		return true
	}
	now, ok := placeOf(value)
	done := len(value) > headSize+1 && idempotency.State(value[headSize+1]) == idempotency.Done
	return !ok || now.member() == at && (!open || !done)
}
