package test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// newRedis starts a Redis that keeps what it says it has, and further args.
func newRedis(t *testing.T, args ...string) *redistest.Server {
	t.Helper()
	return redistest.New(t, redistest.Options{Args: append([]string{"--appendonly", "yes", "--appendfsync", "always"}, args...)})
}

// onRedis returns the option that has a sidecar keep its records in Redis.
func onRedis(url string, lines ...string) string {
	return "store redis " + url + " {\n\t\t\t" + strings.Join(lines, "\n\t\t\t") + "\n\t\t}"
}

// shortLease is for tests that wait for a sidecar to be taken for dead. Others
// leave the lease as it is, so that a slow machine does not disturb them.
const shortLease = "lease 1s"

// newFleet starts n sidecars that share a store.
func newFleet(t *testing.T, p *platform, n int, store string) []*sidecar {
	t.Helper()
	fleet := make([]*sidecar, n)
	for i := range fleet {
		fleet[i] = newSidecar(t, p, options{global: store})
	}
	return fleet
}

// newCall returns a call that the upstream meets with fault, if that is not
// empty. Without a key it is a keyless one.
func newCall(path, key, fault string) request {
	r := request{path: path, body: `{"input":{"a":1}}`}
	if key != "" {
		r.header = append(r.header, "Idempotency-Key", key)
	}
	if fault != "" {
		r.header = append(r.header, "Sandbox-Fault", fault)
	}
	return r
}

// begin sends a request and returns a function that waits for its answer.
func (s *sidecar) begin(t *testing.T, r request) (answered func() answer) {
	t.Helper()
	var a answer
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		a, err = s.try(context.Background(), r)
	}()
	return func() answer {
		t.Helper()
		<-done
		if err != nil {
			t.Fatalf("sending: %v\n%s", err, s.log(t))
		}
		return a
	}
}

// abandon sends a request whose caller never gets an answer, and returns once
// the upstream has executed it.
func (s *sidecar) abandon(t *testing.T, r request) {
	t.Helper()
	before := s.platform.Summary().Effects
	go func() { _, _ = s.try(context.Background(), r) }()
	waitFor(t, func() bool { return s.platform.Summary().Effects > before })
}

// pause stops the process where it is, until resume.
func (s *sidecar) pause(t *testing.T) {
	t.Helper()
	s.resumeAtEnd(t)
	must(t, s.stopHere())
}

// stopHere is pause. It returns once all threads stand still, which takes a
// moment after the signal.
func (s *sidecar) stopHere() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		_, err := syscall.Wait4(s.cmd.Process.Pid, nil, syscall.WUNTRACED, nil)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// resumeAtEnd sees to it that the process can be ended, whatever happens.
func (s *sidecar) resumeAtEnd(t *testing.T) {
	cmd := s.cmd
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGCONT) })
}

func (s *sidecar) resume(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// must fails the test where an error is not what it is about.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantUnknown checks that a caller was told that nobody knows.
func wantUnknown(t *testing.T, a answer) {
	t.Helper()
	if a.status != 502 || !strings.Contains(a.body, `"outcome":"unknown"`) ||
		!strings.Contains(a.header.Get("Cache-Status"), "detail=OUTCOME-UNKNOWN") {
		t.Errorf("got %+v, want an unknown outcome", a)
	}
}

// wantReplay checks that a caller was told again what another was told first.
func wantReplay(t *testing.T, a, first answer) {
	t.Helper()
	if first.status != 200 || a.status != first.status || a.body != first.body || !a.replayed() {
		t.Errorf("got %+v, first was %+v", a, first)
	}
}

// wantRefused checks that a call was refused since the store does not work.
func wantRefused(t *testing.T, a answer) {
	t.Helper()
	if !refused(a) {
		t.Errorf("got %+v, want it refused", a)
	}
}

func refused(a answer) bool {
	return a.status == 503 && strings.Contains(a.body, `"code":"store.unavailable"`) && a.header.Get("Retry-After") != ""
}

// served sends r until the store works, and returns the answer.
func (s *sidecar) served(t *testing.T, r request) (a answer) {
	t.Helper()
	waitFor(t, func() bool {
		a = s.send(t, r)
		return !refused(a)
	})
	return a
}

func TestFleetSixtyCallersOfOneKeyShareOneExecution(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	call := newCall(execute, "k", "slow=300ms")
	answers := make([]answer, 60)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = fleet[i%2].send(t, call) })
	}
	wg.Wait()
	first := 0
	for _, a := range answers {
		if a.status != 200 || a.body != answers[0].body {
			t.Errorf("got %+v", a)
		}
		if !a.replayed() {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d callers were told that theirs was the first call", first)
	}
	p.wantEffects(t, 1)
}

func TestFleetADuplicateElsewhereWaitsAndGetsTheAnswer(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	call := newCall(execute, "k", "slow=1s")
	first := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	again := fleet[1].send(t, call)
	wantReplay(t, again, first())
	if cs := again.header.Get("Cache-Status"); cs != "genesys; fwd=miss; collapsed" {
		t.Errorf("it did not wait: %s", cs)
	}
	p.wantEffects(t, 1)
}

func TestFleetACallThatRunsElsewhere(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	store := onRedis(newRedis(t).URL())
	a := newSidecar(t, p, options{global: store})
	off := newSidecar(t, p, options{global: store, block: "wait off"})
	short := newSidecar(t, p, options{global: store, block: "wait 200ms"})
	call := newCall(execute, "k", "hang-before=1h")
	go func() { _, _ = a.try(context.Background(), call) }()
	waitFor(t, func() bool { return p.Summary().Attempts == 1 })

	for name, s := range map[string]*sidecar{"is not waited for with wait off": off, "is waited for as long as wait says": short} {
		t.Run(name, func(t *testing.T) {
			got := s.send(t, call)
			if got.status != 409 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, `"code":"key.in.use"`) {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("refuses another request under its key at once", func(t *testing.T) {
		// It hangs: whoever waited for it would wait in vain.
		other := call
		other.body = `{"input":{"a":2}}`
		for _, s := range []*sidecar{off, short} {
			if got := s.send(t, other); got.status != 422 || !strings.Contains(got.body, `"code":"key.reused"`) {
				t.Errorf("got %+v", got)
			}
		}
	})
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got %d attempts", n)
	}
	_ = p.Close() // ends what hangs, so that the sidecar can stop
}

func TestFleetAnAnswerIsReplayedElsewhere(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	fleet := newFleet(t, p, 2, onRedis(newRedis(t).URL()))
	answers := make([]answer, 3)
	for i := range answers {
		answers[i] = fleet[0].send(t, newCall(execute, fmt.Sprint("k", i), ""))
		if answers[i].header.Get("Cache-Status") != "genesys; fwd=miss; stored" {
			t.Fatalf("got %+v", answers[i])
		}
	}
	again := fleet[1].send(t, newCall(execute, "k0", ""))
	wantReplay(t, again, answers[0])
	for name := range answers[0].header {
		if name != "Cache-Status" && name != "Date" && again.header.Get(name) != answers[0].header.Get(name) {
			t.Errorf("%s: %q, first %q", name, again.header.Get(name), answers[0].header.Get(name))
		}
	}
	other := newCall(execute, "k1", "")
	other.body = `{"input":{"a":2}}`
	if a := fleet[1].send(t, other); a.status != 422 || !strings.Contains(a.body, `"code":"key.reused"`) {
		t.Errorf("another request under its key got %+v", a)
	}
	fleet[0].stop(t)
	for i, first := range answers { // who gave it is gone
		wantReplay(t, fleet[1].send(t, newCall(execute, fmt.Sprint("k", i), "")), first)
	}
	p.wantEffects(t, len(answers))
}
