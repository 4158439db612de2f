package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// crashAfter is how many acknowledgements a child gives before it is killed:
// enough for several logs and tables.
const crashAfter = 3000

// child does job in dir, in a process of its own, and does not return.
func child(job, dir string) {
	s, err := Open(dir, Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready")
	switch job {
	case "hold":
		select {}
	case "write":
		err = writeForever(s)
	case "hand over":
		err = handOverForever(s)
	default:
		err = fmt.Errorf("unknown job %q", job)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// writeForever claims and finishes from many goroutines, and prints a line as
// soon as a change is acknowledged, in one write each.
func writeForever(s *Store) error {
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	run := fmt.Sprintf("%x", process)
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				rec := claim(fmt.Sprint(run, "-", w, "-", i))
				standing, err := s.Claim(ctx, rec, idempotency.Owner{})
				if standing != nil {
					err = errors.New("an ID was there already")
				}
				if err == nil {
					_, err = os.Stdout.WriteString("claimed " + rec.Key + "\n")
				}
				if err == nil && i%2 == 0 {
					err = s.Finish(ctx, answered(rec))
					if err == nil {
						_, err = os.Stdout.WriteString("done " + rec.Key + "\n")
					}
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	return <-errs
}

// TestKillLosesNothingThatWasAcknowledged kills a process in the middle of its
// writes, three times over in the same directory.
func TestKillLosesNothingThatWasAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acknowledged := make(map[string]idempotency.State)
	for range 3 {
		cmd, out := startChild(t, "write", dir)
		for range crashAfter {
			line, err := out.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			acknowledge(t, acknowledged, line)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for line := range strings.Lines(string(rest)) {
			if strings.HasSuffix(line, "\n") {
				acknowledge(t, acknowledged, line)
			}
		}

		s := mustOpen(t, dir, Options{})
		for name, state := range acknowledged {
			rec, err := s.Get(ctx, claim(name).ID)
			if err != nil {
				t.Fatal(err)
			}
			if rec == nil || rec.State < state || rec.Key != name {
				t.Errorf("%s was acknowledged as %s, got %+v", name, state, rec)
			}
			if rec != nil && rec.State == idempotency.Done && len(rec.Answer.Body) != 100*len(name) {
				t.Errorf("%s has lost its answer", name)
			}
		}
		wantIndexes(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d records", len(acknowledged))
}

func acknowledge(t *testing.T, acknowledged map[string]idempotency.State, line string) {
	t.Helper()
	what, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	switch what {
	case "claimed":
		acknowledged[name] = max(acknowledged[name], idempotency.Started)
	case "done":
		acknowledged[name] = idempotency.Done
	default:
		t.Fatalf("the child wrote %q", line)
	}
}
