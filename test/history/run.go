package history

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
	"genesys-sidecar/test/child"
)

// run is a run.
type run struct {
	set     Settings
	out     io.Writer // the caller's and a file
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
	enough  func()
	drains  sync.WaitGroup // what callers that have left still read
	over    time.Time      // when everything runs again
}

// Run makes a run. ctx ends the calls, after which the checks follow, and aborting
// everything. The error is that the run could not be made; what is wrong with the
// sidecar is in the report.
func Run(ctx, aborting context.Context, set Settings) (report *Report, err error) {
	if set, err = set.withDefaults(); err != nil {
		return nil, fmt.Errorf("reading settings: %w", err)
	}
	log, err := os.Create(filepath.Join(set.Dir, "report"))
	if err != nil {
		return nil, fmt.Errorf("making a log: %w", err)
	}
	defer log.Close()
	r := &run{set: set, out: io.MultiWriter(set.Out, log)}
	if set.Rate > 0 {
		r.pace.gap = time.Second / time.Duration(set.Rate)
	}
	if err = r.start(); err == nil {
		report, err = r.measure(ctx, aborting)
	}
	if r.redis != nil {
		r.keepRedisLog()
	}
	return report, errors.Join(err, r.end())
}

// start starts all that a run needs.
func (r *run) start() error {
	set := r.set
	events, err := os.Create(filepath.Join(set.Dir, "events"))
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	r.chaos = &chaos{log: events, count: &r.count, events: set.schedule()}
	r.checker = newChecker(r.out, r.chaos.during, func(key string) []sandbox.Attempt {
		return r.up.Ledger(sandbox.Filter{Key: key}).Attempts
	})
	r.checker.aside = events
	r.checker.repeat, r.checker.fleet, r.checker.pictures = set.Repeat, set.Sidecars > 1, set.Dir
	r.checker.onWrong = func() {
		if set.UntilWrong {
			r.enough()
		}
	}
	r.chaos.blame = r.checker.report
	if err := writeLines(filepath.Join(set.Dir, "schedule"), r.chaos.events); err != nil {
		return err
	}
	if r.up, err = newUpstream(set.Dir); err != nil {
		return err
	}
	if r.ledger, err = r.up.openLedger(); err != nil {
		return err
	}
	if set.Store == Redis {
		r.redis, err = redistest.Start(redistest.Options{Args: []string{
			"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
		}})
		if err != nil {
			return err
		}
		r.chaos.redis = r.redis
	}
	for i := range set.Sidecars {
		if err := r.addSidecar(i); err != nil {
			return err
		}
	}
	r.chaos.fleet = r.fleet
	r.http = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: 10 * time.Second}}
	return nil
}

func writeLines(name string, events []event) error {
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	for _, e := range events {
		fmt.Fprintln(file, e)
	}
	return file.Close()
}

func (r *run) addSidecar(number int) error {
	binary, err := filepath.Abs(r.set.Binary)
	if err != nil {
		return fmt.Errorf("finding the sidecar: %w", err)
	}
	dir := filepath.Join(r.set.Dir, fmt.Sprintf("sidecar%d", number))
	one := &sidecar{
		number: number, binary: binary, dir: dir, env: r.up.environment(),
		cache: "8MiB", debug: r.set.Debug, moves: r.set.Store == Memory, moved: r.past.forget,
	}
	if number > 0 && number == r.set.Sidecars-1 {
		one.cache = "off" // it always asks the store
	}
	switch r.set.Store {
	case Redis:
		one.store = "redis " + r.redis.URL() + " {\n\t\t\tlease 1s\n\t\t\tcommand_timeout 400ms\n\t\t\tconnect_timeout 400ms\n\t\t}"
	case Memory:
		one.store = "memory"
	default:
		one.store = "disk " + filepath.Join(dir, "store")
	}
	one.ended = func(one *sidecar, err error) {
		r.checker.report("a sidecar that ended by itself", fmt.Sprintf("sidecar %d: %v", one.number, err))
	}
	if one.admin, err = child.FreeAddress(); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if err := one.move(); err != nil {
		return fmt.Errorf("configuring a sidecar: %w", err)
	}
	if err := one.start(); err != nil {
		return err
	}
	r.fleet = append(r.fleet, one)
	return nil
}

// measure makes calls, while the schedule comes about, and checks.
func (r *run) measure(ctx, aborting context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, r.set.Duration)
	defer cancel()
	r.enough = cancel
	r.chaos.start = time.Now()
	fmt.Fprintf(r.out, "store %s, %d sidecars, %d clients, seed %d, from %s on\n",
		r.set.Store, len(r.fleet), r.set.Clients, r.set.Seed, clock(r.chaos.start))

	reading, read := context.WithCancel(aborting)
	defer read()
	var background sync.WaitGroup
	var ledgerErr error
	background.Go(func() { ledgerErr = r.ledger.follow(reading, r.checker.ran) })
	background.Go(func() { r.progress(reading) })

	var clients sync.WaitGroup
	for i := range r.set.Clients {
		c := &client{run: r, number: i, random: rand.New(rand.NewPCG(r.set.Seed, uint64(i)))}
		clients.Go(func() { c.makeCalls(ctx) })
	}
	r.chaos.run(ctx)
	<-ctx.Done()
	r.over = time.Now()
	if r.redis != nil {
		if _, err := r.redis.Do("PING"); err != nil {
			// Ctrl-C has reached it, which is started in this process's group.
			if err := r.redis.Restart(); err != nil {
				return nil, err
			}
		}
	}
	r.serveAgain(aborting)
	clients.Wait()
	r.drains.Wait()
	r.askForAll(aborting, r.up.Ledger(sandbox.Filter{}).Effects)
	read()
	background.Wait()
	if ledgerErr != nil {
		return nil, ledgerErr
	}
	return r.verdict(aborting)
}

// verdict makes the last checks and says what came out.
func (r *run) verdict(aborting context.Context) (*Report, error) {
	if err := r.ledger.read(r.checker.ran); err != nil {
		return nil, err
	}
	all := r.up.Ledger(sandbox.Filter{})
	if r.ledger.effects != len(all.Effects) {
		r.checker.report("a ledger that is not that of the sandbox", fmt.Sprintf("%d effects, not %d", r.ledger.effects, len(all.Effects)))
	}
	r.checker.finish(all.Attempts)
	if err := r.checkLogs(); err != nil {
		return nil, err
	}
	if err := aborting.Err(); err != nil {
		return nil, errors.New("ended before all was checked")
	}
	report := r.report(all.Summary)
	report.table(r.out)
	return report, nil
}

// progress says now and then how far the run is, and ends it when it has enough.
func (r *run) progress(ctx context.Context) {
	enough := r.set.Operations > 0 || r.set.Kills > 0
	for n := 1; sleep(ctx, time.Second); n++ {
		if enough && r.count.requests.Load() >= r.set.Operations && r.count.kills.Load() >= r.set.Kills {
			r.enough()
		}
		if n%10 != 0 {
			continue
		}
		r.checker.sweep(false)
		violations, _ := r.checker.found()
		fmt.Fprintln(r.out, r.count.line(time.Since(r.chaos.start), r.up.Summary().Effects, len(violations)))
	}
}

// end ends all that was started, in order.
func (r *run) end() error {
	var errs []error
	for _, one := range r.fleet {
		errs = append(errs, one.stop())
	}
	if r.redis != nil {
		errs = append(errs, r.redis.Close())
	}
	if r.up != nil {
		errs = append(errs, r.up.close())
	}
	return errors.Join(errs...)
}

// keepRedisLog copies what Redis has printed out of its directory, which it is
// going to remove.
func (r *run) keepRedisLog() {
	log, err := os.ReadFile(filepath.Join(r.redis.Dir(), "server.log"))
	if err == nil {
		err = os.WriteFile(filepath.Join(r.set.Dir, "redis.log"), log, 0o600)
	}
	if err != nil {
		fmt.Fprintf(r.out, "keeping the log of redis: %v\n", err)
	}
}
