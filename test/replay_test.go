package test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestTheSecondCallIsAReplayByteForByte(t *testing.T) {
	for _, store := range []string{"disk", "memory"} {
		for _, cache := range []string{"64MiB", "off"} {
			t.Run(store+", cache "+cache, func(t *testing.T) {
				p := newPlatform(t, sandbox.Config{})
				o := options{global: "cache " + cache}
				if store == "memory" {
					o.global += "\n\t\tstore memory"
				}
				s := newSidecar(t, p, o)
				call := request{path: execute, body: `{"order": 17}`, header: []string{"Idempotency-Key", "order-17"}}

				first := s.send(t, call)
				if first.status != 200 || first.replayed() || first.header.Get("Cache-Status") != "genesys; fwd=miss; stored" {
					t.Fatalf("first: %+v", first)
				}
				for range 3 {
					again := s.send(t, call)
					if again.status != 200 || again.body != first.body || !again.replayed() {
						t.Fatalf("again: %+v, first: %+v", again, first)
					}
					if cs := again.header.Get("Cache-Status"); !strings.HasPrefix(cs, "genesys; hit; ttl=863") {
						t.Errorf("Cache-Status: %s", cs)
					}
					for name := range first.header {
						if name != "Cache-Status" && name != "Date" && again.header.Get(name) != first.header.Get(name) {
							t.Errorf("%s: %q, first %q", name, again.header.Get(name), first.header.Get(name))
						}
					}
				}
				p.wantEffects(t, 1)
			})
		}
	}
}

func TestWhichRequestsAreTheSame(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	tests := []struct {
		name           string
		body, path     string
		otherBody      string
		otherPath, key string
		same           bool
	}{
		{name: "reordered JSON", body: `{"a":1,"b":{"c":2,"d":3}}`, otherBody: `{"b":{"d":3,"c":2},"a":1}`, same: true},
		{name: "white space", body: `{"a":[1,2]}`, otherBody: " {\n\"a\" : [ 1 , 2 ] } ", same: true},
		{name: "flatten=false", body: `{}`, otherBody: `{}`, otherPath: execute + "?flatten=false", same: true},
		{name: "flatten=true", body: `{}`, otherBody: `{}`, otherPath: execute + "?flatten=true"},
		{name: "2^53 and 2^53+1", body: `{"n":9007199254740992}`, otherBody: `{"n":9007199254740993}`},
		{name: "a number and a string", body: `{"n":1}`, otherBody: `{"n":"1"}`},
		{name: "another action", body: `{}`, otherBody: `{}`, otherPath: strings.Replace(execute, "custom_-_6", "custom_-_7", 1)},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.otherPath == "" {
				tt.otherPath = execute
			}
			key := fmt.Sprintf("same-%d", i)
			first := s.send(t, request{path: execute, body: tt.body, header: []string{"Idempotency-Key", key}})
			other := s.send(t, request{path: tt.otherPath, body: tt.otherBody, header: []string{"Idempotency-Key", `"` + key + `"`}})
			if tt.same && (other.body != first.body || !other.replayed()) {
				t.Errorf("it was taken for another request: %+v", other)
			}
			if !tt.same && (other.status != 422 || !strings.Contains(other.body, `"code":"key.reused"`)) {
				t.Errorf("it was taken for the same request: %+v", other)
			}
		})
	}
	p.wantEffects(t, len(tests))
}

func TestAnotherRequestUnderAKeyInFlightIsRefusedAtOnce(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	key := []string{"Idempotency-Key", "k", "Sandbox-Fault", "hang-before=1h"}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _, _ = s.try(ctx, request{path: execute, body: `{"a":1}`, header: key}) })
	waitFor(t, func() bool { return p.Summary().Attempts == 1 })
	if a := s.send(t, request{path: execute, body: `{"a":2}`, header: key}); a.status != 422 {
		t.Errorf("got %+v", a)
	}
	cancel()
	wg.Wait()
	_ = p.Close() // ends what hangs, so that the sidecar can stop
}

func TestTwoHundredCallersOfOneKeyShareOneExecution(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "slow=300ms"}}
	answers := make([]answer, 200)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = s.send(t, call) })
	}
	wg.Wait()
	executed := 0
	for _, a := range answers {
		if a.status != 200 || a.body != answers[0].body {
			t.Errorf("got %+v", a)
		}
		if !a.replayed() {
			executed++
		}
	}
	if executed != 1 {
		t.Errorf("%d callers were told that theirs was the first call", executed)
	}
	p.wantEffects(t, 1)
}

func TestACallerThatLeavesGetsTheAnswerWhenItComesBack(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Latency: 200_000_000})
	s := newSidecar(t, p, options{})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k"}}
	s.leave(t, call, func() bool { return p.Summary().Attempts == 1 })
	a := s.send(t, call)
	if a.status != 200 || !a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestADuplicateWaitsAsLongAsItMay(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "wait off"})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "hang-before=1h"}}
	s.leave(t, call, func() bool { return p.Summary().Attempts == 1 })
	a := s.send(t, call)
	if a.status != 409 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"code":"key.in.use"`) {
		t.Errorf("got %+v", a)
	}
	_ = p.Close()
}

func TestEveryAnswerIsReplayedFromTheStoreWhereTheCacheIsTooSmall(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "cache 64KiB"})
	const n = 3000
	bodies := make([]string, n)
	each(n, func(i int) {
		bodies[i] = s.send(t, request{path: execute, body: `{}`, header: []string{"Idempotency-Key", fmt.Sprint("k", i)}}).body
	})
	p.wantEffects(t, n)
	each(n, func(i int) {
		a := s.send(t, request{path: execute, body: `{}`, header: []string{"Idempotency-Key", fmt.Sprint("k", i)}})
		if a.body != bodies[i] || !a.replayed() {
			t.Errorf("key %d: %+v, want %s", i, a, bodies[i])
		}
	})
	p.wantEffects(t, n)
}

// each calls f with 0 to n-1, some at a time.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range 16 {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
