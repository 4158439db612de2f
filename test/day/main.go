// Command day plays a day of a contact centre's traffic against the sandbox, with the
// platform's limit of 300 requests a minute: without the sidecar, with it, and with it
// and pacing. It is played in simulated time and takes about two minutes. From the
// repository's root:
//
//	go run ./test/day
//	go run ./test/day -quick
//	go run ./test/day -seed 7 -chart /tmp/day.svg
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"testing"
)

func main() {
	set, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "day:", err)
		os.Exit(2)
	}
	// Simulated time is had in a test alone, which this makes of it. It exits.
	os.Args = os.Args[:1]
	testing.Main(func(string, string) (bool, error) { return true, nil },
		[]testing.InternalTest{{Name: "day", F: func(t *testing.T) { playAll(t, set, os.Stdout) }}}, nil, nil)
}

// settings are what the command line says.
type settings struct {
	scenario scenario
	chart    string
}

func parseFlags(args []string) (set settings, err error) {
	flags := flag.NewFlagSet("day", flag.ContinueOnError)
	seed := flags.Uint64("seed", 1, "what the calls are drawn from")
	short := flags.Bool("quick", false, "an hour at a peak only")
	flags.StringVar(&set.chart, "chart", "", "a file that an SVG is written to")
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	if flags.NArg() > 0 {
		return set, fmt.Errorf("reading the command line: %q is no flag", flags.Arg(0))
	}
	set.scenario = day(*seed)
	if *short {
		set.scenario = quick(*seed)
	}
	return set, nil
}

// playAll plays the scenario in all modes and prints what came of it.
func playAll(t *testing.T, set settings, out io.Writer) {
	var all report
	for _, m := range modes {
		r := play(t, set.scenario, m)
		for _, wrong := range r.wrong() {
			t.Error(wrong)
		}
		all.runs = append(all.runs, r)
	}
	all.print(out)
	if set.chart == "" {
		return
	}
	if err := os.WriteFile(set.chart, []byte(all.chart()), 0o644); err != nil {
		t.Errorf("writing the chart: %v", err)
	}
}
