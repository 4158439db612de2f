package redis_test

import (
	"context"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

var limits = pacing.Limits{Starts: 100, Window: time.Minute, Burst: 20, Concurrency: 50}

func take(t *testing.T, s *redis.Store, name string, ask pacing.Ask) pacing.Grant {
	t.Helper()
	var g pacing.Grant
	eventually(t, "taking starts", func() (ok bool) {
		var err error
		g, err = s.Take(t.Context(), name, limits, ask)
		return err == nil
	})
	return g
}

func TestSidecarsShareABudgetAndWhoLeavesIsForgottenAtOnce(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	options := redis.Options{Endpoint: endpoint(t, server.URL())}
	a, b := open(t, options), opened(t, options)
	if g := take(t, a, "org", pacing.Ask{Want: 15}); g.Starts != 15 {
		t.Errorf("the first: %+v", g)
	}
	if g := take(t, b, "org", pacing.Ask{Want: 15}); g.Starts < 5 || g.Starts > 6 || g.Sharers != 2 || g.InFlight != 15+g.Starts {
		t.Errorf("the second: %+v", g)
	}
	if g := take(t, b, "another", pacing.Ask{Want: 15}); g.Starts != 15 || g.Sharers != 1 {
		t.Errorf("of another budget: %+v", g)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if g := take(t, b, "org", pacing.Ask{}); g.Sharers != 1 || g.InFlight != 0 {
		t.Errorf("when the first has gone: %+v", g)
	}
	if err := b.Hold(t.Context(), "org", limits, time.Hour); err != nil {
		t.Fatal(err)
	}
	if g := take(t, b, "org", pacing.Ask{Want: 1}); g.Starts != 0 || g.Wait < 59*time.Minute || g.Limit > 21 {
		t.Errorf("while it holds: %+v", g)
	}
}

func TestABudgetIsSharedInAClusterToo(t *testing.T) {
	cluster := redistest.NewCluster(t, 3, redistest.Options{})
	options := redis.Options{Endpoint: endpoint(t, "redis://"+cluster.Addrs()[0])}
	a, b := opened(t, options), opened(t, options)
	for _, name := range []string{"a", "b", "c", "d", "e"} { // of several nodes
		take(t, a, name, pacing.Ask{Want: 2})
		if g := take(t, b, name, pacing.Ask{Want: 2}); g.Starts != 2 || g.Used != 4 || g.Sharers != 2 {
			t.Errorf("the second: %+v", g)
		}
	}
}

func TestWithoutRedisABudgetIsAnErrorAtOnce(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	s.Join(idempotency.NewProcess(), nothing)
	take(t, s, "org", pacing.Ask{Want: 1})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known that Redis is away", func() bool { return !serves(s) })
	ended, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if g, err := s.Take(ended, "org", limits, pacing.Ask{Want: 1}); err == nil {
		t.Errorf("taking: %+v", g)
	}
	if err := s.Hold(ended, "org", limits, time.Second); err == nil {
		t.Error("holding: no error")
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	take(t, s, "org", pacing.Ask{Want: 1})
}

func TestAFullRedisGrantsStarts(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--maxmemory", "1mb", "--maxmemory-policy", "noeviction"}})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	if g, err := s.Take(t.Context(), "org", limits, pacing.Ask{Want: 1}); g.Starts != 1 || err != nil {
		t.Errorf("taking: %+v, %v", g, err)
	}
}
