package test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"genesys-sidecar/caddymodule/sandbox"
)

// atTerminal runs a command at a terminal of 80 columns, at which somebody types
// reply, and returns what is to be seen there.
func atTerminal(t *testing.T, cmd *exec.Cmd, reply string) ended {
	t.Helper()
	ptm, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	defer ptm.Close()
	number, err := unix.IoctlGetInt(int(ptm.Fd()), unix.TIOCGPTN)
	if err := errors.Join(err,
		unix.IoctlSetPointerInt(int(ptm.Fd()), unix.TIOCSPTLCK, 0),
		unix.IoctlSetWinsize(int(ptm.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}),
	); err != nil {
		t.Fatal(err)
	}
	pts, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = pts, pts, pts
	cmd.Env = append(cmd.Env, "TERM=xterm", "NO_COLOR=")
	if _, err := io.WriteString(ptm, reply); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = pts.Close() // so that reading ends with the command
	seen, _ := io.ReadAll(ptm)
	_ = cmd.Wait()
	return ended{out: string(seen), code: cmd.ProcessState.ExitCode()}
}

func TestAtATerminalAChangeIsAskedAbout(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call, id := s.lose(t, "k")
	resolve := func(reply string) ended {
		return atTerminal(t, s.command("genesys", "calls", "resolve", id, "--not-executed", "--address", s.admin), reply)
	}
	for _, no := range []string{"n\n", "\n", "\x04"} {
		e := resolve(no)
		if e.code != 1 || !strings.Contains(e.out, "nothing was changed") {
			t.Errorf("%q: %+v", no, e)
		}
		for _, want := range []string{"custom_-_6ab1a8ae", "its key is free, and a repeat runs", "[y/N]"} {
			if !strings.Contains(e.out, want) {
				t.Errorf("without %q: %s", want, e.out)
			}
		}
	}
	p.wantEffects(t, 1)
	if e := resolve("y\n"); e.code != 0 {
		t.Errorf("yes: %+v", e)
	}
	if a := s.send(t, call); a.status != 200 || a.replayed() {
		t.Errorf("a repeat got %+v", a)
	}
	if e := atTerminal(t, s.command("genesys", "calls", "forget", id, "--address", s.admin), "yes\n"); e.code != 0 || !strings.Contains(e.out, "even if it ran") {
		t.Errorf("forgetting: %+v", e)
	}
	if e := s.cli(t, "calls", "show", id); e.code != 4 {
		t.Errorf("a forgotten call: %+v", e)
	}
}

func TestATerminalShowsColorsUnlessItMustNot(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	_, id := s.lose(t, "k")
	show := func(flags ...string) string {
		cmd := s.command("genesys", "calls", "show", id, "--address", s.admin)
		cmd.Args = append(cmd.Args, flags...)
		return atTerminal(t, cmd, "").out
	}
	if seen := show(); !strings.Contains(seen, "\x1b[31munknown\x1b[0m") {
		t.Errorf("got %q", seen)
	}
	if seen := show("--json"); strings.Contains(seen, "\x1b") {
		t.Errorf("got %q", seen)
	}
}
