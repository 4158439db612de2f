package redis

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
)

// drops are what this process is told of records that were changed after they
// had ended. Who has missed one cannot know it, so that each time listening
// begins anew, all is dropped. It has begun once a greeting of one's own is
// heard.
type drops struct {
	mu       sync.Mutex
	drop     func(idempotency.ID, bool) // guarded by mu
	greeting string                     // guarded by mu; "": it was heard
}

func (d *drops) tell(id idempotency.ID, all bool) {
	d.mu.Lock()
	drop := d.drop
	d.mu.Unlock()
	if drop != nil {
		drop(id, all)
	}
}

// heard tells whether greeting is the one that this process waits for.
func (d *drops) heard(greeting string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.greeting == "" || d.greeting != greeting {
		return false
	}
	d.greeting = ""
	return true
}

// waitsFor tells whether greeting has not been heard.
func (d *drops) waitsFor(greeting string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.greeting == greeting
}

// greetInterval is how long a greeting is waited for before the next.
const greetInterval = 250 * time.Millisecond

// greet sends a greeting to oneself, until it is heard or ctx ends. It returns
// at once.
func (s *Store) greet(ctx context.Context, client rueidis.Client) {
	greeting := rand.Text()
	s.drops.mu.Lock()
	s.drops.greeting = greeting
	s.drops.mu.Unlock()
	go func() {
		for s.drops.waitsFor(greeting) {
			_ = client.Do(ctx, client.B().Publish().Channel(s.channel).Message("h"+greeting).Build()).Error()
			select {
			case <-time.After(greetInterval):
			case <-ctx.Done():
				return
			}
		}
	}()
}

// OnDrop implements idempotency.SharedStore.
func (s *Store) OnDrop(drop func(id idempotency.ID, all bool)) {
	s.drops.mu.Lock()
	defer s.drops.mu.Unlock()
	s.drops.drop = drop
}

// Drop implements idempotency.SharedStore.
func (s *Store) Drop(ctx context.Context, id idempotency.ID) error {
	_, err := s.do(ctx, func(c rueidis.Client) rueidis.Completed {
		return c.B().Publish().Channel(s.channel).Message("d" + string(id[:])).Build()
	})
	if err != nil {
		return fmt.Errorf("telling other processes: %w", err)
	}
	return nil
}
