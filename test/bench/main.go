// Command bench measures what the sidecar costs, against programs that people
// would otherwise use. From the repository's root:
//
//	go run ./test/bench
//
// It starts everything that it compares on free ports of loopback: the sidecar
// with each of its stores, Caddy without the sidecar's module at work (the same
// binary with another Caddyfile) and, where they are installed, nginx, Varnish
// and a program such as tutorials show. It needs nothing but Go; what is not
// installed is left out, and the output says which packages would add it.
//
// Contenders are driven in turn, A B A B and so on, and compared within each
// round: a machine that is slow for a moment is slow for both. A ratio is the
// median of the rounds' ratios, and stands beside the lowest and the highest.
//
// A full run writes results.md and chart.svg into the directory that -out
// names. To read the program, follow a section (section_replay.go is the
// simplest) into duel.go, which drives contenders, and load.go, which sends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// settings are what the command line says.
type settings struct {
	rounds      int
	duration    time.Duration // of one contender's turn
	connections int
	run         *regexp.Regexp
	out         string // where the results go; empty: nowhere
	keep        bool
	quick       bool
}

// section is one question that the program can answer.
type section struct {
	name, about string
	run         func(*bench, context.Context) error
}

// sections are all questions, in the order in which they are put. The last two
// share a store of a million records, if both are asked for.
var sections = []section{
	{"replay", "an answer told again", (*bench).sectionReplay},
	{"fresh", "a call that runs", (*bench).sectionFresh},
	{"tls", "a call that runs at an upstream with TLS", (*bench).sectionTLS},
	{"latency", "what a fresh call waits for at a steady rate", (*bench).sectionLatency},
	{"allocations", "heap allocations per request", (*bench).sectionAllocations},
	{"memory", "heap and disk space for stored answers", (*bench).sectionMemory},
	{"waiters", "a thousand callers of one call", (*bench).sectionWaiters},
	{"connections", "growth with the number of connections", (*bench).sectionConnections},
	{"bodies", "growth with the size of bodies", (*bench).sectionBodies},
	{"records", "growth with the number of records", (*bench).sectionRecords},
	{"start", "the start with many records", (*bench).sectionStart},
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == upstreamCommand {
		if err := serveUpstream(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	set, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, set)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// parseFlags reads the command line.
func parseFlags(args []string) (settings, error) {
	var set settings
	var pattern string
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&set.rounds, "rounds", 5, "how many turns each contender has")
	flags.DurationVar(&set.duration, "duration", 3*time.Second, "how long one turn takes")
	flags.IntVar(&set.connections, "connections", 64, "how many connections send at a time")
	flags.StringVar(&pattern, "run", "", "only the sections whose name matches this `regexp`")
	flags.StringVar(&set.out, "out", filepath.Join("test", "bench"),
		"`directory` for results.md and chart.svg; a run with -quick or -run\nwrites them only if this is given")
	flags.BoolVar(&set.keep, "keep", false, "keep the temporary directory: configurations, logs, stores")
	flags.BoolVar(&set.quick, "quick", false, "a smoke test: everything, but briefly, with fewer records")
	flags.Usage = func() {
		fmt.Fprintf(flags.Output(), "Usage, from the repository's root: go run ./test/bench [flags]\n\n")
		flags.PrintDefaults()
		fmt.Fprintf(flags.Output(), "\nStores are kept where TMPDIR says. It should be on a real disk.\n\nSections:\n")
		for _, s := range sections {
			fmt.Fprintf(flags.Output(), "  %-12s %s\n", s.name, s.about)
		}
	}
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	if flags.NArg() > 0 {
		return set, fmt.Errorf("reading the command line: %q is no flag", flags.Arg(0))
	}
	given := map[string]bool{}
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if set.quick {
		if !given["rounds"] {
			set.rounds = 2
		}
		if !given["duration"] {
			set.duration = 300 * time.Millisecond
		}
	}
	if (set.quick || given["run"]) && !given["out"] {
		set.out = ""
	}
	if set.rounds < 1 || set.connections < 1 || set.duration <= 0 {
		return set, errors.New("reading the command line: -rounds, -connections and -duration must be positive")
	}
	var err error
	if set.run, err = regexp.Compile(pattern); err != nil {
		return set, fmt.Errorf("reading the command line: %w", err)
	}
	return set, nil
}

// run measures what was asked for, and reports it.
func run(ctx context.Context, set settings) (err error) {
	b, err := newBench(ctx, set)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	began := time.Now()
	asked := 0
	for _, s := range sections {
		if !set.run.MatchString(s.name) {
			continue
		}
		asked++
		b.progress("== %s: %s", s.name, s.about)
		if err := s.run(b, ctx); err != nil {
			// What is known by now may have taken long to find out.
			fmt.Printf("\n%s\n", b.report.markdown())
			return fmt.Errorf("measuring %s: %w", s.name, err)
		}
		b.stopServers()
	}
	if asked == 0 {
		return fmt.Errorf("choosing sections: none matches %q", set.run)
	}
	b.report.took = time.Since(began)
	text := b.report.markdown()
	if _, err := fmt.Print("\n" + text); err != nil {
		return fmt.Errorf("printing the results: %w", err)
	}
	if set.out == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(set.out, "results.md"), []byte(text), 0o644); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	if len(b.report.targets)+len(b.report.growths) == 0 {
		return nil
	}
	if err := os.WriteFile(filepath.Join(set.out, "chart.svg"), []byte(b.report.chart()), 0o644); err != nil {
		return fmt.Errorf("writing the chart: %w", err)
	}
	return nil
}

// progress tells whoever waits what is going on.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, strings.TrimRight(format, "\n")+"\n", args...)
}
