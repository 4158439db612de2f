package disk

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
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
			var next atomic.Int64
			done := make(chan error, writers)
			disk.syncs.Store(0)
			b.ResetTimer()
			for range writers {
				go func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							done <- nil
							return
						}
						if _, err := s.Claim(ctx, claim(fmt.Sprint(i)), idempotency.Owner{}); err != nil {
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
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "claims/s")
			b.ReportMetric(float64(disk.syncs.Load())/float64(b.N), "syncs/claim")
		})
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
