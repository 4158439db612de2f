// Command soak has a fleet of sidecars, and the Redis that they share, killed,
// stopped and paused at random while clients make calls, and ends with a verdict:
// nothing ran twice, and no answer changed. From the repository's root:
//
//	go run ./test/soak                    # ten minutes
//	go run ./test/soak -duration 2m -seed 7
//
// It needs Go and redis-server, and a C compiler for the race detector, without
// which it goes on without that. Everything listens on loopback and lives in a
// temporary directory, which is kept if something is wrong. The exit status is 1
// then.
//
// It prints a seed first. The seed alone decides what is done to whom and when
// (schedule.go); when a call meets it is up to the machine, so that a seed brings
// back the circumstances of a failure, not every time the failure.
//
// # What is checked
//
// Clients repeat each call at random sidecars, several at a time now and then,
// leave before they are answered, and come back to old keys (keyed.go,
// keyless.go). The upstream is the sandbox, whose ledger says what ran. Then
//
//   - no body, of which each call has its own, has more than one effect; where keys
//     are ignored, none is sent again once it may have run; and each key goes up
//     as it is (effects.go). Calls without a key are repeated only after their
//     caller has left, and may run again only after an answer was delivered;
//   - what a key was answered once it is answered ever after, byte for byte, and
//     what was known once does not become unknown (history.go);
//   - what is told to have run did run, as what it is told to be, and what is told
//     not to have run did not;
//   - when all is over, each sidecar serves, without a restart, and each key that
//     ran is answered for without running again (finish.go);
//   - no sidecar ends by itself, and no log has a data race or a panic in it.
//
// It prints each event when it is over, and how far it is every ten seconds. The
// directory has the schedule, the report, the ledger, and the logs of all.
//
// Ctrl-C ends the calls early and goes on with the checks at the end; once more
// ends everything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings are what the command line says.
type settings struct {
	duration time.Duration
	seed     uint64
	sidecars int
	clients  int
	rate     int
	every    time.Duration
	binary   string
	keep     bool
	debug    bool
}

func main() {
	set, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
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
	fmt.Printf("soak: seed %d; to repeat: %s\n", set.seed, set.command())
	if err := run(ctx, aborting, set); err != nil {
		fmt.Fprintf(os.Stderr, "soak: %v\nsoak: seed %d; to repeat: %s\n", err, set.seed, set.command())
		os.Exit(1)
	}
}

// parseFlags reads the command line.
func parseFlags(args []string) (settings, error) {
	var set settings
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&set.duration, "duration", 10*time.Minute, "how long calls are made")
	flags.Uint64Var(&set.seed, "seed", 0, "what the schedule is drawn from; 0: anything")
	flags.IntVar(&set.sidecars, "sidecars", 3, "how many share the store")
	flags.IntVar(&set.clients, "clients", 24, "how many make calls at a time")
	flags.IntVar(&set.rate, "rate", 250, "how many requests a second they send at the most")
	flags.DurationVar(&set.every, "every", 2*time.Second, "the mean time between two events of the schedule")
	flags.StringVar(&set.binary, "binary", "", "the sidecar to use, in place of one that is built")
	flags.BoolVar(&set.keep, "keep", false, "keep the directory with the logs, whatever comes out")
	flags.BoolVar(&set.debug, "debug", false, "have the sidecars log what they do")
	if err := flags.Parse(args); err != nil {
		return set, err
	}
	for set.seed == 0 {
		set.seed = rand.Uint64()
	}
	switch {
	case flags.NArg() > 0:
		return set, fmt.Errorf("reading the command line: %q is no flag", flags.Arg(0))
	case set.sidecars < 2 || set.clients < 1 || set.rate < 1:
		return set, errors.New("reading the command line: it takes two sidecars, a client and a request a second")
	case set.duration < time.Second || set.every < 100*time.Millisecond:
		return set, errors.New("reading the command line: -duration is a second or more, -every 100ms or more")
	}
	return set, nil
}

// command is how the same schedule is run again.
func (s settings) command() string {
	return fmt.Sprintf("go run ./test/soak -duration %v -seed %d -sidecars %d -clients %d -rate %d -every %v",
		s.duration, s.seed, s.sidecars, s.clients, s.rate, s.every)
}
