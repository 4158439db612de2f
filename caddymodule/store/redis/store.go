package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/deadline"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

var errClosed = errors.New("the store is closed")

// Store is an idempotency.SharedStore in Redis. It is safe for concurrent use.
// While Redis does not answer, every method returns an error at once; that ends
// by itself.
type Store struct {
	options  Options
	log      *slog.Logger
	channel  string           // of news
	timeouts *deadline.Shared // of commands
	link     link
	pulse    pulse
	watches  watches
	drops    drops
	keys     store.Keys

	places  places
	indexes indexes

	self    idempotency.Process // who this is in what processes divide among themselves
	budgets budgets
	queue   queue

	poked   chan struct{} // a beat is wanted at once
	close   func()
	closing chan struct{} // closed by close
	stopped chan struct{} // closed when the link is no longer tended

	inspected  inspection
	keyTrouble keyTrouble

	// writing is held for reading while a record is encoded and sent, so that
	// it is known when the last was that is encrypted with a key that goes.
	writing sync.RWMutex
}

var _ idempotency.SharedStore = (*Store)(nil)

// Open returns a store in the Redis that o leads to. If that does not answer,
// Open says so in the log only: it may come yet.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	switch {
	case len(o.Endpoint.Addresses()) == 0:
		return nil, errors.New("opening store: there is no address of Redis")
	case o.WaitReplicas > 0 && o.WaitTimeout <= 0:
		return nil, errors.New("opening store: replicas are to be waited for, but for how long is not said")
	case o.Lease < 100*time.Millisecond:
		return nil, fmt.Errorf("opening store: a lease of %v is too short; 100ms is the least", o.Lease)
	}
	s := &Store{
		options:  o,
		log:      o.Logger,
		channel:  o.Prefix + "news",
		indexes:  indexesOf(o.Prefix),
		timeouts: deadline.NewShared(o.CommandTimeout + o.WaitTimeout),
		self:     idempotency.NewProcess(),
		poked:    make(chan struct{}, 1),
		closing:  make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	s.keys.Set(o.Keyring)
	s.close = sync.OnceFunc(func() { close(s.closing) })
	client, why := s.connect(context.Background())
	if why == nil {
		s.link.client.Store(&client)
	} else {
		s.breakLink(why)
	}
	go s.run(client, why)
	return s, nil
}

// Get implements idempotency.Store.
func (s *Store) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	result, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Get().Key(s.recordKey(id)).Build()
	})
	if err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	e, err := s.parseEntry(id, result)
	if err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	return e.Record, nil
}

func (s *Store) parseEntry(id idempotency.ID, result rueidis.RedisResult) (entry, error) {
	value, err := result.AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return entry{}, nil
	case err != nil:
		return entry{}, err
	}
	e, err := decode(s.keys.Ring(), value)
	if err == nil && e.Record != nil && e.ID != id {
		return entry{}, fmt.Errorf("decoding record: %w: it is the record of another call", store.ErrDamaged)
	}
	return e, err
}

// Claim implements idempotency.Store.
func (s *Store) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	return s.claimAndTell(ctx, rec, over, "")
}

// claimAndTell is Claim, and tells the others news along with it, if there are any.
func (s *Store) claimAndTell(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, news string) (*idempotency.Record, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	var room [6]evaluation
	result, err := s.execDurably(ctx, s.claim(room[:0], listScript, rec, over, news)...)
	incomplete := errors.Is(err, errTooFewReplicas) || errors.Is(err, errAside)
	switch {
	case errors.Is(err, errNotSent):
		s.refused(ctx, rec)
		return nil, fmt.Errorf("claiming record: %w: %w", idempotency.ErrNotMade, err)
	case err != nil && !incomplete:
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	standing, wrong := s.parseEntry(rec.ID, result)
	switch {
	case wrong != nil:
		return nil, fmt.Errorf("claiming record: %w: %w", idempotency.ErrNotMade, wrong)
	case standing.Record != nil || err == nil:
		s.misplaced(rec, standing.Record)
		return standing.Record, nil // it is claims that are to be complete, not what stands in their way
	case over == (idempotency.Owner{}) && s.Release(ctx, rec.ID, rec.Owner) == nil:
		// (What was claimed over must not go with the claim: that is put back
		// by who knows it.)
		err = fmt.Errorf("%w: %w", idempotency.ErrNotMade, err)
	}
	return nil, fmt.Errorf("claiming record: %w", err)
}

// Renew implements idempotency.SharedStore.
func (s *Store) Renew(ctx context.Context, rec *idempotency.Record) (*idempotency.Record, error) {
	s.writing.RLock()
	defer s.writing.RUnlock()
	result, err := s.exec(ctx, s.claim(nil, listAlwaysScript, rec, idempotency.Owner{}, "")...)
	if err != nil {
		return nil, fmt.Errorf("renewing claim: %w", err)
	}
	standing, err := s.parseEntry(rec.ID, result)
	if err != nil {
		return nil, fmt.Errorf("renewing claim: %w", err)
	}
	s.misplaced(rec, standing.Record)
	return standing.Record, nil
}

// claim appends what puts rec where it is looked for, and then what claims it.
func (s *Store) claim(evaluations []evaluation, list *script, rec *idempotency.Record, over idempotency.Owner, news string) []evaluation {
	takesOver := ""
	if rec.Deferred != nil {
		takesOver = "1"
	}
	at := placeAt(store.PositionOf(rec))
	parts := s.argumentsFor(rec.ID).
		record(s.keys.Ring(), rec).number(s.ttl(rec)).bytes(rec.Owner[:]).bytes(over[:]).
		string(s.channel).bytes(rec.ID[:]).
		number(s.pulse.remoteMillis(time.Now().Add(latestClaim))).string(news).string(takesOver).
		bytes(at[:]).cut()
	last := len(parts) - 1
	evaluations = s.placed(evaluations, at, parts[last:])
	evaluations = s.listed(evaluations, list, rec)
	return append(evaluations, evaluation{script: claimScript, key: parts[0], args: parts[1:last]})
}

// latestClaim is when a claim is no longer made that was under way, less than
// idempotency.ClaimGrace by what Redis' clock may be misjudged.
const latestClaim = idempotency.ClaimGrace - time.Second

// Finish implements idempotency.Store.
func (s *Store) Finish(ctx context.Context, rec *idempotency.Record) error {
	s.writing.RLock()
	defer s.writing.RUnlock()
	var room [4]evaluation
	evaluations := s.replaced(room[:0], rec)
	evaluations = s.listed(evaluations, listAlwaysScript, rec) // it may live longer now
	finish := s.argumentsFor(rec.ID).
		record(s.keys.Ring(), rec).number(s.ttl(rec)).bytes(rec.Owner[:]).string(s.channel).bytes(rec.ID[:]).
		evaluation(finishScript)
	result, err := s.execDurably(ctx, append(evaluations, finish)...)
	if err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	done, err := result.AsInt64()
	switch {
	case err != nil:
		return fmt.Errorf("finishing record: %w", err)
	case done == 0:
		return fmt.Errorf("finishing record: %w", idempotency.ErrNotOwner)
	}
	if rec.State == idempotency.Done {
		s.places.leave(placeAt(store.PositionOf(rec)), false)
	}
	return nil
}

// Release implements idempotency.Store. It waits for no replica: a claim that
// comes back when Redis fails over blocks its key, but runs nothing.
func (s *Store) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	result, err := s.exec(ctx, s.argumentsFor(id).
		bytes(owner[:]).string(s.channel).bytes(id[:]).number(idempotency.ClaimGrace.Milliseconds()).
		evaluation(releaseScript))
	if err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	head, err := result.AsBytes()
	switch {
	case rueidis.IsRedisNil(err):
		return nil
	case err != nil:
		return fmt.Errorf("releasing record: %w", err)
	case len(head) < headSize:
		return fmt.Errorf("releasing record: %w", idempotency.ErrNotOwner)
	}
	if place, ok := placeOf(head); ok {
		s.places.leave(place, true)
	}
	if isQueued(head) { // then it is all of the value
		s.dequeueOf(ctx, head)
	}
	s.unlist(ctx, idempotency.AdoptionID(head[adoptionAt:headSize]), member(id, owner))
	return nil
}

// Settle implements idempotency.Store.
func (s *Store) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	result, err := s.exec(ctx, s.argumentsFor(id).bytes(owner[:]).evaluation(settleScript))
	if err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	adoption, err := result.AsBytes()
	if err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	if len(adoption) > 0 {
		s.unlist(ctx, idempotency.AdoptionID(adoption), member(id, owner))
	}
	return nil
}

// Tell implements idempotency.Store.
func (s *Store) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	tell := s.argumentsFor(id).bytes(owner[:]).bytes(encodeTime(nil, told)).evaluation(tellScript)
	if _, err := s.exec(ctx, tell); err != nil {
		return fmt.Errorf("noting what a caller was told: %w", err)
	}
	return nil
}

// Attend implements idempotency.SharedStore.
func (s *Store) Attend(ctx context.Context, id idempotency.ID, was, next idempotency.Owner) (bool, error) {
	result, err := s.exec(ctx, s.argumentsFor(id).bytes(was[:]).bytes(next[:]).evaluation(attendScript))
	if err != nil {
		return false, fmt.Errorf("attending to record: %w", err)
	}
	done, err := result.AsInt64()
	if err != nil {
		return false, fmt.Errorf("attending to record: %w", err)
	}
	return done == 1, nil
}

// Unsettled implements idempotency.Store.
func (s *Store) Unsettled(ctx context.Context, adoption idempotency.AdoptionID) ([]*idempotency.Record, error) {
	result, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Zrange().Key(s.adoptionKey(adoption)).Min("0").Max("-1").Build()
	})
	if err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	members, err := result.AsStrSlice()
	if err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	entries, err := s.getAll(ctx, members)
	if err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	var recs []*idempotency.Record
	for i, e := range entries {
		_, owner := parseMember(members[i])
		switch {
		case e.Record == nil: // not claimed yet, or gone; it leaves the set in time
		case e.Owner != owner || !e.unsettled:
			s.unlist(ctx, adoption, members[i]) // left over
		default:
			recs = append(recs, e.Record)
		}
	}
	store.SortOldestFirst(recs)
	return recs, nil
}

// getAll returns the entries of members.
func (s *Store) getAll(ctx context.Context, members []string) ([]entry, error) {
	if len(members) == 0 {
		return nil, nil
	}
	entries := make([]entry, len(members))
	_, err := s.twice(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		gets := make([]rueidis.Completed, len(members))
		for i, m := range members {
			id, _ := parseMember(m)
			gets[i] = c.B().Get().Key(s.recordKey(id)).Build()
		}
		results := c.DoMulti(ctx, gets...)
		for i, r := range results {
			var err error
			id, _ := parseMember(members[i])
			if entries[i], err = s.parseEntry(id, r); err != nil {
				return rueidis.NewErrorResult(err)
			}
		}
		return results[0]
	})
	return entries, err
}

// listed appends what puts a keyless call among those like it, for as long as it
// lives. It comes before what claims the call: what is claimed and not listed could
// not be adopted, while what is listed and not claimed does no harm.
func (s *Store) listed(evaluations []evaluation, list *script, rec *idempotency.Record) []evaluation {
	if rec.Adoption == (idempotency.AdoptionID{}) {
		return evaluations
	}
	args := []string{member(rec.ID, rec.Owner), strconv.FormatInt(s.ttl(rec), 10)}
	return append(evaluations, evaluation{script: list, key: s.adoptionKey(rec.Adoption), args: args})
}

// unlist takes a member out of its set. Where it fails, the member is left over.
func (s *Store) unlist(ctx context.Context, adoption idempotency.AdoptionID, member string) {
	if adoption == (idempotency.AdoptionID{}) {
		return
	}
	_, _ = s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Zrem().Key(s.adoptionKey(adoption)).Member(member).Build()
	})
}

// member is what a set of unsettled calls holds of one. With the owner in it, it
// can be taken out without a look at who has claimed the record meanwhile.
func member(id idempotency.ID, owner idempotency.Owner) string {
	return string(id[:]) + string(owner[:])
}

// parseMember returns the parts of a member; nothing but members is in a set.
func parseMember(m string) (id idempotency.ID, owner idempotency.Owner) {
	if len(m) == len(id)+len(owner) {
		copy(id[:], m)
		copy(owner[:], m[len(id):])
	}
	return id, owner
}

// ttl returns how long rec has to live, in ms, rounded up, and 1 at least.
func (s *Store) ttl(rec *idempotency.Record) int64 {
	left := rec.Expires.Sub(s.options.Now())
	ms := (left + time.Millisecond - 1) / time.Millisecond
	return max(int64(ms), 1)
}

// Close implements idempotency.Store.
func (s *Store) Close() error {
	s.close()
	<-s.stopped
	return nil
}
