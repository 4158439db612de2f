package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
)

// watches are what this process wants to hear of.
type watches struct {
	mu sync.Mutex
	by map[idempotency.ID][]chan struct{} // guarded by mu
}

func (w *watches) add(id idempotency.ID) chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	if w.by == nil {
		w.by = make(map[idempotency.ID][]chan struct{})
	}
	w.by[id] = append(w.by[id], c)
	return c
}

func (w *watches) remove(id idempotency.ID, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var rest []chan struct{}
	for _, other := range w.by[id] {
		if other != c {
			rest = append(rest, other)
		}
	}
	if rest == nil {
		delete(w.by, id)
		return
	}
	w.by[id] = rest
}

// notify wakes who watches id.
func (w *watches) notify(id idempotency.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.by[id] {
		wake(c)
	}
}

// notifyAll wakes everybody: something may have been missed.
func (w *watches) notifyAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, cs := range w.by {
		for _, c := range cs {
			wake(c)
		}
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has not seen the last one yet
	}
}

// Watch implements idempotency.SharedStore. stop may be called more than once.
func (s *Store) Watch(ctx context.Context, id idempotency.ID) (<-chan struct{}, func(), error) {
	c := s.watches.add(id)
	stop := func() { s.watches.remove(id, c) }
	if _, err := s.exec(ctx, s.argumentsFor(id).evaluation(watchScript)); err != nil {
		stop()
		return nil, nil, fmt.Errorf("watching record: %w", err)
	}
	return c, stop, nil
}

// listen takes in what client hears until ctx ends.
func (s *Store) listen(ctx context.Context, client rueidis.Client) {
	said := false
	for ctx.Err() == nil {
		s.greet(ctx, client)
		err := client.Receive(ctx, client.B().Subscribe().Channel(s.channel).Build(), s.hear)
		if ctx.Err() != nil {
			return
		}
		// Watchers look now and then without being told. A broken link is
		// found by a beat, and said there.
		if isRedisError(err) && !said { // that will not end by itself
			s.log.Warn("listening for news of other sidecars; duplicates there are told a little later", slog.Any("error", err))
			said = true
		}
		s.watches.notifyAll()
		s.queue.tellAll()
		s.poke()
		select {
		case <-time.After(redialInterval):
		case <-ctx.Done():
		}
	}
}

func (s *Store) hear(m rueidis.PubSubMessage) {
	var id idempotency.ID
	switch {
	case len(m.Message) == 1+len(id) && m.Message[0] == 'r':
		copy(id[:], m.Message[1:])
		s.watches.notify(id)
	case len(m.Message) == 1+len(id) && m.Message[0] == 'd':
		copy(id[:], m.Message[1:])
		s.drops.tell(id, false)
	case m.Message != "" && m.Message[0] == 'h':
		if s.drops.heard(m.Message[1:]) {
			s.drops.tell(id, true)
		}
	case len(m.Message) > len(s.self) && m.Message[0] == 'q':
		if m.Message[1:1+len(s.self)] != string(s.self[:]) { // of its own it was told at once
			s.queue.tell(idempotency.Part(m.Message[1+len(s.self):]))
		}
	case m.Message != "" && m.Message[0] == 'p':
		s.pulse.mu.Lock()
		mine := s.pulse.joined && m.Message[1:] == string(s.pulse.process[:])
		s.pulse.mu.Unlock()
		if mine {
			s.poke()
		}
	}
}
