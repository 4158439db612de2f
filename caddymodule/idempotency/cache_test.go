package idempotency_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// useCache gives the gate a cache that lasts as long as the test.
func (w *world) useCache() *idempotency.Cache {
	w.t.Helper()
	cache, err := idempotency.NewCache(1 << 20)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(cache.Close)
	w.gate.SetCache(cache)
	return cache
}

// settled returns what cache has of key once it has taken in what it was given.
func settled(cache *idempotency.Cache, key string) *idempotency.Record {
	time.Sleep(time.Second)
	synctest.Wait()
	return cache.Get(idOf(key), time.Now())
}

func TestAnAnswerThatIsNeverAskedForAgainTakesNoRoomInTheCache(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.keyed("k"))
		if settled(cache, "k") != nil {
			t.Error("the cache has it")
		}
	})
}

func TestCachedAnswerIsToldWithoutTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.keyed("k"))
		w.do(w.keyed("k"))
		if settled(cache, "k") == nil {
			t.Fatal("the cache does not have the answer")
		}
		asked := w.store.calls(opGet) + w.store.calls(opClaim)
		w.store.fail(opGet, opClaim)
		for range 3 {
			want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		}
		w.doErr(w.otherRequest("k"), idempotency.ErrKeyReused)
		if n := w.store.calls(opGet) + w.store.calls(opClaim) - asked; n > 0 {
			t.Errorf("the store was asked %d times", n)
		}
	})
}

func TestAnswerFromTheStoreIsCached(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.do(w.keyed("k"))
		w.restart()
		cache := w.useCache()
		w.do(w.keyed("k"))
		if settled(cache, "k") == nil {
			t.Fatal("the cache does not have the answer")
		}
		asked := w.store.calls(opGet)
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		if w.store.calls(opGet) != asked {
			t.Error("the store was asked again")
		}
	})
}

func TestCacheHoldsNothingButAnswers(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		release := w.upstream.holds()
		running := w.start(w.keyed("started"))
		if settled(cache, "started") != nil {
			t.Error("it holds a call under way")
		}
		release()
		running.outcome()

		w.upstream.becomes(unsure("bad gateway"))
		w.do(w.keyed("unknown"))
		w.do(w.keyed("unknown"))
		w.do(w.honored("open"))
		w.upstream.becomes(freed("not found"))
		w.do(w.keyed("freed"))
		w.large(isKept)
		_ = w.do(w.keyed("tombstone")).Rest.Close()
		w.doErr(w.keyed("tombstone"), idempotency.ErrResultUnavailable)
		w.upstream.becomes(kept("yes"))
		w.store.fail(opFinish)
		w.do(w.keyed("unrecorded"))
		for _, key := range []string{"unknown", "open", "freed", "tombstone", "unrecorded"} {
			if rec := settled(cache, key); rec != nil {
				t.Errorf("it holds %s: %+v", key, rec)
			}
		}
	})
}

func TestCachedAnswerEndsWithRetention(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.keyed("k"))
		began := time.Now()
		w.do(w.keyed("k"))
		if settled(cache, "k") == nil {
			t.Fatal("the cache does not have the answer")
		}
		time.Sleep(time.Until(began.Add(retention - time.Millisecond)))
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		time.Sleep(time.Millisecond)
		want(t, w.do(w.keyed("k")), executed, isKept, "ran under up-k")
		w.wantSent(2)
	})
}

func TestCacheIsTakenOutOfUseBySettingAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := w.useCache()
		w.do(w.keyed("k"))
		settled(first, "k")
		second, err := idempotency.NewCache(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if old := w.gate.SetCache(second); old != first {
			t.Error("SetCache does not return the cache before")
		}
		first.Close()
		first.Close() // harmless
		want(t, w.do(w.keyed("k")), replayed, isKept, "ran under up-k")
		if settled(second, "k") == nil {
			t.Error("the new cache is not used")
		}
		if first.Get(idOf("k"), time.Now()) != nil {
			t.Error("a closed cache holds something")
		}
	})
}

func TestNoCacheHoldsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		off, err := idempotency.NewCache(0)
		if err != nil {
			t.Fatal(err)
		}
		for _, cache := range []*idempotency.Cache{nil, {}, off} {
			w.gate.SetCache(cache)
			w.do(w.keyed("k"))
			if cache.Get(idOf("k"), time.Now()) != nil {
				t.Error("it holds something")
			}
			cache.Close()
		}
		w.wantSent(1)
	})
}

// The race detector and ristretto, which panics on a Set that meets a Close,
// look on.
func TestCacheMayBeClosedWhileItIsUsed(t *testing.T) {
	w := &world{t: t, store: newFaultyStore(), upstream: newUpstream()}
	w.restart()
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 100 {
				if _, err := w.gate.Do(context.Background(), w.keyed(fmt.Sprint(i, "-", j%10))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		cache, err := idempotency.NewCache(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		w.gate.SetCache(cache).Close()
	}
	callers.Wait()
	w.gate.SetCache(nil).Close()
	w.wantSent(80)
}
