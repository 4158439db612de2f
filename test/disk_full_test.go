package test

import (
	"encoding/json"
	"errors"
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

// smallDisk is a file system of 8 MiB that a test fills.
type smallDisk struct{ dir string }

func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	return &smallDisk{mount(t, "-t", "tmpfs", "-o", "size=8m", "genesys-sidecar-test")}
}

func (d *smallDisk) store() string  { return filepath.Join(d.dir, "store") }
func (d *smallDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fill leaves no byte free.
func (d *smallDisk) fill(t *testing.T) {
	t.Helper()
	f, err := os.Create(d.filler())
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func (d *smallDisk) makeRoom(t *testing.T) {
	t.Helper()
	must(t, os.Remove(d.filler()))
}

// ledgerOfKeys returns how often each key was executed.
func ledgerOfKeys(p *platform) map[string]int {
	ran := make(map[string]int)
	for _, e := range p.Ledger(sandbox.Filter{}).Effects {
		ran[e.Key]++
	}
	return ran
}

// wantOnce fails the test if a key was executed more than once.
func wantOnce(t *testing.T, p *platform) {
	t.Helper()
	for key, n := range ledgerOfKeys(p) {
		if n > 1 {
			t.Errorf("%s was executed %d times", key, n)
		}
	}
}

// wantUnavailable checks that a is the refusal of a store that does not work.
func wantUnavailable(t *testing.T, a answer) {
	t.Helper()
	var p struct{ Code, Detail string }
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || a.status != 503 || p.Code != "store.unavailable" ||
		a.header.Get("Retry-After") == "" {
		t.Errorf("got %+v, want 503 store.unavailable with Retry-After", a)
	}
}

func named(key string, more ...string) request {
	return request{path: execute, body: `{}`, header: append([]string{"Idempotency-Key", key}, more...)}
}

// wantTheSame repeats calls, which must get the answers that they got.
func wantTheSame(t *testing.T, s *sidecar, told map[string]answer) {
	t.Helper()
	for key, first := range told {
		if a := s.send(t, named(key)); a.status != first.status || a.body != first.body || !a.replayed() {
			t.Errorf("%s: first %+v, now %+v", key, first, a)
		}
	}
}

// sendUntilRefused sends calls, several at a time, until each sender gets a 503.
// It returns what was answered, and which keys were refused.
func sendUntilRefused(t *testing.T, s *sidecar, prefix string) (told map[string]answer, refused []string) {
	t.Helper()
	told = make(map[string]answer)
	var mu sync.Mutex
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for n := range 10_000 {
				key := fmt.Sprintf("%s%d-%d", prefix, w, n)
				a := s.send(t, named(key))
				mu.Lock()
				if a.status == 503 {
					refused = append(refused, key)
				} else {
					told[key] = a
				}
				mu.Unlock()
				if a.status == 503 {
					wantUnavailable(t, a)
					return
				}
			}
			t.Error("the disk is full, and nobody noticed")
		})
	}
	all.Wait()
	return told, refused
}

func TestAFullDiskRefusesCallsAndServesAgainOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t)
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "cache off\n\t\tstore disk " + disk.store()})
	told := make(map[string]answer)
	for i := range 20 {
		key := fmt.Sprint("before-", i)
		told[key] = s.send(t, named(key))
	}

	// Calls under way when the disk is full get their answers.
	underWay := make([]answer, 3)
	var callers sync.WaitGroup
	for i := range underWay {
		callers.Go(func() { underWay[i] = s.send(t, named(fmt.Sprint("under-way-", i), "Sandbox-Fault", "slow=5s")) })
	}
	waitFor(t, func() bool { return p.Summary().Effects == len(told)+len(underWay) })
	disk.fill(t)
	more, refused := sendUntilRefused(t, s, "w")
	for key, a := range more {
		told[key] = a
	}
	effects := p.Summary().Effects
	for i := range 10 {
		key := fmt.Sprint("refused-", i)
		wantUnavailable(t, s.send(t, named(key)))
		refused = append(refused, key)
	}
	wantUnavailable(t, s.send(t, named("before-1"))) // who knows whether it ran?
	p.wantEffects(t, effects)
	callers.Wait()
	for i, a := range underWay {
		key := fmt.Sprint("under-way-", i)
		if a.status != 200 || strings.Contains(a.header.Get("Cache-Status"), "stored") {
			t.Errorf("%s, under way when the disk was full: %+v", key, a)
		}
		if again := s.send(t, named(key)); again.body != a.body {
			t.Errorf("%s, repeated while the disk is full: %+v", key, again)
		}
		told[key] = a
	}

	disk.makeRoom(t)
	waitFor(t, func() bool { return strings.Contains(s.log(t), "the store serves again") })
	recorded := 0
	for _, a := range told {
		if !strings.Contains(a.header.Get("Cache-Status"), "stored") {
			recorded++
		}
	}
	waitFor(t, func() bool { return strings.Count(s.log(t), "recorded the outcome of a call after all") == recorded })
	wantTheSame(t, s, told)
	p.wantEffects(t, effects)
	for _, key := range refused {
		told[key] = s.send(t, named(key))
		if a := told[key]; a.status != 200 || a.replayed() {
			t.Errorf("%s, refused before: %+v", key, a)
		}
	}
	s.kill(t)
	s.start(t)
	wantTheSame(t, s, told)
	p.wantEffects(t, effects+len(refused))
	wantOnce(t, p)

	log := s.log(t)
	for line, want := range map[string]int{"the store has failed; calls are refused": 1, "the store serves again": 1} {
		if got := strings.Count(log, line); got != want {
			t.Errorf("%q is in the log %d times, want %d", line, got, want)
		}
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "the store has failed; calls") && (!strings.Contains(line, disk.store()) ||
			!strings.Contains(line, "no space left on device") || !strings.Contains(line, "make room on its file system")) {
			t.Errorf("it is not said where, why and what to do: %s", line)
		}
	}
}

func TestASidecarKilledOnAFullDiskTellsWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t)
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "store disk " + disk.store()})
	told := map[string]answer{"before": s.send(t, named("before"))}
	disk.fill(t)
	more, refused := sendUntilRefused(t, s, "w")
	for key, a := range more {
		if a.status == 200 && strings.Contains(a.header.Get("Cache-Status"), "stored") {
			told[key] = a
		}
	}
	effects := p.Summary().Effects
	s.kill(t)
	for range 3 {
		wantNoStart(t, s, disk.store(), "no space left on device", "make room on its file system")
	}
	disk.makeRoom(t)
	s.start(t)
	wantTheSame(t, s, told)
	p.wantEffects(t, effects)
	for _, key := range refused {
		s.send(t, named(key)) // that it runs is too much to ask: the refused claim may be on the disk
	}
	for key := range more {
		s.send(t, named(key))
	}
	wantOnce(t, p)
}

// wantNoStart fails the test unless the sidecar ends at its start, and says all
// of that.
func wantNoStart(t *testing.T, s *sidecar, says ...string) {
	t.Helper()
	cmd := s.command("run", "--config", s.config(), "--adapter", "caddyfile")
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err == nil {
			t.Errorf("it ended well: %s", out.String())
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		<-ended
		t.Fatalf("it has started: %s", out.String())
	}
	for _, what := range says {
		if !strings.Contains(out.String(), what) {
			t.Errorf("it does not say %q: %s", what, out.String())
		}
	}
}
