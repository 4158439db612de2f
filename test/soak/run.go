package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// soak is a run.
type soak struct {
	set     settings
	dir     string
	out     io.Writer // the terminal and a file
	up      *upstream
	redis   *redistest.Server
	fleet   []*sidecar
	ledger  *ledgerReader
	chaos   *chaos
	checker *checker
	count   counters
	pace    pace
	past    past
	http    *http.Client
	drains  sync.WaitGroup // what callers that have left still read
	over    time.Time      // when everything runs again
}

// run makes a run. ctx ends the calls, and aborting everything.
func run(ctx, aborting context.Context, set settings) (err error) {
	s := &soak{set: set, pace: pace{gap: time.Second / time.Duration(set.rate)}}
	if s.dir, err = os.MkdirTemp("", "genesys-sidecar-soak-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	report, err := os.Create(filepath.Join(s.dir, "report"))
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	defer report.Close()
	s.out = io.MultiWriter(os.Stdout, report)
	fmt.Fprintf(report, "seed %d: %s\n", set.seed, set.command())
	if err := s.start(ctx); err != nil {
		return errors.Join(err, s.end())
	}
	err = s.soak(ctx, aborting)
	violations, _ := s.checker.found()
	if err == nil && len(violations) > 0 {
		err = fmt.Errorf("%d violations", len(violations))
	}
	if err != nil || set.keep {
		s.keepRedisLog()
	}
	err = errors.Join(err, s.end())
	if err != nil || set.keep {
		fmt.Fprintf(s.out, "the logs are in %s\n", s.dir)
		return err
	}
	return os.RemoveAll(s.dir)
}

// start starts all that a run needs.
func (s *soak) start(ctx context.Context) error {
	binary, what := s.set.binary, "given"
	if binary == "" {
		var err error
		if binary, what, err = build(ctx, s.dir); err != nil {
			return err
		}
	}
	binary, err := filepath.Abs(binary)
	if err != nil {
		return fmt.Errorf("finding the sidecar: %w", err)
	}
	fmt.Fprintf(s.out, "the sidecar is %s\n", what)

	events, err := os.Create(filepath.Join(s.dir, "events"))
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	s.chaos = &chaos{log: io.MultiWriter(s.out, events), count: &s.count}
	s.checker = newChecker(s.out, s.chaos.near, func(key string) []sandbox.Attempt {
		return s.up.Ledger(sandbox.Filter{Key: key}).Attempts
	})
	s.checker.repeat = s.set.command()
	s.chaos.blame = s.checker.report
	s.chaos.events = newSchedule(s.set.seed, s.set.duration, s.set.sidecars, s.set.every)
	schedule, err := os.Create(filepath.Join(s.dir, "schedule"))
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	defer schedule.Close()
	for _, e := range s.chaos.events {
		fmt.Fprintln(schedule, e)
	}

	if s.up, err = newUpstream(s.dir); err != nil {
		return err
	}
	if s.ledger, err = s.up.openLedger(); err != nil {
		return err
	}
	s.redis, err = redistest.Start(redistest.Options{Args: []string{
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
	}})
	if err != nil {
		return err
	}
	s.chaos.redis = s.redis
	for i := range s.set.sidecars {
		if err := s.addSidecar(i, binary); err != nil {
			return err
		}
	}
	s.chaos.fleet = s.fleet
	s.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 10 * time.Second}}
	return nil
}

func (s *soak) addSidecar(number int, binary string) error {
	one := &sidecar{number: number, binary: binary, dir: filepath.Join(s.dir, fmt.Sprintf("sidecar%d", number)), env: s.up.environment()}
	one.ended = func(one *sidecar, err error) {
		s.checker.report("a sidecar that ended by itself", fmt.Sprintf("sidecar %d: %v", one.number, err))
	}
	var err error
	if one.address, err = freeAddress(); err != nil {
		return err
	}
	if one.admin, err = freeAddress(); err != nil {
		return err
	}
	if err := os.Mkdir(one.dir, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	cache := "8MiB"
	if number == s.set.sidecars-1 {
		cache = "off" // it always asks the store
	}
	if err := one.configure(s.redis.URL(), cache, s.set.debug); err != nil {
		return fmt.Errorf("configuring a sidecar: %w", err)
	}
	if err := one.start(); err != nil {
		return err
	}
	s.fleet = append(s.fleet, one)
	return nil
}

// soak makes calls, while the schedule comes about, and checks.
func (s *soak) soak(ctx, aborting context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.set.duration)
	defer cancel()
	s.chaos.start = time.Now()
	fmt.Fprintf(s.out, "%d sidecars, %d clients, %d events from %s on\n", len(s.fleet), s.set.clients, len(s.chaos.events), clock(s.chaos.start))

	reading, read := context.WithCancel(aborting)
	defer read()
	var background sync.WaitGroup
	var ledgerErr error
	background.Go(func() { ledgerErr = s.ledger.follow(reading, s.checker.ran) })
	background.Go(func() { s.progress(reading) })

	var clients sync.WaitGroup
	for i := range s.set.clients {
		c := &client{soak: s, number: i, random: rand.New(rand.NewPCG(s.set.seed, uint64(i)))}
		clients.Go(func() { c.run(ctx) })
	}
	s.chaos.run(ctx)
	<-ctx.Done()
	s.over = time.Now()
	if _, err := s.redis.Do("PING"); err != nil {
		// Ctrl-C has reached it, which is started in this process's group.
		if err := s.redis.Restart(); err != nil {
			return err
		}
	}
	s.serveAgain(aborting)
	clients.Wait()
	s.drains.Wait()
	s.askForAll(aborting, s.up.Ledger(sandbox.Filter{}).Effects)
	read()
	background.Wait()
	if ledgerErr != nil {
		return ledgerErr
	}
	return s.verdict(aborting)
}

// verdict makes the last checks and says what came out.
func (s *soak) verdict(aborting context.Context) error {
	if err := s.ledger.read(s.checker.ran); err != nil {
		return err
	}
	all := s.up.Ledger(sandbox.Filter{})
	if s.ledger.effects != len(all.Effects) {
		s.checker.report("a ledger that is not that of the sandbox", fmt.Sprintf("%d effects, not %d", s.ledger.effects, len(all.Effects)))
	}
	if all.Summary.ForgottenAttempts > 0 {
		fmt.Fprintf(s.out, "the oldest %d attempts are not looked at: the sandbox has forgotten them\n", all.Summary.ForgottenAttempts)
	}
	s.checker.finish(all.Attempts)
	if err := s.checkLogs(); err != nil {
		return err
	}
	violations, excused := s.checker.found()
	s.count.table(s.out, all.Summary, len(excused), violations)
	if err := aborting.Err(); err != nil {
		return errors.New("ended before all was checked")
	}
	return nil
}

// progress says every ten seconds how far the run is.
func (s *soak) progress(ctx context.Context) {
	for sleep(ctx, 10*time.Second) {
		s.checker.sweep(false)
		violations, _ := s.checker.found()
		fmt.Fprintln(s.out, s.count.line(time.Since(s.chaos.start), s.up.Summary().Effects, len(violations)))
	}
}

// end ends all that was started, in order.
func (s *soak) end() error {
	var errs []error
	for _, one := range s.fleet {
		errs = append(errs, one.stop())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Close())
	}
	if s.up != nil {
		errs = append(errs, s.up.close())
	}
	return errors.Join(errs...)
}

// keepRedisLog copies what Redis has printed out of its directory, which it is
// going to remove.
func (s *soak) keepRedisLog() {
	log, err := os.ReadFile(filepath.Join(s.redis.Dir(), "server.log"))
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "redis.log"), log, 0o600)
	}
	if err != nil {
		fmt.Fprintf(s.out, "keeping the log of redis: %v\n", err)
	}
}
