package idempotency_test

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
)

// ownTime is a store with a clock of its own, which is far from the wall clock.
type ownTime struct {
	*faultyStore
	behind time.Duration // the wall clock
	unsure time.Duration // how much more may have elapsed
}

func newOwnTime(behind time.Duration) *ownTime {
	s := &ownTime{faultyStore: newFaultyStore(), behind: behind}
	s.Store = memory.New(memory.Options{Now: s.Now})
	return s
}

func (s *ownTime) Now() time.Time { return time.Now().Add(-s.behind) }

func (s *ownTime) Elapsed(since time.Time) time.Duration { return s.Now().Sub(since) + s.unsure }

// withOwnTime runs test in worlds whose stores' clocks are behind and ahead.
func withOwnTime(t *testing.T, test func(t *testing.T, w *world, s *ownTime)) {
	t.Helper()
	for name, behind := range map[string]time.Duration{"behind": 72 * time.Hour, "ahead": -72 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				s := newOwnTime(behind)
				w.store = s.faultyStore
				w.gate = idempotency.NewGate(s, idempotency.Limits{}, nil)
				test(t, w, s)
			})
		})
	}
}

func TestRecordsGoByTheStoresClock(t *testing.T) {
	withOwnTime(t, func(t *testing.T, w *world, s *ownTime) {
		began := s.Now()
		first := w.do(w.keyed("k"))
		rec := w.record("k")
		if !rec.Started.Equal(began) || !rec.Finished.Equal(began) || !rec.Expires.Equal(began.Add(retention)) ||
			!first.Expires.Equal(rec.Expires) {
			t.Errorf("at %v the record was made as %+v", began, rec)
		}
		for _, cached := range []bool{false, true} {
			if cached {
				cache, err := idempotency.NewCache(1 << 20)
				if err != nil {
					t.Fatal(err)
				}
				defer cache.Close()
				w.gate.SetCache(cache)
				w.do(w.keyed("k")) // takes it into the cache
				time.Sleep(time.Second)
			}
			out := w.do(w.keyed("k"))
			want(t, out, replayed, isKept, "ran under up-k")
			if ttl := rec.Expires.Sub(s.Now()); out.TTL != ttl {
				t.Errorf("cached: %v: it is said to be kept for %v, want %v", cached, out.TTL, ttl)
			}
		}
		time.Sleep(retention - time.Minute)
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		time.Sleep(time.Minute)
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
	})
}

func TestTrustInAnUpstreamGoesByTheLongestTimeThatMayHaveElapsed(t *testing.T) {
	withOwnTime(t, func(t *testing.T, w *world, s *ownTime) {
		for _, tt := range []struct {
			key    string
			unsure time.Duration
			sent   int
		}{{"a", 0, 2}, {"b", 48 * time.Hour, 1}} {
			before := len(w.upstream.sent())
			w.upstream.becomes(unsure("bad gateway"))
			w.do(w.honored(tt.key))
			time.Sleep(time.Hour)
			s.unsure = tt.unsure
			w.upstream.becomes(kept("done"))
			w.do(w.honored(tt.key))
			if n := len(w.upstream.sent()) - before; n != tt.sent {
				t.Errorf("unsure by %v, it was sent %d times, want %d", tt.unsure, n, tt.sent)
			}
		}
	})
}

func TestAnOrphansWindowGoesByTheStoresClock(t *testing.T) {
	withOwnTime(t, func(t *testing.T, w *world, s *ownTime) {
		release := w.upstream.holds()
		w.start(w.keyless("r")).left()
		release()
		time.Sleep(window)
		if out := w.do(w.keyless("r")); !out.Adopted {
			t.Errorf("within the window: %+v", out)
		} else {
			out.Settle(false)
		}
		time.Sleep(time.Second)
		if out := w.do(w.keyless("r")); out.Adopted {
			t.Errorf("after the window: %+v", out)
		}
	})
}
