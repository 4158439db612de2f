package test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// Where the upstream is not known to honor keys, whatever may have run is never
// sent again, and everybody is told the same of it.
func TestAnUnknownOutcomeIsToldAgainAndNeverRunAgain(t *testing.T) {
	for fault, status := range map[string]int{
		"execute-then-drop": 502,
		"truncate":          502,
		"500-after":         500,
		"503-after":         503,
		"504-after":         504,
		"408-after":         408,
		"429-bare":          429,
		"slow=1h":           504,
	} {
		for _, key := range []string{"k", ""} {
			t.Run(fmt.Sprintf("%s, key %q", fault, key), func(t *testing.T) {
				t.Parallel()
				p := newPlatform(t, sandbox.Config{})
				s := newSidecar(t, p, options{block: "timeout 3s"})
				call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", fault + "; times=1"}}
				if key != "" {
					call.header = append(call.header, "Idempotency-Key", key)
				}
				first := s.send(t, call)
				if first.status != status || !strings.Contains(first.header.Get("Cache-Status"), "detail=OUTCOME-UNKNOWN") {
					t.Fatalf("first: %+v", first)
				}
				again := s.send(t, call)
				s.kill(t)
				s.start(t)
				restarted := s.send(t, call)
				for _, a := range []answer{again, restarted} {
					if a.status != first.status || a.body != first.body || !a.replayed() {
						t.Errorf("again: %+v, first: %+v", a, first)
					}
				}
				if n := p.Summary().Attempts; n != 1 {
					t.Errorf("the upstream got it %d times", n)
				}
			})
		}
	}
}

func TestACallThatACrashCutOffIsUnknownAndNeverRunAgain(t *testing.T) {
	for _, key := range []string{"k", ""} {
		t.Run("key "+key, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{})
			call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", "slow=1h; times=1"}}
			if key != "" {
				call.header = append(call.header, "Idempotency-Key", key)
			}
			s.crashDuring(t, call)
			first := s.send(t, call)
			if first.status != 502 || !strings.Contains(first.body, `"outcome":"unknown"`) {
				t.Errorf("got %+v", first)
			}
			if again := s.send(t, call); again.body != first.body {
				t.Errorf("first %s, then %s", first.body, again.body)
			}
			p.wantEffects(t, 1)
		})
	}
}

func TestACallThatACrashCutOffIsFinishedWhereKeysAreHonored(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := request{path: invoke, body: `{"input":{"a":1}}`, header: []string{"Sandbox-Fault", "slow=1h; times=1", "Idempotency-Key", "k"}}
	s.crashDuring(t, call)
	if a := s.send(t, call); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

// crashDuring makes a call and kills the sidecar while it runs.
func (s *sidecar) crashDuring(t *testing.T, call request) {
	t.Helper()
	failed := make(chan struct{})
	go func() {
		defer close(failed)
		_, _ = s.try(context.Background(), call)
	}()
	waitFor(t, func() bool { return s.platform.Summary().Effects == 1 })
	s.kill(t)
	<-failed
	s.start(t)
}

func TestTheAnswerArrivesWhereKeysAreHonored(t *testing.T) {
	for _, fault := range []string{
		"execute-then-drop; times=1", "truncate; times=1", "500-after; times=1", "503-after; times=2", "504-before; times=1",
		"drop-before; times=1", "slow=1h; times=1", "stall=1500ms; times=1", "429=0; times=1", "503-retry-after=0; times=1", "429-bare; times=1",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{block: "timeout 1s\n attempts 20\n backoff 50ms"})
			call := request{path: invoke, body: `{"input":{"a":1}}`, header: []string{"Sandbox-Fault", fault, "Idempotency-Key", "k"}}
			first := s.send(t, call)
			if first.status != 200 {
				t.Fatalf("got %+v", first)
			}
			if again := s.send(t, call); again.body != first.body || !again.replayed() {
				t.Errorf("again: %+v, first: %+v", again, first)
			}
			p.wantEffects(t, 1)
		})
	}
}

func TestWhereKeysAreHonoredAnOpenCallMayBeTriedAgain(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "backoff 1ms 2ms"})
	call := request{path: invoke, body: `{"input":{"a":1}}`, header: []string{"Sandbox-Fault", "500-after; times=4", "Idempotency-Key", "k"}}
	first := s.send(t, call)
	if first.status != 502 || !strings.Contains(first.body, `"upstream_status":500`) || !strings.Contains(first.body, `"retryable":true`) {
		t.Fatalf("got %+v", first)
	}
	other := call
	other.body = `{"input":{"a":2}}`
	if a := s.send(t, other); a.status != 422 {
		t.Errorf("another request under the open key got %+v", a)
	}
	if a := s.send(t, call); a.status != 200 {
		t.Errorf("the same request got %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestAConflictIsReturnedOrGoesOnUnderANewKey(t *testing.T) {
	for policy, want := range map[string]int{"return": 409, "new_key": 200} {
		t.Run(policy, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{block: "on_conflict " + policy})
			// The sandbox binds the key to a failed call.
			call := request{path: invoke, body: `{"input":{"a":1}}`, header: []string{"Sandbox-Fault", "fail=400; times=1", "Idempotency-Key", "k", "Sandbox-Call", "c"}}
			if a := s.send(t, call); a.status != 400 {
				t.Fatalf("the call that fails got %+v", a)
			}
			a := s.send(t, call)
			if a.status != want {
				t.Errorf("got %+v", a)
			}
			if want == 409 && (!strings.Contains(a.body, `"code":"upstream.conflict"`) || !strings.Contains(a.body, `"outcome":"unknown"`) ||
				a.header.Get("Cache-Status") != "genesys; fwd=miss; detail=OUTCOME-UNKNOWN") {
				t.Errorf("got %+v", a)
			}
		})
	}
}

func TestARefusalLeavesTheKeyFree(t *testing.T) {
	for _, fault := range []string{"400-contract", "403", "404-before", "401-remote", "415"} {
		t.Run(fault, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{})
			header := []string{"Sandbox-Fault", fault + "; times=1", "Idempotency-Key", "k"}
			a := s.send(t, request{path: execute, body: `{"a":1}`, header: header})
			if a.status < 400 || a.status > 499 || a.header.Get("Cache-Status") != "genesys; fwd=miss" {
				t.Fatalf("got %+v", a)
			}
			// Even a mended request needs no new key.
			if a := s.send(t, request{path: execute, body: `{"a":2}`, header: header}); a.status != 200 {
				t.Errorf("the mended request got %+v", a)
			}
		})
	}
}

func TestAnAnswerFromBehindThePlatformIsKept(t *testing.T) {
	for _, fault := range []string{"400-remote", "404-remote", "409-remote", "422-remote"} {
		t.Run(fault, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{})
			call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", fault + "; times=1", "Idempotency-Key", "k"}}
			first := s.send(t, call)
			again := s.send(t, call)
			if fmt.Sprint(first.status) != fault[:3] || again.status != first.status || again.body != first.body || !again.replayed() {
				t.Errorf("first %+v, again %+v", first, again)
			}
			p.wantEffects(t, 1)
		})
	}
}

func TestAnAnswerTooLargeToKeepGoesToItsFirstCaller(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "max_response_body 1MiB"})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", "large=3MiB", "Idempotency-Key", "k"}}
	if a := s.send(t, call); a.status != 200 || len(a.body) != 3<<20 || a.header.Get("Cache-Status") != "genesys; fwd=miss" {
		t.Fatalf("got %d with %d bytes, Cache-Status %s", a.status, len(a.body), a.header.Get("Cache-Status"))
	}
	for range 2 {
		if a := s.send(t, call); a.status != 409 || !strings.Contains(a.body, `"code":"result.unavailable"`) || !strings.Contains(a.body, `"outcome":"executed"`) {
			t.Errorf("got %+v", a)
		}
		s.kill(t)
		s.start(t)
	}
	p.wantEffects(t, 1)
}

// A call that was found by its request has a key nonetheless.
func TestAnAnswerTooLargeToKeepIsToldByItsKey(t *testing.T) {
	large := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", "large=3KiB"}}
	for source, first := range map[string]func(*sidecar, *platform) (told string){
		"adopt": func(s *sidecar, p *platform) string {
			s.leave(t, large, func() bool { return p.Summary().Attempts == 1 })
			waitFor(t, func() bool { return strings.Contains(s.log(t), "call sent") })
			return ""
		},
		"hash 1m": func(s *sidecar, _ *platform) string { return s.send(t, large).header.Get("Idempotency-Key") },
	} {
		p := newPlatform(t, sandbox.Config{Latency: 100_000_000})
		s := newSidecar(t, p, options{block: "max_response_body 1KiB\nkey " + source})
		told := first(s, p)
		a := s.send(t, large)
		key := a.header.Get("Idempotency-Key")
		if a.status != 409 || key == "" || told != "" && key != told {
			t.Errorf("%s: first told %q, got %+v", source, told, a)
		}
		p.wantEffects(t, 1)
	}
}

// An error from behind the platform does not tell whether the action ran, and
// without it nobody can.
func TestAnErrorTooLargeToKeepIsNotTakenForAnExecution(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "max_response_body 10B"})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", "404-remote; times=1", "Idempotency-Key", "k"}}
	if a := s.send(t, call); a.status != 404 || len(a.body) <= 10 {
		t.Fatalf("got %+v", a)
	}
	a := s.send(t, call)
	if a.status != 409 || !strings.Contains(a.body, `"code":"result.unavailable"`) || !strings.Contains(a.body, `"outcome":"unknown"`) ||
		!strings.Contains(a.body, `"upstream_status":404`) {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestRetryAfterIsWaitedFor(t *testing.T) {
	for _, fault := range []string{"429=1", "429-date=2", "503-retry-after=1"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{})
			call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", fault + "; times=1", "Idempotency-Key", "k"}}
			if a := s.send(t, call); a.status != 200 {
				t.Fatalf("got %+v", a)
			}
			attempts := p.Ledger(sandbox.Filter{}).Attempts
			if len(attempts) != 2 {
				t.Fatalf("the upstream got %d attempts", len(attempts))
			}
			if d := attempts[1].Time.Sub(attempts[0].Time); d < 900*time.Millisecond {
				t.Errorf("the second attempt came after %v", d)
			}
			p.wantEffects(t, 1)
		})
	}
}

func TestARetryAfterPastTheDeadlineComesBackAtOnce(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "deadline 5s"})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Sandbox-Fault", "429=3600; times=1", "Idempotency-Key", "k"}}
	a := s.send(t, call)
	if a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") != "3600" || !strings.Contains(a.body, "too.many.requests") {
		t.Errorf("got %+v", a)
	}
	// The whole organisation pauses, not just this call.
	other := s.send(t, request{path: execute, body: `{"a":2}`, header: []string{"Idempotency-Key", "l"}})
	if other.status != http.StatusTooManyRequests || other.header.Get("Retry-After") == "" || !strings.Contains(other.body, `"code":"rate.limited"`) {
		t.Errorf("another call got %+v", other)
	}
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got %d attempts", n)
	}
}

func TestAnUpstreamThatCannotBeReachedLeavesTheKeyFree(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "backoff 1ms 2ms"})
	// The token is had, then the API is gone.
	if a := s.send(t, request{path: execute, body: `{}`}); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	gone := &platform{Sandbox: p.Sandbox, url: "http://" + freeAddress(t)}
	s.stop(t)
	s.platform = gone
	s.configure(t, options{block: "backoff 1ms 2ms", global: "login_url " + p.url})
	s.start(t)
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k"}}
	a := s.send(t, call)
	if a.status != 502 || !strings.Contains(a.body, `"outcome":"not_executed"`) || !strings.Contains(a.body, `"safe_new_key":true`) {
		t.Errorf("got %+v", a)
	}
	s.stop(t)
	s.platform = p
	s.start(t)
	s.configure(t, options{})
	s.reload(t)
	if a := s.send(t, call); a.status != 200 {
		t.Errorf("once it can be reached: %+v", a)
	}
}

func TestATokenOutageSaysNothingOfACallThatMayHaveRun(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "attempts 1"})
	call := request{path: invoke, body: `{"input":{"a":1}}`, header: []string{"Sandbox-Fault", "execute-then-drop; times=1", "Idempotency-Key", "k"}}
	if a := s.send(t, call); a.status != 502 || !strings.Contains(a.body, `"outcome":"unknown"`) {
		t.Fatalf("got %+v", a)
	}
	s.stop(t)
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
	s.start(t)
	a := s.send(t, call)
	if a.status != 503 || !strings.Contains(a.body, `"outcome":"unknown"`) || !strings.Contains(a.body, `"safe_new_key":false`) {
		t.Errorf("got %+v", a)
	}
	call.header[3] = "another"
	if a := s.send(t, call); a.status != 503 || !strings.Contains(a.body, `"outcome":"not_executed"`) {
		t.Errorf("a call that was never sent got %+v", a)
	}
}

func TestACallerThatClosesItsHalfIsNotToldOfASuccess(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nIdempotency-Key: k\r\nSandbox-Fault: slow=300ms\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", execute)
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, conn); got != "" {
		t.Errorf("it was told %q", got)
	}
	if a := s.send(t, request{path: execute, body: `{}`, header: []string{"Idempotency-Key", "k"}}); a.status != 200 {
		t.Errorf("its retry got %+v", a)
	}
}
