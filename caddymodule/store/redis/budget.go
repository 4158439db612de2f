package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

var _ pacing.Shared = (*Store)(nil)

// sharerLife is how long a process counts as one that shares a budget, and its
// calls as under way, after it was last heard of.
const sharerLife = 10 * time.Second

// Take implements pacing.Shared. It goes by the clock of Redis. What is granted
// in a reply that is lost is spent all the same.
func (s *Store) Take(ctx context.Context, name string, limits pacing.Limits, ask pacing.Ask) (pacing.Grant, error) {
	grant, _, err := s.take(ctx, name, limits, ask)
	return grant, err
}

// take is Take, and tells Redis' clock when the starts were granted, in µs.
func (s *Store) take(ctx context.Context, name string, limits pacing.Limits, ask pacing.Ask) (pacing.Grant, int64, error) {
	args, err := takeArgs(s.self, limits, ask)
	if err != nil {
		return pacing.Grant{}, 0, fmt.Errorf("taking starts: %w", err)
	}
	key := s.budgetKey(name)
	s.budgets.note(key)
	result, err := s.exec(ctx, evaluation{script: takeScript, key: key, args: args})
	if err != nil {
		return pacing.Grant{}, 0, fmt.Errorf("taking starts: %w", err)
	}
	grant, at, err := parseGrant(result)
	if err != nil {
		return pacing.Grant{}, 0, fmt.Errorf("taking starts: %w", err)
	}
	return grant, at, nil
}

func takeArgs(process idempotency.Process, limits pacing.Limits, ask pacing.Ask) ([]string, error) {
	args, err := budgetArgs(process, limits)
	for _, n := range []int{limits.Concurrency, ask.Want, ask.Leave, ask.LeaveConcurrency, ask.InFlight} {
		args = append(args, strconv.Itoa(max(n, 0)))
	}
	for _, ages := range [][]time.Duration{ask.Late, ask.Own} {
		args = append(args, strconv.Itoa(len(ages)))
		for _, age := range ages {
			args = append(args, micros(age))
		}
	}
	return args, err
}

// parseGrant returns what takeScript grants, and Redis' clock then, in µs.
func parseGrant(result rueidis.RedisResult) (pacing.Grant, int64, error) {
	n, err := result.AsIntSlice()
	if err == nil && len(n) != 7 {
		err = errors.New("redis returned something else")
	}
	if err != nil {
		return pacing.Grant{}, 0, err
	}
	return pacing.Grant{
		Starts:   int(n[0]),
		Wait:     time.Duration(n[1]) * time.Microsecond,
		Used:     int(n[2]),
		Limit:    int(n[3]),
		InFlight: int(n[4]),
		Sharers:  int(n[5]),
	}, n[6], nil
}

// Hold implements pacing.Shared. A Hold while there is one only makes that last
// longer: nothing has started since, by which the upstream could have counted less.
func (s *Store) Hold(ctx context.Context, name string, limits pacing.Limits, d time.Duration) error {
	args, err := holdArgs(s.self, limits, d)
	if err == nil {
		_, err = s.exec(ctx, evaluation{script: holdScript, key: s.budgetKey(name), args: args})
	}
	if err != nil {
		return fmt.Errorf("holding starts: %w", err)
	}
	return nil
}

func holdArgs(process idempotency.Process, limits pacing.Limits, d time.Duration) ([]string, error) {
	args, err := budgetArgs(process, limits)
	return append(args, micros(d)), err
}

// budgetArgs are what both scripts want to know first.
func budgetArgs(process idempotency.Process, l pacing.Limits) ([]string, error) {
	if l.Starts > 0 && l.Window < time.Microsecond {
		return nil, errors.New("the budget's window is too short; 1µs is the least")
	}
	burst := l.Burst
	if burst <= 0 {
		burst = max(10, l.Starts/10)
	}
	return []string{
		hex.EncodeToString(process[:]), strconv.FormatInt(sharerLife.Microseconds(), 10),
		strconv.Itoa(max(l.Starts, 0)), micros(l.Window), strconv.Itoa(min(burst, max(l.Starts, 1))),
	}, nil
}

func micros(d time.Duration) string { return strconv.FormatInt(max(d.Microseconds(), 0), 10) }

// budgetKey returns the one key of a budget. A name is of any length, and may tell
// more than others who use this Redis need to see.
func (s *Store) budgetKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return string(s.appendKey(nil, budgetKind, sum[:16]))
}

// budgets are the keys of the budgets that this process has shared.
type budgets struct {
	mu   sync.Mutex
	keys map[string]struct{} // guarded by mu
}

func (b *budgets) note(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.keys == nil {
		b.keys = make(map[string]struct{})
	}
	b.keys[key] = struct{}{}
}

// leaveBudgets says that this process shares no budget any more, so that the
// others have its share at once.
func (s *Store) leaveBudgets(client rueidis.Client) {
	s.budgets.mu.Lock()
	defer s.budgets.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), s.options.CommandTimeout)
	defer cancel()
	for key := range s.budgets.keys {
		_ = client.Do(ctx, client.B().Hdel().Key(key).Field("p"+hex.EncodeToString(s.self[:])).Build()).Error()
	}
}
