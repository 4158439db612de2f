package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestReloadsDuringACallChangeNothingAboutIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "slow=2s"}}
	var wg sync.WaitGroup
	answers := make([]answer, 6)
	wg.Go(func() { answers[0] = s.send(t, call) })
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	for i := range 5 {
		s.reload(t)
		wg.Go(func() { answers[i+1] = s.send(t, call) })
	}
	wg.Wait()
	for i, a := range answers {
		if a.status != 200 || a.body != answers[0].body {
			t.Errorf("caller %d: %+v", i, a)
		}
	}
	p.wantEffects(t, 1)
	if n := p.Summary().TokensIssued; n != 1 {
		t.Errorf("%d tokens", n)
	}
}

func TestACallKeepsItsStoreWhenAReloadGoesOnWithAnother(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "slow=1s"}}
	var wg sync.WaitGroup
	wg.Go(func() {
		if a := s.send(t, call); a.status != 200 {
			t.Errorf("got %+v", a)
		}
	})
	waitFor(t, func() bool { return p.Summary().Effects == 1 })
	s.configure(t, options{global: "store disk " + filepath.Join(s.dir, "other")})
	s.reload(t)
	wg.Wait()
	s.configure(t, options{})
	s.reload(t)
	if a := s.send(t, call); a.status != 200 || !a.replayed() {
		t.Errorf("back in the first store: %+v", a)
	}
	p.wantEffects(t, 1)
}

func TestSIGTERMWaitsForCallsUnderWay(t *testing.T) {
	t.Parallel()
	for _, leaves := range []bool{false, true} {
		t.Run(fmt.Sprintf("caller leaves: %v", leaves), func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{})
			call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "slow=1s"}}
			var wg sync.WaitGroup
			if leaves {
				s.leave(t, call, func() bool { return p.Summary().Effects == 1 })
			} else {
				wg.Go(func() {
					if a := s.send(t, call); a.status != 200 {
						t.Errorf("got %+v", a)
					}
				})
				waitFor(t, func() bool { return p.Summary().Effects == 1 })
			}
			s.stop(t)
			wg.Wait()
			s.start(t)
			if a := s.send(t, call); a.status != 200 || !a.replayed() {
				t.Errorf("after the restart: %+v", a)
			}
			p.wantEffects(t, 1)
		})
	}
}

func TestASecondProcessOnTheSameStoreIsRefused(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	out, err := s.command("validate", "--config", s.config(), "--adapter", "caddyfile").CombinedOutput()
	if err == nil || !strings.Contains(string(out), filepath.Join(s.dir, "store")) || !strings.Contains(string(out), "reload") {
		t.Errorf("got %v: %s", err, out)
	}
}

func TestADamagedStoreIsRefusedAndLeftAsItIs(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyed(1))
	s.stop(t)
	store := filepath.Join(s.dir, "store")
	manifests, err := filepath.Glob(filepath.Join(store, "records", "MANIFEST-*"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("no manifest in %s: %v", store, err)
	}
	for _, m := range manifests {
		if err := os.Truncate(m, 0); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.command("run", "--config", s.config(), "--adapter", "caddyfile").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "damaged") || !strings.Contains(string(out), store) {
		t.Errorf("got %v: %s", err, out)
	}
}

// TestKilledEveryHalfSecond kills the process under load. No key runs twice,
// and no answer that a caller got changes or is lost.
func TestKilledEveryHalfSecond(t *testing.T) {
	t.Parallel()
	kills := 40
	if testing.Short() {
		kills = 4
	}
	for _, path := range []string{execute, invoke} {
		t.Run(path[8:12], func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{LedgerFile: filepath.Join(t.TempDir(), "ledger"), Latency: 5 * time.Millisecond})
			s := newSidecar(t, p, options{block: "backoff 5ms 50ms"})

			var mu sync.Mutex
			told := make(map[string]answer)
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						key := fmt.Sprintf("w%d-%d", w, n)
						call := request{path: path, body: fmt.Sprintf(`{"input":{"n":%d}}`, n), header: []string{"Idempotency-Key", key}}
						for ctx.Err() == nil {
							a, err := s.try(ctx, call)
							if err != nil {
								time.Sleep(5 * time.Millisecond) // it is being restarted
								continue
							}
							mu.Lock()
							told[key] = a
							mu.Unlock()
							break
						}
					}
				})
			}
			for range kills {
				time.Sleep(500 * time.Millisecond) // the test's schedule, not a wait for anything
				s.kill(t)
				s.start(t)
			}
			cancel()
			wg.Wait()

			ran := make(map[string]int)
			for _, e := range p.Ledger(sandbox.Filter{}).Effects {
				ran[e.Key]++
			}
			for key, n := range ran {
				if n > 1 {
					t.Errorf("%s ran %d times", key, n)
				}
			}
			ok := 0
			for key, first := range told {
				var w, n int
				fmt.Sscanf(key, "w%d-%d", &w, &n)
				a := s.send(t, request{path: path, body: fmt.Sprintf(`{"input":{"n":%d}}`, n), header: []string{"Idempotency-Key", key}})
				if first.status == 200 {
					ok++
					if ran[key] != 1 {
						t.Errorf("%s was answered 200 and ran %d times", key, ran[key])
					}
				}
				if (first.status == 200 || path == execute) && (a.status != first.status || a.body != first.body) {
					t.Errorf("%s: first %+v, now %+v", key, first, a)
				}
			}
			t.Logf("%d kills, %d keys answered, %d of them 200, %d effects", kills, len(told), ok, len(ran))
			if ok == 0 {
				t.Error("no call went through")
			}
		})
	}
}

func TestTheDemoDoesWhatItSays(t *testing.T) {
	cmd := (&sidecar{platform: &platform{}, dir: t.TempDir()}).command("genesys", "demo", "--port", port(freeAddress(t)), "--data", filepath.Join(t.TempDir(), "new"))
	cmd.Dir = ".."
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return strings.Contains(out.String(), "Ctrl-C ends the demo") || cmd.ProcessState != nil })
	var curls []string
	var list string
	for line := range strings.SplitSeq(out.String(), "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "curl ") {
			curls = append(curls, line)
		} else if strings.Contains(line, " genesys calls list ") {
			list = line
		}
	}
	if len(curls) != 3 {
		t.Fatalf("got %s", out.String())
	}
	if first := shell(t, curls[0]); !strings.Contains(first, "200 OK") || strings.Contains(first, "Idempotent-Replayed") {
		t.Errorf("first: %s", first)
	}
	if again := shell(t, curls[0]); !strings.Contains(again, "Idempotent-Replayed: true") {
		t.Errorf("again: %s", again)
	}
	for range 2 {
		if a := shell(t, curls[1]); !strings.Contains(a, `"outcome":"unknown"`) {
			t.Errorf("the lost answer: %s", a)
		}
	}
	if ledger := shell(t, curls[2]); !strings.Contains(ledger, `"effects":2`) {
		t.Errorf("the ledger: %s", ledger)
	}
	if calls := shell(t, list); strings.Count(calls, "custom_-_refund") != 2 {
		t.Errorf("the listing: %s", calls)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the demo ended with %v: %s", err, out.String())
	}
}

func TestAStoreBehindALinkSurvivesTheFirstReload(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	real, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	s := newSidecar(t, p, options{global: "store disk " + filepath.Join(link, "new")})
	first := s.send(t, keyed(1))
	s.reload(t)
	if a := s.send(t, keyed(1)); a.body != first.body {
		t.Errorf("got %+v", a)
	}
}

func TestARejectedReloadChangesNothing(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	first := s.send(t, keyed(1))
	taken := strings.TrimPrefix(p.url, "http://")
	good, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), "store disk", "client_secret wrong\n\t\tcache off\n\t\tstore disk", 1) +
		"http://" + taken + " {\n\tbind 127.0.0.1\n\trespond ok\n}\n"
	if err := os.WriteFile(s.config(), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		out, err := s.command("reload", "--config", s.config(), "--adapter", "caddyfile", "--address", s.admin, "--force").CombinedOutput()
		if err == nil {
			t.Fatalf("the reload was accepted: %s", out)
		}
	}
	if err := os.WriteFile(s.config(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	if a := s.send(t, keyed(2)); a.status != 200 {
		t.Errorf("a call after it got %+v", a)
	}
	if a := s.send(t, keyed(1)); a.body != first.body {
		t.Errorf("a repeat after it got %+v", a)
	}
}
