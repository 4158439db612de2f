// Command proof shows that the promises hold, and that the checks of that can
// fail. From the repository's root:
//
//	go run ./test/proof
//	go run ./test/proof -quick
//	go run ./test/proof -only histories -seed 7
//
// It records what clients see of real sidecars that are killed all the time, with
// each store, and judges it (package history); has the same checker catch sidecars
// that break a promise each (mutants.go); and kills sidecars at exact points of a
// call (test/failpoint_test.go). The exit status is 1 if anything is wrong.
//
// It needs Go and redis-server, and with -race a C compiler. Everything listens on
// loopback and lives in a temporary directory, which is kept if something is
// wrong. Ctrl-C ends the calls early and goes on with the checks; once more ends
// everything.
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
)

// settings are what the command line says.
type settings struct {
	quick      bool
	only       string
	seed       uint64
	operations int64
	kills      int64
	duration   time.Duration
	mutant     string
	race       bool
	keep       bool
}

// parts are what a proof consists of.
var parts = []string{"failpoints", "mutants", "histories"}

func main() {
	set, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(2)
	}
	ctx, interrupted := context.WithCancel(context.Background())
	defer interrupted()
	aborting, aborted := context.WithCancel(context.Background())
	defer aborted()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		interrupted()
		<-signals
		aborted()
	}()
	if err := prove(ctx, aborting, set, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

// parseFlags reads the command line.
func parseFlags(args []string) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("proof", flag.ContinueOnError)
	flags.BoolVar(&set.quick, "quick", false, "much less of each, as the tests do")
	flags.StringVar(&set.only, "only", strings.Join(parts, ","), "the parts to run")
	flags.Uint64Var(&set.seed, "seed", 0, "what schedules and calls are drawn from; 0: anything")
	flags.Int64Var(&set.operations, "operations", 0, "how many operations are recorded at least (default 1000000; quick: 30000)")
	flags.Int64Var(&set.kills, "kills", 0, "how many times a sidecar is killed at least (default 500; quick: 15)")
	flags.DurationVar(&set.duration, "duration", 8*time.Minute, "how long a store's history may take")
	flags.StringVar(&set.mutant, "mutant", "", "a part of the name of the mutants to catch")
	flags.BoolVar(&set.race, "race", false, "build the sidecar of the histories with the race detector")
	flags.BoolVar(&set.keep, "keep", false, "keep the directory with the logs, whatever comes out")
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	if flags.NArg() > 0 {
		return set, fmt.Errorf("reading the command line: %q is no flag", flags.Arg(0))
	}
	for part := range strings.SplitSeq(set.only, ",") {
		if !slices.Contains(parts, part) {
			return set, fmt.Errorf("reading the command line: there is no part %q; there are %s", part, strings.Join(parts, ", "))
		}
	}
	for set.seed == 0 {
		set.seed = rand.Uint64()
	}
	if set.operations == 0 {
		set.operations = 1_000_000
		if set.quick {
			set.operations = 30_000
		}
	}
	if set.kills == 0 {
		set.kills = 500
		if set.quick {
			set.kills = 15
		}
	}
	return set, nil
}

// command is how a part is run again.
func (s settings) command(part string) string {
	text := fmt.Sprintf("go run ./test/proof -only %s -seed %d -operations %d -kills %d", part, s.seed, s.operations, s.kills)
	if s.race {
		text += " -race"
	}
	return text
}

// proof is one run of all parts.
type proof struct {
	set     settings
	dir     string
	out     io.Writer // everything
	verdict io.Writer // what came out
	wrong   []string
}

// prove runs the parts and says what came of them.
func prove(ctx, aborting context.Context, set settings, out io.Writer) (err error) {
	p := &proof{set: set, out: out}
	if p.dir, err = os.MkdirTemp("", "genesys-sidecar-proof-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	verdict, err := os.Create(filepath.Join(p.dir, "verdict"))
	if err != nil {
		return fmt.Errorf("making a log: %w", err)
	}
	defer verdict.Close()
	p.verdict = verdict
	fmt.Fprintf(out, "seed %d\n", set.seed)
	for _, part := range parts {
		if !slices.Contains(strings.Split(set.only, ","), part) {
			continue
		}
		start := time.Now()
		switch part {
		case "failpoints":
			err = p.failpoints(ctx)
		case "mutants":
			err = p.catch(ctx, aborting)
		default:
			err = p.histories(ctx, aborting)
		}
		if err != nil {
			return fmt.Errorf("%w (the logs are in %s)", err, p.dir)
		}
		p.say("%s took %v", part, time.Since(start).Round(time.Second))
	}
	text, err := os.ReadFile(verdict.Name())
	if err != nil {
		return fmt.Errorf("reading a log: %w", err)
	}
	fmt.Fprintf(out, "\n%s", text)
	if len(p.wrong) > 0 {
		return fmt.Errorf("%d things are wrong; the logs are in %s; to repeat: %s", len(p.wrong), p.dir, set.command(set.only))
	}
	if set.keep {
		fmt.Fprintf(out, "the logs are in %s\n", p.dir)
		return nil
	}
	return os.RemoveAll(p.dir)
}

// say adds a line to the verdict.
func (p *proof) say(format string, args ...any) {
	fmt.Fprintf(io.MultiWriter(p.out, p.verdict), format+"\n", args...)
}

// fail adds what is wrong with a part to the verdict.
func (p *proof) fail(part string, what []string) {
	for _, w := range what {
		p.wrong = append(p.wrong, w)
		p.say("WRONG: %s: %s", part, w)
	}
}
