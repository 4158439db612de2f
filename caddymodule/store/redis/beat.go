package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"genesys-sidecar/caddymodule/idempotency"
)

const (
	// remembered is how long it is known when a process was last heard of.
	remembered = 7 * 24 * time.Hour

	// pingPatience is how long Ping waits between its first looks.
	pingPatience = time.Millisecond

	// maxSkew is how far the local clock may be from Redis' before that is
	// worth a warning: windows of adoption are told by local clocks.
	maxSkew = 2 * time.Second
)

// pulse is what this process knows of its own signs of life. Others can be taken
// for dead only by somebody who would have heard of them: they may not have been
// able to reach Redis either.
type pulse struct {
	mu      sync.Mutex
	process idempotency.Process // guarded by mu
	joined  bool                // guarded by mu
	latest  time.Time           // guarded by mu; when the latest beat was sent
	noted   string              // guarded by mu; what Redis noted for it
	since   time.Time           // guarded by mu; no beat has been missing since
	skewed  bool                // guarded by mu; that the clocks differ was said
}

// canJudge tells whether who was not heard of for a lease is dead.
func (p *pulse) canJudge(now time.Time, lease time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.joined && now.Sub(p.latest) < lease && now.Sub(p.since) >= lease
}

// Join implements idempotency.SharedStore.
func (s *Store) Join(p idempotency.Process) {
	s.pulse.mu.Lock()
	s.pulse.process, s.pulse.joined = p, true
	s.pulse.mu.Unlock()
	// The others have to know before the first claim is made.
	if client, err := s.link.get(); err == nil {
		if err := s.beat(client); err != nil {
			s.poke()
		}
	}
}

func (s *Store) processKey(p idempotency.Process) string {
	return s.options.Prefix + "p:" + hex.EncodeToString(p[:])
}

// poke has a beat follow at once.
func (s *Store) poke() {
	select {
	case s.poked <- struct{}{}:
	default: // one is due already
	}
}

// beat shows a sign of life, or before Join, finds out whether Redis does.
func (s *Store) beat(client rueidis.Client) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), s.options.CommandTimeout, errTimeout)
	defer cancel()
	s.pulse.mu.Lock()
	process, joined := s.pulse.process, s.pulse.joined
	s.pulse.mu.Unlock()
	if !joined {
		return because(ctx, client.Do(ctx, client.B().Ping().Build()).Error())
	}

	sent := time.Now()
	result := evaluate(ctx, beatScript, s.processKey(process), []string{strconv.FormatInt(remembered.Milliseconds(), 10)}, client.Do, client.B)
	before, now, err := parseTimes(result)
	if err != nil {
		return because(ctx, err)
	}
	s.noteBeat(sent, before, now)
	return nil
}

// because names the reason where ctx has ended.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// noteBeat notes that a beat that was sent at sent found before and noted now.
func (s *Store) noteBeat(sent time.Time, before, now string) {
	s.pulse.mu.Lock()
	defer s.pulse.mu.Unlock()
	p := &s.pulse
	if p.noted != before || p.noted == "" || sent.Sub(p.latest) >= s.options.Lease {
		// Redis was away, or has lost what it knew, or this process stood
		// still: the others may have fared alike.
		p.since = sent
	}
	p.latest, p.noted = sent, now

	millis, err := strconv.ParseInt(now, 10, 64)
	if err != nil {
		return
	}
	arrived := time.Now()
	skew := max(sent.Sub(time.UnixMilli(millis+1)), time.UnixMilli(millis).Sub(arrived))
	if skewed := skew > maxSkew; skewed != p.skewed {
		p.skewed = skewed
		if skewed {
			s.log.Warn("the clock of this machine and Redis' differ; windows of adoption are off by as much, so set the clocks (NTP)",
				slog.Duration("by", skew))
		}
	}
}

// parseTimes returns the two times of beatScript and lifeScript; "" for none.
func parseTimes(result rueidis.RedisResult) (before, now string, err error) {
	values, err := result.ToArray()
	if err != nil {
		return "", "", err
	}
	if len(values) != 2 {
		return "", "", errors.New("parsing times: redis returned something else")
	}
	if before, err = values[0].ToString(); err != nil && !rueidis.IsRedisNil(err) {
		return "", "", fmt.Errorf("parsing times: %w", err)
	}
	if now, err = values[1].ToString(); err != nil {
		return "", "", fmt.Errorf("parsing times: %w", err)
	}
	return before, now, nil
}

// Life implements idempotency.SharedStore.
func (s *Store) Life(ctx context.Context, p idempotency.Process) (idempotency.Life, error) {
	life, _, err := s.life(ctx, p)
	return life, err
}

// life is Life, and returns what Redis noted when p was last heard of.
func (s *Store) life(ctx context.Context, p idempotency.Process) (idempotency.Life, string, error) {
	result, err := s.exec(ctx, lifeScript, s.processKey(p))
	if err != nil {
		return idempotency.Life{}, "", fmt.Errorf("asking for a process's life: %w", err)
	}
	noted, now, err := parseTimes(result)
	if err != nil {
		return idempotency.Life{}, "", fmt.Errorf("asking for a process's life: %w", err)
	}
	local := time.Now()
	life := idempotency.Life{Alive: !s.pulse.canJudge(local, s.options.Lease)}
	if noted == "" {
		return life, "", nil
	}
	was, err1 := strconv.ParseInt(noted, 10, 64)
	is, err2 := strconv.ParseInt(now, 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return idempotency.Life{}, "", fmt.Errorf("asking for a process's life: %w", err)
	}
	age := time.Duration(is-was) * time.Millisecond
	life.Seen = local.Add(-age)
	life.Alive = life.Alive || age < s.options.Lease
	return life, noted, nil
}

// Ping implements idempotency.SharedStore.
func (s *Store) Ping(ctx context.Context, p idempotency.Process) (bool, error) {
	_, before, err := s.life(ctx, p)
	if err != nil {
		return false, err
	}
	publish := func(c rueidis.Client) rueidis.Completed {
		return c.B().Publish().Channel(s.channel()).Message("p" + string(p[:])).Build()
	}
	if _, err := s.do(ctx, publish); err != nil {
		return false, fmt.Errorf("asking for a sign of life: %w", err)
	}
	for pause := pingPatience; ; pause = min(2*pause, s.options.Lease/8) {
		life, noted, err := s.life(ctx, p)
		switch {
		case err != nil:
			return false, err
		case noted != before && noted != "":
			return true, nil
		case !life.Alive:
			return false, nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, ctx.Err()
		case <-s.closing:
			return false, errClosed
		}
	}
}

// leave says that this process will not be heard of any more.
func (s *Store) leave(client rueidis.Client) {
	s.pulse.mu.Lock()
	process, joined := s.pulse.process, s.pulse.joined
	s.pulse.mu.Unlock()
	if !joined {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.options.CommandTimeout)
	defer cancel()
	if err := client.Do(ctx, client.B().Del().Key(s.processKey(process)).Build()).Error(); err != nil {
		s.log.Warn("leaving the fleet", slog.Any("error", err))
	}
}
