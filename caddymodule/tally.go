package caddymodule

import (
	"context"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

const (
	// tallyInterval is how long a count of records that are not done is good for:
	// whoever looks, metrics, the page or the status, need not count again.
	tallyInterval = 2 * time.Second

	tallyTimeout = 5 * time.Second
)

// tallies keeps the latest count.
type tallies struct {
	mu      sync.Mutex
	counted time.Time
	latest  map[idempotency.State]int
}

// tally returns how many calls the store has in each state but done, nil if it
// does not say.
func (b *backend) tally() map[idempotency.State]int {
	lister, ok := b.store.(idempotency.Lister)
	if !ok {
		return nil
	}
	b.tallies.mu.Lock()
	defer b.tallies.mu.Unlock()
	if time.Since(b.tallies.counted) < tallyInterval {
		return b.tallies.latest
	}
	ctx, cancel := context.WithTimeout(context.Background(), tallyTimeout)
	defer cancel()
	began := time.Now()
	counts, err := b.count(ctx, lister)
	if err != nil {
		counts = nil
		b.health.fails(err)
	} else {
		b.health.works() // nobody may have called for long
	}
	b.tallies.latest = counts
	// Counting a great many takes its time, of which it is to be a small part.
	b.tallies.counted = time.Now().Add(20 * time.Since(began))
	return counts
}

// count counts calls by what their records mean: those that were left behind are
// unknown or open.
func (b *backend) count(ctx context.Context, lister idempotency.Lister) (map[idempotency.State]int, error) {
	tally, err := lister.Tally(ctx)
	if err != nil {
		return nil, err
	}
	counts := map[idempotency.State]int{ // an alarm wants to see a zero
		idempotency.Started: 0,
		idempotency.Unknown: tally[idempotency.Unknown],
		idempotency.Open:    0,
	}
	for _, state := range []idempotency.State{idempotency.Started, idempotency.Open} {
		if tally[state] == 0 {
			continue
		}
		query := idempotency.Query{States: []idempotency.State{state}, Limit: 1000}
		for {
			page, err := lister.List(ctx, query)
			if err != nil {
				return nil, err
			}
			standings, err := b.gate.Standings(ctx, page.Records)
			if err != nil {
				return nil, err
			}
			for i, standing := range standings {
				if _, counted := counts[standing]; counted && page.Records[i] != nil {
					counts[standing]++
				}
			}
			if page.Next.IsZero() {
				break
			}
			query.After = page.Next
		}
	}
	return counts, nil
}
