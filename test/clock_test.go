package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// turnedClock is what stands in for the one function that reads the machine's
// clocks: a file says by how much the wall clock is off, and how many times the
// machine was restarted.
const turnedClock = `package disk

import (
	"fmt"
	"os"
	"time"
)

func readMachine() (wall time.Time, boot string, uptime time.Duration) {
	var off string
	var boots int
	text, err := os.ReadFile(os.Getenv("GENESYS_SIDECAR_TEST_CLOCK"))
	if err == nil {
		_, err = fmt.Sscan(string(text), &off, &boots)
	}
	by, parseErr := time.ParseDuration(off)
	if err != nil || parseErr != nil {
		panic(fmt.Sprint("reading the test's clock: ", err, parseErr))
	}
	uptime = sinceBoot()
	return time.Now().Add(by).Round(0), fmt.Sprint(bootID(), boots), uptime
}
`

// newTurnedSidecar starts a sidecar whose wall clock the test turns.
func newTurnedSidecar(t *testing.T, p *platform, o options) (s *sidecar, turn func(off time.Duration, boots int)) {
	t.Helper()
	dir := t.TempDir()
	read, err := filepath.Abs("../caddymodule/store/disk/machine.go")
	must(t, err)
	if _, err := os.Stat(read); err != nil {
		t.Fatal(err) // else the overlay would replace nothing
	}
	must(t, os.WriteFile(filepath.Join(dir, "machine.go"), []byte(turnedClock), 0o600))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{read: filepath.Join(dir, "machine.go")}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "overlay"), overlay, 0o600))
	program := filepath.Join(dir, "genesys-sidecar")
	build := exec.Command("go", "build", "-race", "-tags", "nobadger,nomysql,nopgx", "-overlay", filepath.Join(dir, "overlay"),
		"-o", program, "../cmd/genesys-sidecar")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v: %s", err, out)
	}
	clock := filepath.Join(dir, "clock")
	turn = func(off time.Duration, boots int) {
		t.Helper()
		must(t, os.WriteFile(clock+".new", fmt.Appendln(nil, off, boots), 0o600))
		must(t, os.Rename(clock+".new", clock))
	}
	turn(0, 0)
	return newSidecarOf(t, p, program, o, "GENESYS_SIDECAR_TEST_CLOCK="+clock), turn
}

// TestAWallClockThatJumpsRunsNothingAgain turns the wall clock by twice the
// retention, while the sidecar runs and while it does not.
func TestAWallClockThatJumpsRunsNothingAgain(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s, turn := newTurnedSidecar(t, p, options{global: "cache off\n\t\tstore disk", block: "retention 24h"})
	told := make(map[string]answer)
	lines := func(what string) int { return strings.Count(s.log(t), what) }
	// step makes a new call, too: it has to outlast the next turn.
	step := func(name string) {
		t.Helper()
		wantTheSame(t, s, told)
		a := s.send(t, named(name))
		if a.status != 200 || a.replayed() {
			t.Errorf("%s: a new call got %+v", name, a)
		}
		told[name] = a
		wantTheSame(t, s, told)
		p.wantEffects(t, len(told))
		if ttl := s.send(t, named(name)).header.Get("Cache-Status"); !strings.HasPrefix(ttl, "genesys; hit; ttl=863") {
			t.Errorf("%s: what is kept for 24h says %s", name, ttl)
		}
	}
	step("at-first")

	const jump = 48 * time.Hour
	for _, off := range []time.Duration{jump, 0, -jump, 0} {
		before := lines("the wall clock was set; records go by")
		turn(off, 0)
		waitFor(t, func() bool { return lines("the wall clock was set; records go by") > before })
		step(fmt.Sprintf("running-%d-%v", before, off))
	}
	for i, off := range []time.Duration{jump, 0, -jump, 0} {
		before := lines("the wall clock was set while the store was closed")
		s.kill(t)
		turn(off, 0)
		s.start(t)
		if lines("the wall clock was set while the store was closed") != before+1 {
			t.Errorf("it is not said that the clock was set")
		}
		step(fmt.Sprintf("killed-%d-%v", i, off))
	}
	for i, off := range []time.Duration{-jump, 0, jump} {
		s.kill(t)
		turn(off, i+1)
		s.start(t)
		step(fmt.Sprintf("another-boot-%d-%v", i, off))
	}
	if lines("only its wall clock tells for how long the store was closed") == 0 {
		t.Error("it is not said that a rest of two days is doubted")
	}
}
