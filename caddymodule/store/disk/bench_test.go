package disk

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// BenchmarkClaim shows that claims share syncs: with 64 writers there are fewer
// syncs than claims.
func BenchmarkClaim(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			disk := &faultFS{FS: vfs.Default}
			s, err := open(b.TempDir(), Options{}, disk)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			disk.syncs.Store(0)
			concurrently(b, writers, b.N, func(i int) error {
				_, err := s.Claim(ctx, claim(fmt.Sprint(i)), idempotency.Owner{})
				return err
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
			b.ReportMetric(float64(disk.syncs.Load())/float64(b.N), "syncs/claim")
		})
	}
}

// BenchmarkCall claims and finishes records with answers of 1 KiB, as fresh
// calls do. BenchmarkLog is the least that this could cost: the same bytes
// appended to a file with the same promise, two shared syncs a call, and no way
// to find them again.
func BenchmarkCall(b *testing.B) { benchmarkCall(b, Options{}) }

// BenchmarkEncryptedCall is BenchmarkCall with a key.
func BenchmarkEncryptedCall(b *testing.B) {
	ring, err := store.ParseKeyring([]string{strings.Repeat("42", store.KeySize)})
	if err != nil {
		b.Fatal(err)
	}
	benchmarkCall(b, Options{Keyring: ring})
}

func benchmarkCall(b *testing.B, opts Options) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := mustOpen(b, b.TempDir(), opts)
			callConcurrently(b, writers,
				func(rec *idempotency.Record) error {
					_, err := s.Claim(ctx, rec, idempotency.Owner{})
					return err
				},
				func(rec *idempotency.Record) error { return s.Finish(ctx, rec) })
		})
	}
}

func BenchmarkLog(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			file, err := os.Create(filepath.Join(b.TempDir(), "log"))
			if err != nil {
				b.Fatal(err)
			}
			defer file.Close()
			type change struct {
				data []byte
				done chan error
			}
			changes := make(chan change, writers)
			defer close(changes)
			go func() {
				var waiting []change
				for c := range changes {
					data := c.data
					waiting = append(waiting[:0], c)
					for len(changes) > 0 {
						c := <-changes
						data = append(data, c.data...)
						waiting = append(waiting, c)
					}
					_, err := file.Write(data)
					err = errors.Join(err, file.Sync())
					for _, c := range waiting {
						c.done <- err
					}
				}
			}()
			write := func(rec *idempotency.Record) error {
				done := make(chan error, 1)
				changes <- change{store.Encode(nil, rec), done}
				return <-done
			}
			callConcurrently(b, writers, write, write)
		})
	}
}

func callConcurrently(b *testing.B, writers int, claimIt, finishIt func(*idempotency.Record) error) {
	b.Helper()
	bodies := make([][]byte, 64)
	for i := range bodies {
		random := make([]byte, 512) // what is in an answer compresses about this well
		_, _ = rand.Read(random)
		bodies[i] = []byte(hex.EncodeToString(random))
	}
	concurrently(b, writers, b.N, func(i int) error {
		rec := claim(fmt.Sprint("order-", i))
		if err := claimIt(rec); err != nil {
			return err
		}
		end := answered(rec)
		end.Answer.Body = bodies[i%len(bodies)]
		return finishIt(end)
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// concurrently has writers call f n times in all, each time with another i.
func concurrently(b *testing.B, writers, n int, f func(i int) error) {
	b.Helper()
	var next atomic.Int64
	done := make(chan error, writers)
	b.ResetTimer()
	for range writers {
		go func() {
			for {
				i := next.Add(1)
				if i > int64(n) {
					done <- nil
					return
				}
				if err := f(int(i)); err != nil {
					done <- err
					return
				}
			}
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkGet reads records with answers of about 1 KiB.
func BenchmarkGet(b *testing.B) {
	s := mustOpen(b, b.TempDir(), Options{})
	ids := make([]idempotency.ID, 1000)
	for i, name := range fill(b, s, len(ids)) {
		ids[i] = claim(name).ID
	}
	if err := s.db.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if rec, err := s.Get(ctx, ids[i%len(ids)]); err != nil || rec == nil {
				b.Fatal(rec, err)
			}
		}
	})
}

// BenchmarkOpenBacklog opens a store in which 10,000 calls wait. BenchmarkEnqueue
// says what it takes to hand one over.
func BenchmarkOpenBacklog(b *testing.B) {
	dir := b.TempDir()
	s := mustOpen(b, dir, Options{})
	concurrently(b, 64, 10_000, func(i int) error {
		_, err := s.Enqueue(ctx, queued(fmt.Sprint(i)), idempotency.Owner{}, idempotency.Bounds{})
		return err
	})
	for b.Loop() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		s = mustOpen(b, dir, Options{})
	}
	if d, err := s.Depth(ctx); err != nil || d.Calls != 10_000 {
		b.Fatal(d, err)
	}
}

func BenchmarkEnqueue(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := mustOpen(b, b.TempDir(), Options{})
			concurrently(b, writers, b.N, func(i int) error {
				_, err := s.Enqueue(ctx, queued(fmt.Sprint(i)), idempotency.Owner{}, idempotency.Bounds{})
				return err
			})
		})
	}
}
