package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// failpoints has the tests kill sidecars at exact points of a call, and says what
// they found. Those tests are end-to-end tests like others (test/failpoint_test.go).
func (p *proof) failpoints(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-race", "-tags", "nobadger,nomysql,nopgx", "-count=1", "-v",
		"-run", "^TestKilledAtAnyPointOfACall$", "genesys-sidecar/test")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GENESYS_SIDECAR_NEED_REDIS=1")
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case errors.As(err, &failed):
		fmt.Fprintf(p.out, "%s", out)
		p.fail("failpoints", []string{"a kill left something else than it should; see above"})
		return nil
	case err != nil:
		return fmt.Errorf("running tests: %w", err)
	}
	_, table, found := bytes.Cut(out, []byte("killed  "))
	if !found {
		return errors.New("running tests: they printed no table")
	}
	points := 0
	table, _, _ = bytes.Cut(append([]byte("killed  "), table...), []byte("\n---"))
	for line := range strings.Lines(string(table)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "---") || strings.HasPrefix(line, "PASS") {
			continue
		}
		p.say("  %s", line)
		points++
	}
	p.say("failpoints: %d kills at exact points, each with the end that it should have", points-1)
	return nil
}
