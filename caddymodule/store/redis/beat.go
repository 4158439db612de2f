package redis

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
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
	process idempotency.Process         // guarded by mu
	joined  bool                        // guarded by mu
	before  func(context.Context) error // guarded by mu; see Join
	latest  time.Time                   // guarded by mu; when the latest beat was sent
	noted   int64                       // guarded by mu; what Redis noted for it, in ms; 0: nothing yet
	since   time.Time                   // guarded by mu; no beat has been missing since
	skewed  bool                        // guarded by mu; that the clocks differ was said
}

// canJudge tells whether who was not heard of for a lease is dead, when it is
// now here and millis in Redis.
func (p *pulse) canJudge(now time.Time, millis int64, lease time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.joined && now.Sub(p.since) >= lease && now.Sub(p.latest) < lease &&
		sinceMillis(p.noted, millis) < lease // else Redis' clock was set
}

// note notes that a beat that was sent at sent found before and noted millis.
func (p *pulse) note(sent time.Time, before, millis int64, lease time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	drift := sinceMillis(p.noted, millis) - sent.Sub(p.latest)
	if p.noted == 0 || p.noted != before || sent.Sub(p.latest) >= lease || drift.Abs() > lease/4 {
		// Redis was away, or has lost what it knew, or its clock was set, or
		// this process stood still: the others may have fared alike.
		p.since = sent
	}
	p.latest, p.noted = sent, millis
}

// remoteMillis returns what Redis' clock is going to say at t, in ms since 1970,
// to be compared with. Before the first beat it is the end of time.
func (p *pulse) remoteMillis(t time.Time) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.noted == 0 {
		return math.MaxInt64
	}
	return p.noted + t.Sub(p.latest).Milliseconds() + 1
}

// sinceMillis returns how long it is from a to b, in ms since 1970.
func sinceMillis(a, b int64) time.Duration { return time.Duration(b-a) * time.Millisecond }

// Join implements idempotency.SharedStore.
func (s *Store) Join(p idempotency.Process, before func(context.Context) error) {
	s.pulse.mu.Lock()
	s.pulse.process, s.pulse.joined, s.pulse.before = p, true, before
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
	s.pulse.mu.Lock()
	process, joined, before := s.pulse.process, s.pulse.joined, s.pulse.before
	s.pulse.mu.Unlock()
	silent := !joined
	if joined {
		ctx, cancel := context.WithTimeout(context.Background(), s.options.CommandTimeout)
		defer cancel()
		if err := before(ctx); err != nil {
			s.log.Debug("showing no sign of life", slog.Any("error", err))
			silent = true
		}
	}

	ctx, cancel := context.WithTimeoutCause(context.Background(), s.options.CommandTimeout, errTimeout)
	defer cancel()
	if silent {
		return because(ctx, client.Do(ctx, client.B().Ping().Build()).Error())
	}
	sent := time.Now()
	beat := evaluation{script: beatScript, key: s.processKey(process), args: []string{strconv.FormatInt(remembered.Milliseconds(), 10)}}
	found, now, err := parseTimes(evaluate(ctx, client, beat))
	if err != nil {
		return because(ctx, err)
	}
	s.pulse.note(sent, found, now, s.options.Lease)
	s.checkClock(sent, now)
	return nil
}

// because names the reason where ctx has ended.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// checkClock warns where the local clock is not Redis', which was millis between
// sent and now.
func (s *Store) checkClock(sent time.Time, millis int64) {
	skew := max(sent.Sub(time.UnixMilli(millis+1)), time.Until(time.UnixMilli(millis)))
	s.pulse.mu.Lock()
	was := s.pulse.skewed
	s.pulse.skewed = skew > maxSkew
	is := s.pulse.skewed
	s.pulse.mu.Unlock()
	if is && !was {
		s.log.Warn("the clock of this machine and Redis' differ; windows of adoption are off by as much, so set the clocks (NTP)",
			slog.Duration("by", skew))
	}
}

// parseTimes returns the two times of beatScript and lifeScript, in ms; 0 for
// none.
func parseTimes(result rueidis.RedisResult) (before, now int64, err error) {
	values, err := result.ToArray()
	if err != nil {
		return 0, 0, err
	}
	if len(values) != 2 {
		return 0, 0, errors.New("parsing times: redis returned something else")
	}
	// As strings: Redis would cut numbers of its own off.
	text, err := values[0].ToString()
	if err == nil {
		before, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil && !rueidis.IsRedisNil(err) {
		return 0, 0, fmt.Errorf("parsing times: %w", err)
	}
	if text, err = values[1].ToString(); err == nil {
		now, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("parsing times: %w", err)
	}
	return before, now, nil
}

// Life implements idempotency.SharedStore.
func (s *Store) Life(ctx context.Context, p idempotency.Process) (idempotency.Life, error) {
	life, _, err := s.life(ctx, p)
	return life, err
}

// life is Life, and returns what Redis noted when p was last heard of; 0: never.
func (s *Store) life(ctx context.Context, p idempotency.Process) (life idempotency.Life, noted int64, err error) {
	result, err := s.exec(ctx, evaluation{script: lifeScript, key: s.processKey(p), args: nil})
	if err != nil {
		return life, 0, fmt.Errorf("asking for a process's life: %w", err)
	}
	noted, now, err := parseTimes(result)
	if err != nil {
		return life, 0, fmt.Errorf("asking for a process's life: %w", err)
	}
	local, lease := time.Now(), s.options.Lease
	life.Alive = !s.pulse.canJudge(local, now, lease)
	if noted != 0 {
		age := sinceMillis(noted, now)
		life.Seen = local.Add(-age)
		life.Alive = life.Alive || age.Abs() < lease // the clock may have been set back
	}
	return life, noted, nil
}

// Ping implements idempotency.SharedStore.
func (s *Store) Ping(ctx context.Context, p idempotency.Process) (bool, error) {
	_, before, err := s.life(ctx, p)
	if err != nil {
		return false, err
	}
	publish := func(c rueidis.Client) rueidis.Completed {
		return c.B().Publish().Channel(s.channel).Message("p" + string(p[:])).Build()
	}
	if _, err := s.do(ctx, publish); err != nil {
		return false, fmt.Errorf("asking for a sign of life: %w", err)
	}
	for pause := pingPatience; ; pause = min(2*pause, s.options.Lease/8) {
		life, noted, err := s.life(ctx, p)
		switch {
		case err != nil:
			return false, err
		case noted != before && noted != 0:
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
