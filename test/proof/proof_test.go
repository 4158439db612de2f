package main

import (
	"context"
	"io"
	"os"
	"testing"
)

// prepare returns a proof that writes to the test's log.
func prepare(t *testing.T, args ...string) *proof {
	t.Helper()
	set, err := parseFlags(append([]string{"-quick"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "genesys-sidecar-proof-")
	if err != nil {
		t.Fatal(err)
	}
	p := &proof{set: set, dir: dir, out: t.Output(), verdict: io.Discard}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d; the logs are in %s", set.seed, dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *proof) check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range p.wrong {
		t.Error(what)
	}
}

func TestTheCheckerCatchesEverySidecarThatBreaksAPromise(t *testing.T) {
	p := prepare(t)
	p.check(t, p.catch(context.Background(), context.Background()))
}

func TestNoHistoryBreaksAPromise(t *testing.T) {
	p := prepare(t)
	p.check(t, p.histories(context.Background(), context.Background()))
}

func TestBadFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-only", "nothing"}, {"more"}, {"-kills", "x"}} {
		if _, err := parseFlags(args); err == nil {
			t.Errorf("%v was taken", args)
		}
	}
}
