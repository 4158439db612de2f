// Command day plays a day of a contact centre's traffic against the sandbox with the
// platform's limit: without the sidecar, with it, and with it and pacing. It says what
// the callers of each kind saw, and what the platform did. From the repository's root:
//
//	go run ./test/day
//	go run ./test/day -quick
//	go run ./test/day -seed 7 -chart /tmp/day.svg
//
// It is played in simulated time (testing/synctest), which passes when everybody
// waits; a day takes about a minute. What is played is real all the same: Caddy runs
// with the app genesys, its store in memory and the handler genesys_cloud, and the
// sandbox answers. Only that a goroutine in simulated time cannot wait for a socket:
// callers call the handler, and the handler's transport the sandbox, within the
// process (sidecar.go, platform.go).
//
// # The traffic
//
// It is drawn from the seed, and the same for all three runs (traffic.go). Each caller
// is a scope of its own.
//
//   - Screen pops: three callers, each with a call every six seconds, day and night.
//     As the Go SDK they send no key, lose patience after 16 s, and try three times.
//   - Agents' scripts: four callers, together 6 calls a minute at night, 80 from half
//     past seven to eight in the evening, 150 at the peaks of half past ten and half
//     past three. They lose patience after 30 s and try four times.
//   - An hourly job and hourly reports: 400 to 600 calls within a second at the top of
//     each hour. Two fifths are the job, whose callers wait for up to ten minutes. The
//     reports need no answer at once: where they are paced they are handed over
//     (Prefer: respond-async), and their callers ask for the answers.
//   - A noisy neighbour: at each peak, for a quarter of an hour, calls at ten times a
//     fair share of the budget, which alone are the budget. It loses patience after a
//     minute, and whatever the error tries again at once, up to 20 times.
//
// All but the first send an Idempotency-Key, and all but the last wait before they
// try again: for as long as Retry-After says, but at least for about a second, twice
// that the next time, and so on. They try again after a 429, a 5xx and a 409, and
// where they lost patience. An action runs for 0.2 to 1.5 s, mostly for less than
// half a second; the sandbox honours no key for them.
//
// -quick is an hour at noon, with two bursts of the job and five minutes of noise.
//
// # The platform
//
// The sandbox admits 300 requests a minute for the token, and answers what is beyond
// that with 429 and a Retry-After, as the platform does. The 50 executions at once
// that the platform allows it does not enforce, which is in favour of the runs without
// pacing: how many there were is counted.
//
// # What is told
//
// A call that was given up took for ever: where that is more than one in a hundred,
// 99 % were answered "never". What came too late are requests that their callers lost
// patience with. Beside the noisy neighbour is a call that came while it was noisy or
// within five minutes after; beside the job, within six minutes of its beginning.
//
// The exit status is 1 if something is not as it must be (run.wrong): with pacing, no
// request is beyond the limit, and nobody but the noisy neighbour sees a 429, loses
// patience or gives up; 99 % of screen pops are answered within twice as long beside
// it as else; nothing is executed twice; and without, there are 429s, since else the
// traffic would show nothing.
//
// The traffic can be repeated to the letter, the numbers almost: the order of what
// happens at the same instant is up to Go's scheduler, and the sidecar's jitter is
// random.
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
	short := flags.Bool("quick", false, "an hour only")
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
