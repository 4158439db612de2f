package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// shortcutRequest is a request with the fingerprint that calls of these tests have.
func shortcutRequest() idempotency.Request {
	return idempotency.Request{Method: "POST", Path: "/request", Body: []byte(`{"a":1,"b":2}`), MediaType: "application/json"}
}

func (w *world) shortcut(key string) idempotency.Call {
	call := w.keyed(key)
	call.Fingerprint = shortcutRequest().Fingerprint()
	return call
}

func TestShortcutTellsWhatTheCacheHolds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.shortcut("k"))
		w.do(w.shortcut("k")) // the first repeat puts it there
		if settled(cache, "k") == nil {
			t.Fatal("the cache does not have the answer")
		}
		asked := w.store.calls(opGet) + w.store.calls(opClaim)
		otherwise := shortcutRequest()
		otherwise.Body = []byte(` {"b":2, "a":1} `)
		for _, r := range []idempotency.Request{shortcutRequest(), shortcutRequest(), otherwise, shortcutRequest()} {
			out, err := w.gate.Replay(idOf("k"), r)
			if out == nil || err != nil {
				t.Fatalf("Replay of %s = %+v, %v", r.Body, out, err)
			}
			want(t, out, replayed, isKept, "ran under up-k")
		}
		if n := w.store.calls(opGet) + w.store.calls(opClaim); n != asked {
			t.Errorf("the store was asked %d times", n-asked)
		}
	})
}

func TestShortcutRefusesAnotherRequestEachTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		cache := w.useCache()
		w.do(w.shortcut("k"))
		w.do(w.shortcut("k")) // the first repeat puts it there
		settled(cache, "k")
		other := shortcutRequest()
		other.Body = []byte(`{"a":1,"b":2.0}`)
		for range 2 { // a request that was refused is not taken for the right one later
			if out, err := w.gate.Replay(idOf("k"), other); out != nil || !errors.Is(err, idempotency.ErrKeyReused) {
				t.Errorf("Replay of another request = %+v, %v", out, err)
			}
			if out, err := w.gate.Replay(idOf("k"), shortcutRequest()); out == nil || err != nil {
				t.Errorf("Replay = %+v, %v", out, err)
			}
		}
	})
}

func TestNothingFollowsFromTheShortcutsSilence(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if out, err := w.gate.Replay(idOf("k"), shortcutRequest()); out != nil || err != nil {
			t.Errorf("without a cache: %+v, %v", out, err)
		}
		cache := w.useCache()
		if out, err := w.gate.Replay(idOf("k"), shortcutRequest()); out != nil || err != nil {
			t.Errorf("of a key that was never used: %+v, %v", out, err)
		}
		w.do(w.shortcut("k"))
		w.do(w.shortcut("k")) // the first repeat puts it there
		settled(cache, "k")
		rec := w.record("k")
		time.Sleep(time.Until(rec.Expires) - time.Nanosecond)
		if out, err := w.gate.Replay(idOf("k"), shortcutRequest()); out == nil || err != nil {
			t.Errorf("just before retention ends: %+v, %v", out, err)
		}
		time.Sleep(time.Nanosecond)
		if out, err := w.gate.Replay(idOf("k"), shortcutRequest()); out != nil || err != nil {
			t.Errorf("once retention has ended: %+v, %v", out, err)
		}
	})
}

func TestClaimTellsWhetherItsKeyIsHonored(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for _, honored := range []bool{false, true} {
			call := w.keyed(map[bool]string{false: "ignored", true: "honored"}[honored])
			call.Honored = honored
			of(&call).send = func(_ context.Context, claim *idempotency.Claim) idempotency.Result {
				if claim.Honored() != honored {
					t.Errorf("the claim says %v, the call %v", claim.Honored(), honored)
				}
				return kept("yes")
			}
			w.do(call)
		}
	})
}
