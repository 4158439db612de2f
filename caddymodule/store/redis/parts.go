package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
)

// Parts implements idempotency.Backlog. A process that has not asked for a lease
// counts as gone, and its parts as free. It is told a little less, for clocks that
// do not go alike.
func (s *Store) Parts(ctx context.Context) ([]idempotency.Part, time.Duration, error) {
	s.queue.mu.Lock()
	s.queue.asked++
	asking := s.queue.asked
	s.queue.mu.Unlock()

	sent := time.Now()
	result, err := s.exec(ctx, evaluation{script: partsScript, key: s.queueKey("l"), args: []string{
		hex.EncodeToString(s.self[:]), strconv.FormatInt(s.options.Lease.Milliseconds(), 10),
		strconv.Itoa(queueParts), strconv.FormatUint(asking, 10),
	}})
	if err != nil {
		return nil, 0, fmt.Errorf("asking for parts of the backlog: %w", err)
	}
	names, err := result.AsStrSlice()
	if err != nil {
		return nil, 0, fmt.Errorf("asking for parts of the backlog: %w", err)
	}
	lease := s.options.Lease - s.options.Lease/8 - time.Since(sent)
	if lease <= 0 {
		return nil, 0, errors.New("asking for parts of the backlog: the reply came when they were another's already")
	}
	parts := make([]idempotency.Part, len(names))
	for i, name := range names {
		parts[i] = idempotency.Part(name)
	}
	return parts, lease, nil
}

// leaveParts gives back this process's parts, so that nobody has to wait until they
// are free.
func (s *Store) leaveParts(client rueidis.Client) {
	s.queue.mu.Lock()
	asked := s.queue.asked
	s.queue.mu.Unlock()
	if asked == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.options.CommandTimeout)
	defer cancel()
	leave := evaluation{script: leavePartsScript, key: s.queueKey("l"), args: []string{hex.EncodeToString(s.self[:])}}
	if err := evaluate(ctx, client, leave).Error(); err != nil {
		s.log.Debug("giving back parts of the backlog", slog.Any("error", err))
	}
}
