package idempotency_test

import (
	"context"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
)

func BenchmarkParseKey(b *testing.B) {
	for b.Loop() {
		if _, err := idempotency.ParseKey(`"6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11"`); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	r := idempotency.Request{
		Method:    http.MethodPost,
		Path:      "/api/v2/integrations/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/execute",
		MediaType: "application/json",
		Body:      []byte(`{"order": 17, "customer": {"id": "c-1", "name": "Ada"}, "lines": [{"sku": "a", "n": 2}]}`),
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Fingerprint()
	}
}

// benchCall is a call that runs at once and has an answer of 1 KiB.
func benchCall(key string) idempotency.Call {
	return idempotency.Call{
		ID:          idempotency.NewID("org", "", key),
		Key:         key,
		UpstreamKey: key,
		Retention:   time.Hour,
		Wait:        time.Minute,
		Deadline:    time.Minute,
		Sender: &sender{send: func(context.Context, *idempotency.Claim) idempotency.Result {
			return idempotency.Result{Fate: idempotency.Kept, Answer: &idempotency.Answer{
				Status: http.StatusOK, Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}}), Body: make([]byte, 1024),
			}}
		}},
	}
}

func benchGate(b *testing.B, cacheSize int64) *idempotency.Gate {
	b.Helper()
	g := idempotency.NewGate(memory.New(memory.Options{MaxSize: 4 << 30}), idempotency.Limits{}, nil)
	cache, err := idempotency.NewCache(cacheSize)
	if err != nil {
		b.Fatal(err)
	}
	g.SetCache(cache)
	b.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return g
}

func BenchmarkGateReplay(b *testing.B) {
	for name, cacheSize := range map[string]int64{"cache": 64 << 20, "store": 0} {
		b.Run(name, func(b *testing.B) {
			g := benchGate(b, cacheSize)
			call := benchCall("k")
			// The cache takes a moment to show what it was given.
			for manner := idempotency.Executed; manner != idempotency.Replayed; {
				out, err := g.Do(b.Context(), call)
				if err != nil {
					b.Fatal(err)
				}
				manner = out.Manner
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := g.Do(context.Background(), call); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkGateFreshCall(b *testing.B) {
	g := benchGate(b, 64<<20)
	var n atomic.Int64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := g.Do(context.Background(), benchCall(strconv.FormatInt(n.Add(1), 10))); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
