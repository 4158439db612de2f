package redis_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// BenchmarkCall claims and finishes records with answers of 1 KiB, as fresh
// calls do; those without a key look for orphans first and are settled after.
// BenchmarkPing is the least that a round trip takes, for comparison: a call
// with a key has two.
func BenchmarkCall(b *testing.B) {
	for _, fsync := range []string{"everysec", "always"} {
		for _, kind := range []string{"keyed", "keyless"} {
			for _, callers := range []int{1, 64} {
				b.Run(fmt.Sprintf("appendfsync=%s/%s/callers=%d", fsync, kind, callers), func(b *testing.B) {
					s := openBench(b, fsync)
					concurrently(b, callers, func(i int64) error { return call(s, i, kind == "keyless") })
				})
			}
		}
	}
}

func BenchmarkPing(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := openBench(b, "everysec")
			concurrently(b, callers, func(int64) error {
				_, err := s.Get(context.Background(), idempotency.ID{})
				return err
			})
		})
	}
}

func openBench(b *testing.B, fsync string) *redis.Store {
	server := redistest.New(b, redistest.Options{Args: []string{"--appendonly", "yes", "--appendfsync", fsync}})
	e, err := redis.ParseURLs([]string{server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	s, err := redis.Open(redis.Options{Endpoint: e})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// call does what a gate does for call number i.
func call(s *redis.Store, i int64, keyless bool) error {
	ctx := context.Background()
	rec := started(fmt.Sprint(i))
	if keyless {
		rec.Adoption = idempotency.NewAdoptionID("org", "scope", rec.Fingerprint)
		if _, err := s.Unsettled(ctx, rec.Adoption); err != nil {
			return err
		}
	}
	if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
		return err
	}
	end := done(rec, 1024)
	end.Expires = end.Finished.Add(time.Hour)
	if err := s.Finish(ctx, end); err != nil {
		return err
	}
	if keyless {
		return s.Settle(ctx, rec.ID, rec.Owner)
	}
	return nil
}

func concurrently(b *testing.B, callers int, do func(i int64) error) {
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Int64
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				if err := do(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkTake is a start taken from a budget that is nearly always spent, which
// BenchmarkPing is to be compared with.
func BenchmarkTake(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := openBench(b, "everysec")
			limits := pacing.Limits{Starts: 300, Window: time.Second}
			concurrently(b, callers, func(int64) error {
				_, err := s.Take(context.Background(), "org", limits, pacing.Ask{Want: 1})
				return err
			})
		})
	}
}

// BenchmarkEnqueue hands calls over for later.
func BenchmarkEnqueue(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := openBench(b, "everysec")
			concurrently(b, callers, func(i int64) error {
				_, err := s.Enqueue(context.Background(), queued(fmt.Sprint(i), fmt.Sprint(i%100)), idempotency.Owner{}, idempotency.Bounds{Calls: 1e9})
				return err
			})
		})
	}
}
