package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

const clientSecret = "soak-secret-Zm9vYmFy"

// soak runs the sidecar under load, in dir. The error is that this could not be
// done; what is wrong with the sidecar is in the report.
func soak(ctx context.Context, set settings, dir string, out io.Writer) (_ *report, err error) {
	fmt.Fprintf(out, "%v, store %s, %d requests a second, seed %d; answers are kept for %v\n",
		set.duration, set.store, set.rate, set.seed, set.retention())
	upstream, env, err := startUpstream()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, upstream.Close()) }()

	var redis *redistest.Server
	store, option := "", set.store
	switch set.store {
	case "disk":
		store = filepath.Join(dir, "store")
		option += " " + store
	case "redis":
		if redis, err = redistest.Start(redistest.Options{}); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, redis.Close()) }()
		option += " " + redis.URL()
	}
	s, err := startSidecar(ctx, set, dir, option, env)
	if err != nil {
		return nil, err
	}
	report := &report{set: set}
	stopped := false
	defer func() {
		if !stopped {
			s.Crash()
		}
	}()

	l := &load{
		url:       "http://" + s.address,
		retention: set.retention(),
		http: &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 2 * clients, DisableCompression: true},
			Timeout:   2 * time.Minute,
		},
		reload: s.reload,
		random: rand.New(rand.NewPCG(set.seed, 0)),
	}
	m := newSampler(s, store, redis)
	if err := measure(ctx, set, s, l, m, out); err != nil {
		return nil, err
	}
	l.http.CloseIdleConnections()
	stopped = true
	if err := s.stop(); err != nil {
		report.trouble = append(report.trouble, err.Error())
	}
	log, err := os.ReadFile(s.log)
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	for _, bad := range []string{"panic", clientSecret} {
		if strings.Contains(string(log), bad) {
			report.trouble = append(report.trouble, "the log has "+bad)
		}
	}
	report.series, report.missed, report.left, report.results = m.all, m.missed, l.left, &l.results
	return report, report.judge(m.err)
}

// measure makes the load and takes the samples. A sidecar that ends ends it.
func measure(ctx context.Context, set settings, s *sidecar, l *load, m *sampler, out io.Writer) error {
	running, cancel := context.WithTimeout(ctx, set.duration)
	defer cancel()
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() { l.run(running, set.rate, max(time.Second, set.duration/60)) })
	wg.Go(func() { m.run(running, start) })
	wg.Go(func() {
		for {
			select {
			case <-running.Done():
				return
			case <-s.Ended():
				cancel()
				return
			case <-time.After(30 * time.Second):
				requests, lost, wrong := l.results.totals()
				fmt.Fprintf(out, "%v: %d requests, %d lost, %d wrong\n", time.Since(start).Round(time.Second), requests, lost, wrong)
			}
		}
	})
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("soaking: %w", err)
	}
	return nil
}

// judge judges each series. sampling is why samples are missing.
func (r *report) judge(sampling error) error {
	for _, s := range r.series {
		var steady []point
		for _, p := range s.points {
			if p.at >= r.set.warmUp() {
				steady = append(steady, p)
			}
		}
		// Half of them will do: the estimates do not need them evenly spread.
		if expected := (r.set.duration - r.set.warmUp()) / time.Second; len(steady) < max(fewest, int(expected)/2) {
			return errors.Join(fmt.Errorf("judging %s: there are %d samples where there should be %d", s.name, len(steady), expected),
				sampling, errors.Join(asErrors(r.trouble)...))
		}
		r.verdicts = append(r.verdicts, s.rule.judge(steady))
	}
	return nil
}

func asErrors(texts []string) (errs []error) {
	for _, text := range texts {
		errs = append(errs, errors.New(text))
	}
	return errs
}

// upstream is the sandbox, with tokens that do not live long.
type upstream struct {
	*sandbox.Sandbox
	server *http.Server
}

// startUpstream starts the sandbox, and returns what the sidecar needs to find and
// use it.
func startUpstream() (*upstream, []string, error) {
	box, err := sandbox.New(sandbox.Config{ClientSecret: clientSecret, TokenLife: 10 * time.Second, Latency: 2 * time.Millisecond})
	if err != nil {
		return nil, nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("starting the sandbox: %w", err), box.Close())
	}
	u := &upstream{box, box.Server()}
	go func() { _ = u.server.Serve(ln) }()
	return u, []string{
		"GENESYSCLOUD_API_URL=http://" + ln.Addr().String(),
		"GENESYSCLOUD_OAUTHCLIENT_ID=sandbox",
		"GENESYSCLOUD_OAUTHCLIENT_SECRET=" + clientSecret,
	}, nil
}

// Close ends the sandbox.
func (u *upstream) Close() error {
	err := u.Sandbox.Close()
	return errors.Join(err, u.server.Close())
}
