package main

import (
	"errors"
	"fmt"
	"time"
)

// settings are what a run is made of.
type settings struct {
	duration time.Duration
	store    string
	rate     int // requests a second
	seed     uint64
	binary   string
	given    bool   // the binary was not built for the run
	mutant   string // a part of the name of those to soak
	keep     bool
}

const (
	// shippedSweep is how often the disk store sweeps, and swiftSweep how often it
	// does in short runs. Of the other stores nothing is left after a second.
	shippedSweep = time.Minute
	swiftSweep   = time.Second

	// longest is how long answers are kept, and calls may take, in long runs.
	longest = 30 * time.Second
)

// sweep is how often the store is rid of what is no longer kept. A disk store that
// sweeps as it ships is for long runs.
func (s settings) sweep() time.Duration {
	if s.store == "disk" && (s.given || s.duration >= 5*shippedSweep) {
		return shippedSweep
	}
	return swiftSweep
}

// retention is how long answers are kept.
func (s settings) retention() time.Duration {
	return min(longest, (s.duration / 10).Truncate(100*time.Millisecond))
}

// deadline is how long a call may take. A disk store looks at a record when it would
// expire if its call had taken that long.
func (s settings) deadline() time.Duration {
	if s.store != "disk" {
		return longest
	}
	return min(longest, max(5*time.Second, 2*s.retention()))
}

// warmUp is when the steady state begins at the latest.
func (s settings) warmUp() time.Duration {
	settled := s.retention() + 2*s.sweep()
	if s.store == "disk" {
		settled += s.deadline()
	}
	return max(s.duration/4, settled)
}

func (s settings) check() error {
	switch {
	case s.store != "disk" && s.store != "memory" && s.store != "redis":
		return fmt.Errorf("there is no store %q", s.store)
	case s.rate < 1:
		return errors.New("a rate is one request a second or more")
	case s.duration < 16*time.Second, s.warmUp() > s.duration/2:
		return fmt.Errorf("a run of %v is too short for a store that sweeps every %v", s.duration, s.sweep())
	}
	return nil
}

// command is how the run is repeated.
func (s settings) command() string {
	return fmt.Sprintf("go run ./test/soak -duration %v -store %s -rate %d -seed %d", s.duration, s.store, s.rate, s.seed)
}
