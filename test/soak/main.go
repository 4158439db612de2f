// Command soak runs the sidecar under a steady mixed load and fails if it grows:
// its heap, its memory, its goroutines, its open files, or its store. From the
// repository's root:
//
//	go run ./test/soak
//	go run ./test/soak -duration 1h -store redis -rate 300
//	go run ./test/soak -mutants
//
// The load (load.go) has everything that takes something and has to give it back:
// new calls of both families, repeats, duplicates in flight, keys used for
// something else, callers without a key that leave, an upstream that is slow, fails
// and cuts connections, tokens that expire, answers too large to keep, what is only
// proxied, and reloads. Every answer is looked at, though not as closely as package
// history does. Answers are kept for a short time, so that there is a steady state.
//
// # What counts as growing
//
// A sample of everything is taken each second; the heap's after a collection. The
// first part of a run is the warm-up: a quarter of it, and at the least as long as an
// answer may stay in the store, with two of its sweeps. What follows has to be flat. Of a series
// there, three estimates are made of how much it grew from end to end:
//
//   - by the Theil-Sen slope, which is the median of the slopes between all pairs of
//     samples;
//   - by the rise from the median of its first third to that of its last, times one
//     and a half;
//   - by the rises from the first third to the second, and from the second to the
//     last, times three.
//
// They are the same if it grows evenly. It grows if the first two are more than is
// allowed, and both of the third more than half of that. Allowed is a share of the
// first third's median, and at the least an amount of its own (metrics.go). None of
// them minds spikes, for they are of medians; the first does not mind a wave, nor
// the third a single step, such as a cache that is filled late. A leak raises them
// all. How fast the machine is does not enter into it, only how much was kept.
//
// That the rule catches leaks is shown by -mutants, which builds sidecars with one
// each (mutants.go). The exit status is 1 if something grew, or an answer was not
// what it should be.
//
// It needs Go and Linux, and with -store redis redis-server. Everything listens on
// loopback and lives in a temporary directory, which is kept if something is wrong.
// Ctrl-C ends the run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"genesys-sidecar/test/overlay"
)

func main() {
	set, mutants, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if mutants {
		err = soakMutants(ctx, set, os.Stdout)
	} else {
		err = soakOnce(ctx, set, os.Stdout)
	}
	if err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// parseFlags reads the command line.
func parseFlags(args []string) (set settings, mutants bool, err error) {
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&set.duration, "duration", 10*time.Minute, "how long it runs; for a mutant 40s are enough")
	flags.StringVar(&set.store, "store", "disk", "disk, memory or redis")
	flags.IntVar(&set.rate, "rate", 150, "how many requests are made a second")
	flags.Uint64Var(&set.seed, "seed", 0, "what the calls are drawn from; 0: anything")
	flags.StringVar(&set.binary, "binary", "", "the sidecar; it is built if none is given")
	flags.BoolVar(&mutants, "mutants", false, "soak sidecars that leak, 40s each unless -duration says otherwise; each has to fail")
	flags.StringVar(&set.mutant, "mutant", "", "a part of the name of the mutants to soak")
	flags.BoolVar(&set.keep, "keep", false, "keep the directory with the log, whatever comes out")
	if err := flags.Parse(args); err != nil {
		return set, false, err
	}
	if flags.NArg() > 0 {
		return set, false, fmt.Errorf("reading the command line: %q is no flag", flags.Arg(0))
	}
	set.given = set.binary != ""
	mutants = mutants || set.mutant != ""
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if mutants {
		if given["binary"] || given["store"] {
			return set, false, errors.New("reading the command line: mutants have a binary and a store of their own")
		}
		if !given["duration"] {
			set.duration = 40 * time.Second
		}
	}
	if !slices.ContainsFunc(candidates(), func(m mutant) bool { return strings.Contains(m.name, set.mutant) }) {
		return set, false, fmt.Errorf("reading the command line: there is no mutant %q", set.mutant)
	}
	for set.seed == 0 {
		set.seed = rand.Uint64()
	}
	return set, mutants, set.check()
}

// soakOnce runs the sidecar as it is, and says what came out.
func soakOnce(ctx context.Context, set settings, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "genesys-sidecar-soak-")
	if err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	defer func() {
		if err == nil && !set.keep {
			err = os.RemoveAll(dir)
			return
		}
		fmt.Fprintf(out, "\nthe sidecar's log is in %s\n", dir)
	}()
	if !set.given {
		if set.binary, err = set.build(ctx, dir); err != nil {
			return err
		}
	}
	report, err := soak(ctx, set, dir, out)
	if err != nil {
		return err
	}
	report.print(out)
	if wrong := report.wrong(); len(wrong) > 0 {
		return fmt.Errorf("%s; to repeat: %s", strings.Join(wrong, "; "), set.command())
	}
	return nil
}

// build builds the sidecar, with edits if there are any, in dir. For a short run, its
// disk store sweeps more often and gathers less in memory: else nothing that it writes
// would reach a table, or leave one, within the run.
func (s settings) build(ctx context.Context, dir string, edits ...overlay.Edit) (binary string, err error) {
	if s.store == "disk" && s.sweep() == swiftSweep {
		edits = append(edits, overlay.Edit{
			File: "caddymodule/store/disk/open.go",
			Old:  "const DefaultSweepInterval = time.Minute",
			New:  "const DefaultSweepInterval = time.Second",
		}, overlay.Edit{
			File: "caddymodule/store/disk/open.go",
			Old:  "\tmemTableSize = 8 << 20",
			New:  "\tmemTableSize = 256 << 10",
		})
	}
	binary = filepath.Join(dir, "genesys-sidecar")
	return binary, overlay.Build(ctx, dir, binary, false, edits...)
}
