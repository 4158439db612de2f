package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

var keyless = request{path: execute, body: `{"a":1}`}

func TestAKeylessCallIsToldItsKey(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	first := s.send(t, keyless)
	key := first.header.Get("Idempotency-Key")
	if key == "" {
		t.Fatal("no key was told")
	}
	again := keyless
	again.header = []string{"Idempotency-Key", key}
	if a := s.send(t, again); a.body != first.body || !a.replayed() {
		t.Errorf("under its key: %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestAnAnsweredCallDoesNotSwallowTheNext(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	for i := range 5 {
		if a := s.send(t, keyless); a.status != 200 || a.replayed() {
			t.Errorf("call %d: %+v", i, a)
		}
	}
	p.wantEffects(t, 5)
}

// A caller that hangs up as soon as it has its answer is no caller that left
// before.
func TestACallWhoseCallerHangsUpAtOnceWasAnswered(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	const calls = 300
	for i := range calls {
		conn, err := net.Dial("tcp", s.address)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}", execute)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		conn.Close()
		if resp.Header.Get("Idempotent-Replayed") != "" {
			t.Fatalf("call %d was swallowed", i)
		}
	}
	p.wantEffects(t, calls)
}

func TestTwoWaitingCallersBothRun(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Latency: 300_000_000})
	s := newSidecar(t, p, options{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if a := s.send(t, keyless); a.status != 200 || a.replayed() {
				t.Errorf("got %+v", a)
			}
		})
	}
	wg.Wait()
	p.wantEffects(t, 2)
}

func TestACallWhoseCallerLeftIsAdoptedWhileItRuns(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Latency: 300_000_000})
	s := newSidecar(t, p, options{})
	s.leave(t, keyless, func() bool { return p.Summary().Attempts == 1 })
	a := s.send(t, keyless)
	if a.status != 200 || !a.replayed() {
		t.Errorf("got %+v", a)
	}
	// It is no orphan any more.
	if a := s.send(t, keyless); a.replayed() {
		t.Errorf("the next call got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestACallWhoseCallerLeftIsAdoptedAfterItHasEnded(t *testing.T) {
	for _, crash := range []bool{false, true} {
		p := newPlatform(t, sandbox.Config{Latency: 100_000_000})
		s := newSidecar(t, p, options{})
		s.leave(t, keyless, func() bool { return p.Summary().Attempts == 1 })
		waitFor(t, func() bool { return strings.Contains(s.log(t), "call sent") })
		if crash {
			s.stop(t) // waits until the answer is recorded
			s.start(t)
		}
		if a := s.send(t, keyless); a.status != 200 || !a.replayed() {
			t.Errorf("crash %v: got %+v", crash, a)
		}
		p.wantEffects(t, 1)
	}
}

func TestAClientThatSendsAgainOnEveryLostConnectionRunsOnce(t *testing.T) {
	// As Genesys' Python SDK does: eleven times, without a key.
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := keyless
	call.header = []string{"Sandbox-Fault", "execute-then-drop; times=1"}
	var last answer
	for range 11 {
		last = s.send(t, call)
	}
	if last.status != 502 || !strings.Contains(last.body, `"outcome":"unknown"`) {
		t.Errorf("got %+v", last)
	}
	p.wantEffects(t, 1)
}

// withAnUnknownCall starts a sidecar, and returns a keyless call whose outcome is
// unknown, once; sent again, it would run to its end.
func withAnUnknownCall(t *testing.T, block string) (*sidecar, request) {
	t.Helper()
	s := newSidecar(t, newPlatform(t, sandbox.Config{}), options{block: block})
	call := keyless
	call.header = []string{"Sandbox-Fault", "500-after; times=1", "Sandbox-Call", "c"}
	if a := s.send(t, call); a.status != 500 {
		t.Fatalf("got %+v", a)
	}
	return s, call
}

func TestAnAdoptionWindowEnds(t *testing.T) {
	s, call := withAnUnknownCall(t, "key adopt 1ms")
	waitFor(t, func() bool { return s.send(t, call).status == 200 })
}

func TestAShortRetentionDoesNotCutTheWindow(t *testing.T) {
	s, call := withAnUnknownCall(t, "retention 1s")
	kept := newCall(execute, "k", "")
	s.send(t, kept)
	waitFor(t, func() bool { return !s.send(t, kept).replayed() }) // retention has passed
	if a := s.send(t, call); a.status != 500 || !a.replayed() {
		t.Errorf("within the window of adopt: %+v", a)
	}
}

func TestOtherSourcesOfKeys(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: `key header X-Request-Id X-Order
		key json /order/id
		key require`})
	same := [][2]request{
		{{path: execute, body: `{"h":1}`, header: []string{"X-Request-Id", "r1"}}, {path: execute, body: `{"h":1}`, header: []string{"X-Request-Id", "r1"}}},
		{{path: execute, body: `{"h":2}`, header: []string{"X-Order", "o1"}}, {path: execute, body: `{"h":2}`, header: []string{"X-Order", "o1"}}},
		{{path: execute, body: `{"order":{"id":"17"}}`}, {path: execute, body: `{"order": {"id": "17"}}`}},
		{{path: execute, body: `{"order":{"id":18}}`}, {path: execute, body: `{"order":{"id":18}}`}},
	}
	for _, pair := range same {
		first, again := s.send(t, pair[0]), s.send(t, pair[1])
		if first.status != 200 || again.body != first.body || !again.replayed() {
			t.Errorf("first %+v, again %+v", first, again)
		}
	}
	for code, r := range map[string]request{
		"key.required": {path: execute, body: `{}`},
		"body.invalid": {path: execute, body: `{`},
		"key.invalid":  {path: execute, body: `{}`, header: []string{"X-Order", "a b"}},
	} {
		if a := s.send(t, r); a.status != 400 || !strings.Contains(a.body, `"code":"`+code+`"`) {
			t.Errorf("%s: got %+v", code, a)
		}
	}
	if a := s.send(t, request{path: execute, body: `{}`, header: []string{"X-Order", "a", "X-Order", "b"}}); !strings.Contains(a.body, "key.invalid") {
		t.Errorf("two header lines: %+v", a)
	}
	p.wantEffects(t, len(same))
}

func TestTheSameRequestWithinAWindowIsTheSameCall(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "key hash 1m"})
	first, again := s.send(t, keyless), s.send(t, keyless)
	if again.body != first.body || !again.replayed() {
		t.Errorf("first %+v, again %+v", first, again)
	}
	s.configure(t, options{block: "key hash 50ms"})
	s.reload(t)
	call := request{path: execute, body: `{"a":2}`}
	s.send(t, call)
	waitFor(t, func() bool { return !s.send(t, call).replayed() })
}

func TestTheKeyIsWrittenIntoTheBody(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "inject_key /meta/key"})
	a := s.send(t, request{path: execute, body: `{"meta":{"n":1.50}}`, header: []string{"Idempotency-Key", "k-1"}})
	if !strings.Contains(a.body, `"key":"k-1"`) || !strings.Contains(a.body, "1.50") {
		t.Errorf("got %+v", a)
	}
	if a := s.send(t, request{path: execute, body: `{}`, header: []string{"Idempotency-Key", "k-2"}}); a.status != 400 || !strings.Contains(a.body, "body.invalid") {
		t.Errorf("got %+v", a)
	}
}

func TestAnAnsweredCallDoesNotSwallowTheNextAfterACrash(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyless)
	time.Sleep(200 * time.Millisecond) // within which the delivery is noted
	s.kill(t)
	s.start(t)
	if a := s.send(t, keyless); a.status != 200 || a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestBeingToldAgainExtendsTheWindow(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "key adopt 2s"})
	call := keyless
	call.header = []string{"Sandbox-Fault", "execute-then-drop"}
	for start := time.Now(); time.Since(start) < 5*time.Second; time.Sleep(500 * time.Millisecond) {
		if a := s.send(t, call); a.status != 502 {
			t.Fatalf("got %+v", a)
		}
	}
	p.wantEffects(t, 1)
}

// Repeats of a client that gives up pile up in front of a sidecar that stands
// still. When it goes on, it finds them all at once, and may take any of them
// first: only the one whose caller waits is meant.
func TestRepeatsThatPiledUpDuringAPauseRunOnce(t *testing.T) {
	for _, path := range []string{execute, invoke} {
		p := newPlatform(t, sandbox.Config{})
		s := newSidecar(t, p, options{global: "store memory"})
		s.send(t, request{path: path, body: `{"input":{"token":"fetched"}}`})
		s.pause(t)
		const body = `{"input":{"a":1}}`
		for range 20 {
			conn, err := net.Dial("tcp", s.address)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
			must(t, conn.Close())
		}
		answered := s.begin(t, request{path: path, body: body})
		s.resume(t)
		if a := answered(); a.status != 200 {
			t.Errorf("got %+v", a)
		}
		p.wantEffects(t, 2)
	}
}
