package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/test/overlay"
)

// turnedClock has the one function that reads the machine's clocks go by a file,
// which says by how much the wall clock is off, and how many times the machine was
// restarted.
var turnedClock = []overlay.Edit{
	{File: "caddymodule/store/disk/machine.go", Old: "import \"time\"", New: "import (\n\t\"fmt\"\n\t\"os\"\n\t\"time\"\n)"},
	{File: "caddymodule/store/disk/machine.go", Old: "\treturn time.Now().Round(0), bootID(), uptime\n", New: `
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
	return time.Now().Add(by).Round(0), fmt.Sprint(bootID(), boots), uptime
`},
}

// newTurnedSidecar starts a sidecar whose wall clock the test turns.
func newTurnedSidecar(t *testing.T, p *platform, o options) (s *sidecar, turn func(off time.Duration, boots int)) {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "genesys-sidecar")
	must(t, overlay.Build(t.Context(), dir, program, true, turnedClock...))
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
	t.Parallel()
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
