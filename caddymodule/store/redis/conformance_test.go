package redis_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
	"genesys-sidecar/caddymodule/store/storetest"
)

// lease is short, so that processes are soon known to be gone.
const lease = time.Second

// safe are settings of a server that keeps what it has acknowledged.
var safe = []string{"--appendonly", "yes", "--appendfsync", "always"}

// endpoint returns the endpoint of urls.
func endpoint(t *testing.T, urls ...string) redis.Endpoint {
	t.Helper()
	e, err := redis.ParseURLs(urls)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// prefixes makes each store that is alone in its test a different one.
var prefixes atomic.Int64

func newPrefix() string { return fmt.Sprintf("test%d:", prefixes.Add(1)) }

// open opens a store, which the test closes.
func open(t *testing.T, o redis.Options) *redis.Store {
	t.Helper()
	if o.Lease == 0 {
		o.Lease = lease
	}
	s, err := redis.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	where := endpoint(t, server.URL())
	conform(t, where)
}

func TestConformanceOfACluster(t *testing.T) {
	cluster := redistest.NewCluster(t, 3, redistest.Options{Args: safe})
	urls := make([]string, 0, 3)
	for _, addr := range cluster.Addrs() {
		urls = append(urls, "redis://"+addr)
	}
	conform(t, endpoint(t, urls...))
}

func conform(t *testing.T, where redis.Endpoint) {
	t.Run("store", func(t *testing.T) {
		storetest.Run(t, storetest.Harness{
			RealTime: true,
			Open: func(t *testing.T, now func() time.Time) idempotency.Store {
				return open(t, redis.Options{Endpoint: where, Prefix: t.Name() + ":", Now: now})
			},
			Reopen: func(t *testing.T, now func() time.Time) idempotency.Store {
				return open(t, redis.Options{Endpoint: where, Prefix: t.Name() + ":", Now: now})
			},
		})
	})
	t.Run("backlog", func(t *testing.T) {
		open := func(t *testing.T, now func() time.Time) idempotency.Store {
			return open(t, redis.Options{Endpoint: where, Prefix: t.Name() + ":", Now: now})
		}
		storetest.RunBacklog(t, storetest.Harness{RealTime: true, Open: open, Reopen: open})
	})
	t.Run("shared", func(t *testing.T) {
		storetest.RunShared(t, storetest.SharedHarness{
			Lease: lease,
			Open: func(t *testing.T, n int) []idempotency.SharedStore {
				prefix := newPrefix()
				stores := make([]idempotency.SharedStore, n)
				for i := range stores {
					stores[i] = open(t, redis.Options{Endpoint: where, Prefix: prefix})
				}
				return stores
			},
		})
	})
}
