package test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// listed are the calls of a listing in JSON.
type listed struct {
	Calls []struct{ ID, Digest, State, Action string }
	Next  string
}

// list lists calls in JSON.
func (s *sidecar) list(t *testing.T, args ...string) listed {
	t.Helper()
	e := s.wantExit(t, 0, append([]string{"calls", "list", "--json"}, args...)...)
	var l listed
	if err := json.Unmarshal([]byte(e.out), &l); err != nil {
		t.Fatalf("%v: %+v", err, e)
	}
	return l
}

func TestCallsAreListedByWhatIsAskedFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "scope {http.request.header.X-User}"})
	if l := s.list(t); len(l.Calls) != 0 {
		t.Errorf("before any call: %+v", l)
	}
	s.wantExit(t, 0, "calls", "list", "--exit-code")
	for n := range 3 {
		s.send(t, keyed(n))
	}
	call := request{path: execute, body: `{"order":17}`, header: []string{"Idempotency-Key", "lost", "Sandbox-Fault", "execute-then-drop", "X-User", "ann"}}
	s.send(t, call)

	table := s.wantExit(t, 0, "calls", "list")
	if lines := strings.Split(strings.TrimSpace(table.out), "\n"); len(lines) != 5 || !strings.HasPrefix(lines[0], "ID ") || !strings.Contains(lines[1], "unknown") {
		t.Errorf("got %s", table.out)
	}
	if l := s.list(t, "--state", "unknown"); len(l.Calls) != 1 || l.Calls[0].State != "unknown" {
		t.Errorf("unknown: %+v", l)
	}
	if l := s.list(t, "--scope", "ann"); len(l.Calls) != 1 {
		t.Errorf("by scope: %+v", l)
	}
	if l := s.list(t, "--since", "1h", "--action", "custom_-_"); len(l.Calls) != 4 {
		t.Errorf("by time and action: %+v", l)
	}
	if l := s.list(t, "--action", "nosuch"); len(l.Calls) != 0 {
		t.Errorf("by another action: %+v", l)
	}
	if l := s.list(t, "--limit", "2"); len(l.Calls) != 2 || l.Next == "" {
		t.Errorf("two: %+v", l)
	}
	s.wantExit(t, 7, "calls", "list", "--state", "unknown,open", "--exit-code")
	s.wantExit(t, 0, "calls", "list", "--state", "open", "--exit-code")
	if status := s.wantExit(t, 0, "status"); !strings.Contains(status.out, "1 unknown") {
		t.Errorf("the status: %s", status.out)
	}
}

func TestAllCallsAreOneDocument(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	const n = 230 // more than two pages
	for i := range n {
		s.send(t, keyed(i))
	}
	l := s.list(t, "--all")
	var ids []string
	for _, c := range l.Calls {
		ids = append(ids, c.ID)
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != n || l.Next != "" {
		t.Errorf("%d calls, next %q", len(ids), l.Next)
	}
}

func TestACallIsKnownByTheDigestOfTheLog(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	digest := id[:12]
	if e := s.wantExit(t, 0, "calls", "show", digest); !strings.Contains(e.out, "calls resolve "+digest) {
		t.Errorf("got %s", e.out)
	}
	s.wantExit(t, 0, "calls", "resolve", digest, "--not-executed", "--yes")
	if a := s.send(t, call); a.status != 200 {
		t.Errorf("a repeat got %+v", a)
	}
}

func TestAScopeIsErasedAndItsCallsRunNoSecondTime(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "scope {http.request.header.X-User}"})
	of := func(user string) request {
		return request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "X-User", user}}
	}
	for _, user := range []string{"ann", "bob"} {
		if a := s.send(t, of(user)); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	var erased struct{ Erased, Running int }
	e := s.wantExit(t, 0, "calls", "forget", "--scope", "ann", "--yes", "--json")
	if err := json.Unmarshal([]byte(e.out), &erased); err != nil || erased.Erased != 1 || erased.Running != 0 {
		t.Errorf("%v: %s", err, e.out)
	}
	if a := s.send(t, of("ann")); a.status != 409 || !strings.Contains(a.body, "result-unavailable") {
		t.Errorf("ann's repeat got %+v", a)
	}
	if a := s.send(t, of("bob")); a.status != 200 || !a.replayed() {
		t.Errorf("bob's repeat got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestShellsCompleteCallsOfTheSidecarThatRuns(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyed(1))
	_, id := s.lose(t, "k")
	e := finish(t, s.command("__complete", "genesys", "calls", "resolve", "--address", s.admin, ""))
	if want := fmt.Sprintf("%s\tunknown, ", id[:12]); !strings.HasPrefix(e.out, want) || strings.Count(e.out, "\n") != 2 {
		t.Errorf("got %q", e.out)
	}
}
