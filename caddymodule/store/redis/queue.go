package redis

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
)

var _ idempotency.Backlog = (*Store)(nil)

// queueParts is how many parts the backlog has: how many processes can work on it
// at a time. All that share a store must agree on it.
const queueParts = 16

// queue is what this process knows of its own work on the backlog.
type queue struct {
	mu       sync.Mutex
	enqueued func(idempotency.Part) // guarded by mu; who is told of new tickets
	asked    uint64                 // guarded by mu; how often it has asked for parts
}

func (q *queue) tell(part idempotency.Part) {
	q.mu.Lock()
	enqueued := q.enqueued
	q.mu.Unlock()
	if enqueued != nil {
		enqueued(part)
	}
}

// tellAll tells of all parts: something may have been missed.
func (q *queue) tellAll() {
	for i := range queueParts {
		q.tell(partNumber(i))
	}
}

// OnEnqueue implements idempotency.Backlog.
func (s *Store) OnEnqueue(enqueued func(idempotency.Part)) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	s.queue.enqueued = enqueued
}

func partNumber(i int) idempotency.Part { return idempotency.Part(strconv.Itoa(i)) }

// partOf returns the part that a lane is in.
func partOf(lane idempotency.LaneID) idempotency.Part {
	h := fnv.New32a()
	_, _ = h.Write(lane[:])
	return partNumber(int(h.Sum32() % queueParts))
}

// isPart tells whether there is that part.
func isPart(part idempotency.Part) bool {
	i, err := strconv.Atoi(string(part))
	return err == nil && i >= 0 && i < queueParts && part == partNumber(i)
}

// queueKey returns a key of the backlog. All are in one slot of a Cluster.
func (s *Store) queueKey(what string) string { return s.options.Prefix + "{queue}:" + what }

// Enqueue implements idempotency.Backlog. The ticket comes first, then the claim:
// a crash in between leaves a ticket that leads nowhere, while a record without a
// ticket would never get its turn.
func (s *Store) Enqueue(ctx context.Context, rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds) (*idempotency.Record, error) {
	if rec.State != idempotency.Queued || rec.Deferred == nil || rec.Deferred.Place != "" {
		return nil, fmt.Errorf("enqueuing call: %w: its record is not that of a new one", idempotency.ErrNotMade)
	}
	part := partOf(rec.Deferred.Lane)
	place, err := s.putTicket(ctx, part, rec, bounds)
	switch {
	case errors.Is(err, idempotency.ErrBacklogFull):
		// What is there already needs no room.
		standing, wrong := s.Get(ctx, rec.ID)
		if wrong == nil && standing != nil && !standing.OwnedBy(over) {
			return standing, nil
		}
		return nil, fmt.Errorf("enqueuing call: %w: %w", idempotency.ErrNotMade, err)
	case err != nil:
		return nil, fmt.Errorf("enqueuing call: %w: %w", idempotency.ErrNotMade, err)
	}

	deferred, queued := *rec.Deferred, *rec
	deferred.Place, queued.Deferred = place, &deferred
	standing, err := s.claimAndTell(ctx, &queued, over, "q"+string(s.self[:])+string(part))
	switch {
	case err == nil && standing == nil:
		s.queue.tell(part)
	case err == nil || errors.Is(err, idempotency.ErrNotMade):
		s.dequeueSoon(ctx, place)
	}
	return standing, err
}

// putTicket puts a ticket at the end of a part.
func (s *Store) putTicket(ctx context.Context, part idempotency.Part, rec *idempotency.Record, bounds idempotency.Bounds) (idempotency.Place, error) {
	d := rec.Deferred
	result, err := s.execDurably(ctx, evaluation{
		script: enqueueScript, key: s.queueKey(string(part)), more: []string{s.queueKey("n")}, args: []string{
			strconv.Itoa(max(bounds.Calls, 0)), strconv.FormatInt(max(bounds.Bytes, 0), 10),
			string(rec.ID[:]) + string(d.Lane[:]), string(encodeTime(nil, d.Since.Truncate(time.Millisecond))), strconv.FormatInt(d.Size(), 10),
		},
	})
	tooFew := errors.Is(err, errTooFewReplicas)
	if err != nil && !tooFew {
		return "", err
	}
	at, wrong := result.ToString()
	switch {
	case rueidis.IsRedisNil(wrong):
		return "", idempotency.ErrBacklogFull
	case wrong != nil:
		return "", wrong
	}
	place := idempotency.Place(string(part) + "/" + at)
	if tooFew {
		s.dequeueSoon(ctx, place)
		return "", err
	}
	return place, nil
}

// Tickets implements idempotency.Backlog.
func (s *Store) Tickets(ctx context.Context, part idempotency.Part, after idempotency.Place, limit int) ([]idempotency.Ticket, error) {
	if !isPart(part) {
		return nil, errors.New("reading backlog: it has no such part")
	}
	start := "-"
	if after != "" {
		of, at, ok := parsePlace(after)
		if !ok || of != part {
			return nil, errors.New("reading backlog: the place to begin after is not in that part")
		}
		start = "(" + at
	}
	if limit <= 0 {
		return nil, nil
	}
	result, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Xrange().Key(s.queueKey(string(part))).Start(start).End("+").Count(int64(limit)).Build()
	})
	if err != nil {
		return nil, fmt.Errorf("reading backlog: %w", err)
	}
	entries, err := result.AsXRange()
	if err != nil {
		return nil, fmt.Errorf("reading backlog: %w", err)
	}
	tickets := make([]idempotency.Ticket, len(entries))
	for i, e := range entries {
		if tickets[i], err = parseTicket(e.FieldValues); err != nil {
			return nil, fmt.Errorf("reading backlog: %w", err)
		}
		tickets[i].Place = idempotency.Place(string(part) + "/" + e.ID)
	}
	return tickets, nil
}

// The fields of a ticket. It holds digests, a time and a size: nothing of a call
// that a keyring would have to encrypt.
const (
	ticketCall  = "c" // its ID, then its lane
	ticketSince = "t" // to the millisecond, as encodeTime has it
	ticketSize  = "n"
)

func parseTicket(fields map[string]string) (t idempotency.Ticket, err error) {
	call, since := fields[ticketCall], fields[ticketSince]
	if len(call) != len(t.ID)+len(t.Lane) || len(since) != 8 {
		return t, errors.New("a ticket in it is damaged")
	}
	copy(t.ID[:], call)
	copy(t.Lane[:], call[len(t.ID):])
	t.Since = decodeTime([]byte(since))
	t.Size, err = strconv.ParseInt(fields[ticketSize], 10, 64)
	return t, err
}

// parsePlace returns the parts of a place: the part of the backlog, and the ID in
// its stream.
func parsePlace(place idempotency.Place) (part idempotency.Part, at string, ok bool) {
	before, at, ok := strings.Cut(string(place), "/")
	ms, n, both := strings.Cut(at, "-")
	for _, number := range []string{ms, n} {
		if _, err := strconv.ParseUint(number, 10, 64); err != nil {
			return "", "", false
		}
	}
	return idempotency.Part(before), at, ok && both && isPart(idempotency.Part(before))
}

// Dequeue implements idempotency.Backlog.
func (s *Store) Dequeue(ctx context.Context, place idempotency.Place) error {
	part, at, ok := parsePlace(place)
	if !ok {
		return errors.New("dequeuing call: that is no place in this backlog")
	}
	_, err := s.exec(ctx, evaluation{
		script: dequeueScript, key: s.queueKey(string(part)), more: []string{s.queueKey("n")}, args: []string{at},
	})
	if err != nil {
		return fmt.Errorf("dequeuing call: %w", err)
	}
	return nil
}

// dequeueSoon is Dequeue for what was not needed, also where ctx has ended. Where
// it fails, the ticket is left over, which who works on the part finds out.
func (s *Store) dequeueSoon(ctx context.Context, place idempotency.Place) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.CommandTimeout)
	defer cancel()
	_ = s.Dequeue(ctx, place)
}

// isQueued tells whether value begins with a record that is queued.
func isQueued(value []byte) bool {
	return len(value) > headSize+1 && idempotency.State(value[headSize+1]) == idempotency.Queued
}

// dequeueOf dequeues the ticket of the record that was value.
func (s *Store) dequeueOf(ctx context.Context, value []byte) {
	e, err := decode(s.keys.Ring(), value)
	if err == nil && e.Record != nil && e.Deferred != nil && e.Deferred.Place != "" {
		s.dequeueSoon(ctx, e.Deferred.Place)
	}
}

// Depth implements idempotency.Backlog.
func (s *Store) Depth(ctx context.Context) (idempotency.Depth, error) {
	var parts []string
	for i := range queueParts {
		parts = append(parts, s.queueKey(string(partNumber(i))))
	}
	result, err := s.exec(ctx, evaluation{script: depthScript, key: s.queueKey("n"), more: parts})
	if err != nil {
		return idempotency.Depth{}, fmt.Errorf("measuring backlog: %w", err)
	}
	values, err := result.AsStrSlice()
	if err == nil && len(values) < 2 {
		err = errors.New("redis returned something else")
	}
	var d idempotency.Depth
	if err == nil {
		d.Calls, err = strconv.Atoi(values[0])
	}
	if err == nil {
		d.Bytes, err = strconv.ParseInt(values[1], 10, 64)
	}
	if err != nil {
		return idempotency.Depth{}, fmt.Errorf("measuring backlog: %w", err)
	}
	for _, since := range values[2:] {
		if t := decodeTime([]byte(since)); d.Oldest.IsZero() || t.Before(d.Oldest) {
			d.Oldest = t
		}
	}
	return d, nil
}
