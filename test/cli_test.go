package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/sandbox"
)

// ended is what became of a command.
type ended struct {
	out, err string
	code     int
}

// finish runs a command that needs no terminal.
func finish(t *testing.T, cmd *exec.Cmd) ended {
	t.Helper()
	var out, aside bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &aside
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("running %q: %v", cmd.Args, err)
	}
	for _, bad := range []string{secret, "\x1b", "DATA RACE", "panic: "} {
		if strings.Contains(out.String()+aside.String(), bad) {
			t.Errorf("%q says %q: %s%s", cmd.Args[1:], bad, out.String(), aside.String())
		}
	}
	return ended{out.String(), aside.String(), cmd.ProcessState.ExitCode()}
}

// cli runs a command of genesys against the sidecar.
func (s *sidecar) cli(t *testing.T, args ...string) ended {
	t.Helper()
	return finish(t, s.command(append(append([]string{"genesys"}, args...), "--address", s.admin)...))
}

// wantExit runs a command that is to exit with code, and returns its output.
func (s *sidecar) wantExit(t *testing.T, code int, args ...string) ended {
	t.Helper()
	e := s.cli(t, args...)
	if e.code != code {
		t.Errorf("%q exits with %d, want %d: %s%s", args, e.code, code, e.out, e.err)
	}
	return e
}

// callID returns the id of the call with key.
func (s *sidecar) callID(key string) string {
	id := idempotency.NewID(s.platform.url+" sandbox", "", key)
	return fmt.Sprintf("%x", id[:])
}

// lose makes a call that is executed and whose answer is lost, and returns it
// with its id.
func (s *sidecar) lose(t *testing.T, key string) (request, string) {
	t.Helper()
	call := request{path: execute, body: `{"order":17}`, header: []string{"Idempotency-Key", key}}
	lost := call
	lost.header = append([]string{"Sandbox-Fault", "execute-then-drop"}, call.header...)
	if a := s.send(t, lost); a.status != http.StatusBadGateway {
		t.Fatalf("the call with a lost answer: %+v", a)
	}
	return call, s.callID(key)
}

func TestACallResolvedAsExecutedIsReplayedAsItsOperatorSaid(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	file := filepath.Join(t.TempDir(), "answer")
	if err := os.WriteFile(file, []byte(`{"refund": 17}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s.wantExit(t, 0, "calls", "resolve", id, "--executed", "--status", "201", "--header", "X-From: operator", "--body-file", file, "--note", "seen in the ledger", "--yes")
	for range 2 {
		a := s.send(t, call)
		if a.status != 201 || a.body != `{"refund": 17}` || !a.replayed() || a.header.Get("X-From") != "operator" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("a repeat got %+v", a)
		}
	}
	p.wantEffects(t, 1)
	shown := s.wantExit(t, 0, "calls", "show", id, "--answer")
	for _, want := range []string{"is done", "seen in the ledger", "executed", "201 Created", `{"refund": 17}`, "X-From: operator", "CORRELATION ID"} {
		if !strings.Contains(shown.out, want) {
			t.Errorf("without %q: %s", want, shown.out)
		}
	}
	e := s.wantExit(t, 5, "calls", "resolve", id, "--executed", "--yes")
	if !strings.Contains(e.err, "its answer is known") {
		t.Errorf("said %s", e.err)
	}
}

func TestACallResolvedWithoutAnAnswerIsToldToHaveRun(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	s.wantExit(t, 0, "calls", "resolve", id, "--executed", "--yes")
	if a := s.send(t, call); a.status != http.StatusConflict || !strings.Contains(a.body, "result-unavailable") {
		t.Errorf("a repeat got %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestACallResolvedAsNotExecutedRunsAgain(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	told := s.wantExit(t, 0, "calls", "resolve", id, "--not-executed", "--note", "not there", "--yes", "--json")
	var resolved struct {
		State string
		Words []struct{ Note string }
	}
	if err := json.Unmarshal([]byte(told.out), &resolved); err != nil || resolved.State != "released" || len(resolved.Words) != 1 {
		t.Errorf("%v: %s", err, told.out)
	}
	if a := s.send(t, call); a.status != http.StatusOK || a.replayed() {
		t.Errorf("a repeat got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestAForgottenCallRunsAgain(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	s.wantExit(t, 0, "calls", "forget", id, "--yes")
	s.wantExit(t, 4, "calls", "show", id)
	s.wantExit(t, 4, "calls", "forget", id, "--yes")
	if a := s.send(t, call); a.status != http.StatusOK || a.replayed() {
		t.Errorf("a repeat got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestACallUnderWayIsNeitherForgottenNorResolved(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	done := make(chan answer)
	go func() {
		done <- s.send(t, request{path: execute, body: `{}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "slow=6s"}})
	}()
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	id := s.callID("k")
	s.wantExit(t, 5, "calls", "forget", id, "--yes")
	if e := s.wantExit(t, 5, "calls", "resolve", id, "--not-executed", "--yes"); !strings.Contains(e.err, "under way") {
		t.Errorf("said %s", e.err)
	}
	if a := <-done; a.status != http.StatusOK {
		t.Errorf("the call got %+v", a)
	}
}

func TestChangesNeedYesWhereNobodyCanBeAsked(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	_, id := s.lose(t, "k")
	for _, args := range [][]string{
		{"calls", "resolve", id, "--executed"}, {"calls", "resolve", id, "--not-executed"},
		{"calls", "forget", id}, {"calls", "forget", "--scope", "ann"},
	} {
		if e := s.wantExit(t, 2, args...); !strings.Contains(e.err, "--yes") {
			t.Errorf("%q says %s", args, e.err)
		}
	}
	if e := s.wantExit(t, 0, "calls", "show", id); !strings.Contains(e.out, "is unknown") {
		t.Errorf("the call: %s", e.out)
	}
}

func TestExitCodesArriveAsThoseOfTheProcess(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.wantExit(t, 0, "status")
	s.wantExit(t, 0, "health")
	s.wantExit(t, 0, "health", "--ready")
	s.wantExit(t, 1, "calls", "resolve", s.callID("x"), "--executed", "--body-file", "/nonexistent", "--yes")
	s.wantExit(t, 2, "status", "--nosuch")
	s.wantExit(t, 2, "calls", "show", "no-id")
	s.wantExit(t, 4, "calls", "show", s.callID("x"))
	if e := finish(t, s.command("genesys", "nosuch")); e.code != 2 || !strings.Contains(e.err, "unknown command") {
		t.Errorf("got %+v", e)
	}
	s.stop(t)
	s.wantExit(t, 3, "status")
	s.wantExit(t, 3, "health")
}

func TestStatusSaysWhenThereIsNoToken(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"reject"}`)
	s.send(t, keyed(1))
	if e := s.wantExit(t, 6, "status"); !strings.Contains(e.out, "rejected") || !strings.Contains(e.out, "authentication failed") {
		t.Errorf("got %s", e.out)
	}
	if e := s.wantExit(t, 6, "status", "--json"); !json.Valid([]byte(e.out)) {
		t.Errorf("got %s", e.out)
	}
	if e := s.wantExit(t, 1, "health", "--ready"); !strings.Contains(e.err, "token") {
		t.Errorf("got %s", e.err)
	}
	s.wantExit(t, 0, "health")
}

func TestStatusSaysWhenTheStoreIsDown(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "store redis redis://" + freeAddress(t)})
	s.send(t, keyed(1))
	if e := s.wantExit(t, 6, "status"); !strings.Contains(e.out, "the store is down") {
		t.Errorf("got %s", e.out)
	}
}

func TestTheAdminEndpointIsThatOfTheConfiguration(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	if e := finish(t, s.command("genesys", "health", "--config", s.config())); e.code != 0 {
		t.Errorf("by --config: %+v", e)
	}
	byEnvironment := s.command("genesys", "health")
	byEnvironment.Env = append(byEnvironment.Env, "CADDY_ADMIN="+s.admin)
	if e := finish(t, byEnvironment); e.code != 0 {
		t.Errorf("by CADDY_ADMIN: %+v", e)
	}
	s.admin = "unix/" + filepath.Join(s.dir, "admin.sock")
	s.configure(t, options{})
	s.stop(t)
	s.start(t)
	if e := s.cli(t, "health"); e.code != 0 {
		t.Errorf("a socket: %+v", e)
	}
	if e := finish(t, s.command("genesys", "health", "--config", s.config())); e.code != 0 {
		t.Errorf("a socket by --config: %+v", e)
	}
}

func TestTheHelpSaysEachExitCode(t *testing.T) {
	s := &sidecar{platform: &platform{}, dir: t.TempDir()}
	help := finish(t, s.command("genesys", "--help")).out
	for code := range 8 {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^  %d  \w`, code)).MatchString(help) {
			t.Errorf("%d is not in %s", code, help)
		}
	}
	for _, command := range []string{"status", "calls", "health", "doctor"} {
		if !strings.Contains(help, "\n  "+command+" ") {
			t.Errorf("%s is not in %s", command, help)
		}
	}
}
