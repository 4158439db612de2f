package redis

import (
	"context"
	"sync"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// The indexes that listings go through are two sorted sets, of all records and of
// those that are not done. A member is the place of a record: when it started and
// its ID, so that the set's own order is a listing's, backwards. All scores are 0,
// which leaves the order to the members: no score tells nanoseconds apart.
//
// A record is in its sets from before its claim, as far as it is told who comes
// first; so what was claimed is found, whoever is killed then. A set may hold more:
// places of claims that were refused, and of records that are gone or elsewhere by
// now. Who finds one passes over it.
type indexes struct{ all, open string } // their keys

func indexesOf(prefix string) indexes { return indexes{all: prefix + "t", open: prefix + "o"} }

// place is a member of an index.
type place [store.PlaceSize]byte

// placeAt returns the place of a record at at.
func placeAt(at idempotency.Position) (p place) {
	store.AppendPlace(p[:0], at)
	return p
}

// member returns p as Redis has it.
func (p place) member() string { return string(p[:]) }

// positionOf returns the position that member is the place of.
func positionOf(member string) (at idempotency.Position, ok bool) {
	return store.ParsePlace([]byte(member))
}

// placeOf returns the place of the record that value begins with.
func placeOf(value []byte) (place, bool) {
	rec, _, err := store.DecodeTimes(value[headSize:])
	if err != nil || rec == nil {
		return place{}, false
	}
	return placeAt(store.PositionOf(rec)), true
}

// placed appends what puts a record that is about to be claimed into the indexes, and
// takes out of them what was left over. member is its place, as put has it.
func (s *Store) placed(evaluations []evaluation, at place, member []string) []evaluation {
	s.places.claiming(at)
	evaluations = s.unplaced(evaluations, leastLeftovers)
	return s.put(evaluations, member, true)
}

// replaced appends what puts rec, which is about to be finished, into the indexes,
// unless it is there since its claim.
func (s *Store) replaced(evaluations []evaluation, rec *idempotency.Record) []evaluation {
	at := placeAt(store.PositionOf(rec))
	if s.places.finishing(at) {
		return evaluations
	}
	return s.put(evaluations, []string{at.member()}, rec.State != idempotency.Done)
}

// put appends what puts one place into the indexes.
func (s *Store) put(evaluations []evaluation, member []string, open bool) []evaluation {
	if open {
		evaluations = append(evaluations, evaluation{key: s.indexes.open, args: member})
	}
	return append(evaluations, evaluation{key: s.indexes.all, args: member})
}

// unplaced appends what takes leftovers out of the indexes, if there are least of
// them.
func (s *Store) unplaced(evaluations []evaluation, least int) []evaluation {
	all, open := s.places.take(least)
	if len(open) > 0 {
		evaluations = append(evaluations, evaluation{key: s.indexes.open, args: open, takes: true})
	}
	if len(all) > 0 {
		evaluations = append(evaluations, evaluation{key: s.indexes.all, args: all, takes: true})
	}
	return evaluations
}

// tidy takes out of the indexes what is left over.
func (s *Store) tidy(ctx context.Context, client rueidis.Client) {
	for {
		evaluations := s.unplaced(nil, 1)
		if len(evaluations) == 0 {
			return
		}
		for _, r := range evaluateAll(ctx, client, evaluations) {
			if r.Error() != nil {
				return
			}
		}
	}
}

// tidySoon is tidy, within the time of a command.
func (s *Store) tidySoon(ctx context.Context, client rueidis.Client) {
	ctx, cancel := context.WithTimeout(ctx, s.options.CommandTimeout)
	defer cancel()
	s.tidy(ctx, client)
}

// misplaced notes that rec, which was to be claimed, is not in its place, where
// standing stands in the way.
func (s *Store) misplaced(rec, standing *idempotency.Record) {
	if standing == nil {
		return
	}
	at := placeAt(store.PositionOf(rec))
	if both := at != placeAt(store.PositionOf(standing)); both || standing.State == idempotency.Done {
		s.places.leave(at, both)
	}
}

// refused takes rec out of the indexes at once, which was not claimed: where Redis
// is full, it must not be filled by what it refuses.
func (s *Store) refused(ctx context.Context, rec *idempotency.Record) {
	s.places.leave(placeAt(store.PositionOf(rec)), true)
	client, err := s.link.get()
	if err != nil {
		return
	}
	s.tidySoon(ctx, client)
}

// places are what this process knows of its own in the indexes.
//
// It takes out what does not belong there any more along with other commands, many
// at a time: neither is worth a round trip, nor is one worth a command. Whoever
// comes into a place meanwhile is safe, but for the instant in which both are on
// their way. What is forgotten here, a sweep of the indexes finds.
type places struct {
	mu      sync.Mutex
	claimed map[place]struct{} // guarded by mu; those that were put in by a claim
	left    map[place]bool     // guarded by mu; to be taken out: of both indexes, else of those that are not done
}

const (
	maxPlaces      = 10_000 // known of each kind
	leastLeftovers = 16     // that are worth a command
	mostLeftovers  = 64     // in a command
)

func (p *places) claiming(at place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed == nil {
		p.claimed = make(map[place]struct{})
	}
	delete(p.left, at)
	if len(p.claimed) >= maxPlaces {
		clear(p.claimed) // whose calls never ended here; the others are put in again
	}
	p.claimed[at] = struct{}{}
}

// finishing tells whether who is being finished is in the indexes.
func (p *places) finishing(at place) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, in := p.claimed[at]
	delete(p.left, at)
	return in
}

// leave notes, once that is so in Redis, that a place is to be taken out, of both
// indexes or only of those that are not done.
func (p *places) leave(at place, both bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claimed, at)
	if p.left == nil {
		p.left = make(map[place]bool)
	}
	if len(p.left) < maxPlaces {
		p.left[at] = both
	}
}

// take takes some of what is to be taken out, if there is that much of it.
func (p *places) take(least int) (all, open []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.left) < least {
		return nil, nil
	}
	for at, both := range p.left {
		if len(open) == mostLeftovers {
			break
		}
		delete(p.left, at)
		member := at.member()
		open = append(open, member)
		if both {
			all = append(all, member)
		}
	}
	return all, open
}
