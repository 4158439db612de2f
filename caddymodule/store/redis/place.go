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
const (
	placesAll  = "t"
	placesOpen = "o"
)

func (s *Store) placesKey(index string) string { return s.options.Prefix + index }

// place returns the member for a record at at.
func place(at idempotency.Position) string {
	return string(store.AppendPlace(make([]byte, 0, store.PlaceSize), at))
}

// positionOf returns the position that a member is the place of.
func positionOf(place string) (at idempotency.Position, ok bool) {
	return store.ParsePlace([]byte(place))
}

// placeOf returns the place of the record that value begins with.
func placeOf(value []byte) (string, bool) {
	rec, _, err := store.DecodeTimes(value[headSize:])
	if err != nil || rec == nil {
		return "", false
	}
	return place(store.PositionOf(rec)), true
}

// placed returns what puts rec, which is about to be claimed, into the indexes,
// and then main. It takes out of them what was left over.
func (s *Store) placed(rec *idempotency.Record, main []evaluation) []evaluation {
	at := place(store.PositionOf(rec))
	s.places.claiming(at)
	evaluations := make([]evaluation, 0, 4+len(main))
	evaluations = append(evaluations, s.unplaced(leastLeftovers)...)
	evaluations = append(evaluations, s.place(placesOpen, at), s.place(placesAll, at))
	return append(evaluations, main...)
}

// replaced returns what puts rec, which is about to be finished, into the indexes,
// unless it is there since its claim, and then main.
func (s *Store) replaced(rec *idempotency.Record, main []evaluation) []evaluation {
	at := place(store.PositionOf(rec))
	if s.places.finishing(at) {
		return main
	}
	evaluations := []evaluation{s.place(placesAll, at)}
	if rec.State != idempotency.Done {
		evaluations = append(evaluations, s.place(placesOpen, at))
	}
	return append(evaluations, main...)
}

// unplaced returns what takes leftovers out of the indexes, if there are least of
// them.
func (s *Store) unplaced(least int) (evaluations []evaluation) {
	all, open := s.places.take(least)
	if len(open) > 0 {
		evaluations = append(evaluations, s.unplace(placesOpen, open))
	}
	if len(all) > 0 {
		evaluations = append(evaluations, s.unplace(placesAll, all))
	}
	return evaluations
}

// tidy takes out of the indexes what is left over.
func (s *Store) tidy(ctx context.Context, client rueidis.Client) {
	for {
		evaluations := s.unplaced(1)
		if len(evaluations) == 0 {
			return
		}
		for _, r := range evaluate(ctx, client, evaluations) {
			if r.Error() != nil {
				return
			}
		}
	}
}

func (s *Store) place(index, at string) evaluation {
	return evaluation{index: func(b rueidis.Builder) rueidis.Completed {
		return b.Zadd().Key(s.placesKey(index)).ScoreMember().ScoreMember(0, at).Build()
	}}
}

func (s *Store) unplace(index string, places []string) evaluation {
	return evaluation{index: func(b rueidis.Builder) rueidis.Completed {
		return b.Zrem().Key(s.placesKey(index)).Member(places...).Build()
	}}
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
	at := place(store.PositionOf(rec))
	if both := at != place(store.PositionOf(standing)); both || standing.State == idempotency.Done {
		s.places.leave(at, both)
	}
}

// refused takes rec out of the indexes at once, which was not claimed: where Redis
// is full, it must not be filled by what it refuses.
func (s *Store) refused(ctx context.Context, rec *idempotency.Record) {
	s.places.leave(place(store.PositionOf(rec)), true)
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
	claimed map[string]struct{} // guarded by mu; those that were put in by a claim
	left    map[string]bool     // guarded by mu; to be taken out: of both indexes, else of those that are not done
}

const (
	maxPlaces      = 10_000 // known of each kind
	leastLeftovers = 16     // that are worth a command
	mostLeftovers  = 64     // in a command
)

func (p *places) claiming(at string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.claimed == nil {
		p.claimed = make(map[string]struct{})
	}
	delete(p.left, at)
	if len(p.claimed) >= maxPlaces {
		clear(p.claimed) // whose calls never ended here; the others are put in again
	}
	p.claimed[at] = struct{}{}
}

// finishing tells whether who is being finished is in the indexes.
func (p *places) finishing(at string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, in := p.claimed[at]
	delete(p.left, at)
	return in
}

// leave notes, once that is so in Redis, that a place is to be taken out, of both indexes or only of those
// that are not done.
func (p *places) leave(at string, both bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.claimed, at)
	p.leaveLocked(at, both)
}

func (p *places) leaveLocked(at string, both bool) {
	if p.left == nil {
		p.left = make(map[string]bool)
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
		open = append(open, at)
		if both {
			all = append(all, at)
		}
	}
	return all, open
}
