package test

import (
	"net/http"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

func wantLoop(t *testing.T, a answer) {
	t.Helper()
	if a.status != http.StatusLoopDetected || !strings.Contains(a.body, `"code":"loop.detected"`) ||
		!strings.Contains(a.body, "resolvers") || !strings.Contains(a.body, `"outcome":"not_executed"`) {
		t.Errorf("got %+v", a)
	}
}

// newLoop starts a sidecar for which the API's name leads to itself.
func newLoop(t *testing.T, p *platform) *sidecar {
	t.Helper()
	s := newSidecar(t, p, options{})
	s.configure(t, options{global: "api_url http://" + s.address + "\n login_url " + p.url})
	s.reload(t)
	return s
}

func TestACallThatComesBackToItsSidecarIsRefused(t *testing.T) {
	for name, path := range map[string]string{"keys are ignored": execute, "keys are honored": invoke} {
		t.Run(name, func(t *testing.T) {
			s := newLoop(t, newPlatform(t, sandbox.Config{}))
			call := request{path: path, body: `{}`, header: []string{"Idempotency-Key", "k"}}
			wantLoop(t, s.send(t, call))
			wantLoop(t, s.send(t, call)) // and the key is free again
		})
	}
}

func TestWhatIsProxiedAndComesBackIsRefused(t *testing.T) {
	s := newLoop(t, newPlatform(t, sandbox.Config{}))
	wantLoop(t, s.send(t, request{method: http.MethodGet, path: "/api/v2/users/me"}))
}

func TestALoopWithoutTheHandlerIsRefusedToo(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.configure(t, options{
		global: "api_url http://" + s.address + "\n login_url " + p.url,
		site:   "handle /plain/* {\n reverse_proxy {\n dynamic genesys\n transport genesys\n }\n }",
	})
	s.reload(t)
	wantLoop(t, s.send(t, request{method: http.MethodGet, path: "/plain/x"}))
}

func TestALoginThatComesBackSaysSoInTheLog(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.configure(t, options{global: "login_url http://" + s.address})
	s.reload(t)
	if a := s.send(t, keyed(1)); a.status != 503 || !strings.Contains(a.body, "token.unavailable") {
		t.Errorf("got %+v", a)
	}
	if log := s.log(t); !strings.Contains(log, "loop_detected") || !strings.Contains(log, "login_transport") {
		t.Errorf("the log does not tell: %s", log)
	}
}

func TestALoopThroughAnotherSidecarIsRefused(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	first, second := newSidecar(t, p, options{}), newSidecar(t, p, options{})
	first.configure(t, options{global: "api_url http://" + second.address + "\n login_url " + p.url})
	first.reload(t)
	second.configure(t, options{global: "api_url http://" + first.address + "\n login_url " + p.url})
	second.reload(t)
	wantLoop(t, first.send(t, keyed(1)))
}

func TestASidecarMayStandInFrontOfAnother(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	behind := newSidecar(t, p, options{})
	s := newSidecar(t, p, options{global: "api_url http://" + behind.address + "\n login_url " + p.url})
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 1)
}

// TestARequestThatHasPassedTooManySidecarsIsRefused stands for a way through a
// fleet that never comes by the same sidecar twice.
func TestARequestThatHasPassedTooManySidecarsIsRefused(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	passed := func(marks ...string) request {
		r := keyed(1)
		for _, m := range marks {
			r.header = append(r.header, "CDN-Loop", m)
		}
		return r
	}
	wantLoop(t, s.send(t, passed("genesys-sidecar; id=1, other", "Genesys-Sidecar; id=2, genesys-sidecar;id=3")))
	p.wantEffects(t, 0)
	if a := s.send(t, passed("cloudflare; loops=1", "genesys-sidecar; id=1, genesys-sidecar; id=2, other")); a.status != 200 {
		t.Errorf("two others: %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestAReloadChangesTheWayToTheLoginService(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "login_transport http {\n network_proxy url http://" + freeAddress(t) + "\n }"})
	if a := s.send(t, keyed(1)); a.status != 503 || !strings.Contains(a.body, "token.unavailable") {
		t.Errorf("through a proxy that is not there: %+v", a)
	}
	s.configure(t, options{})
	s.reload(t)
	waitFor(t, func() bool { return s.send(t, keyed(1)).status == 200 })
}
