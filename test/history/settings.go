package history

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"
)

// Store is what keeps the answers of the sidecars under test.
type Store string

// The stores. Sidecars that share Redis are a fleet.
const (
	Disk   Store = "disk"
	Memory Store = "memory"
	Redis  Store = "redis"
)

// Settings are what a run is made of. The zero value of a field is its default.
type Settings struct {
	// Store is the store. Default: Disk.
	Store Store

	// Binary is the sidecar.
	Binary string

	// Seed is what the schedule and the calls are drawn from. Default: random.
	Seed uint64

	// Duration is how long calls are made at the most. Default: a minute.
	Duration time.Duration

	// Operations and Kills are after how many of both the run ends early.
	// Default: it does not.
	Operations, Kills int64

	// Sidecars is how many there are. Default: 3 that share Redis, else 1.
	Sidecars int

	// Clients is how many make calls at a time. Default: 24.
	Clients int

	// Rate is how many requests a second they send at the most. Default: no bound.
	Rate int

	// Every is the mean time between two events. Default: 2 s.
	Every time.Duration

	// Events are those that may happen. Default: all that fit the store.
	Events []Deed

	// Faults are what the upstream does to calls. Default: Faults.
	Faults []Fault

	// Dir is where the logs, the ledger and the evidence go; it must be there.
	Dir string

	// Out gets the progress. Default: nobody.
	Out io.Writer

	// Repeat is how to run it again, for reports.
	Repeat string

	// UntilWrong ends the run with the first violation.
	UntilWrong bool

	// Debug has the sidecars log what they do.
	Debug bool
}

func (s Settings) withDefaults() (Settings, error) {
	if s.Store == "" {
		s.Store = Disk
	}
	if s.Sidecars == 0 {
		s.Sidecars = 1
		if s.Store == Redis {
			s.Sidecars = 3
		}
	}
	for s.Seed == 0 {
		s.Seed = rand.Uint64()
	}
	if s.Duration == 0 {
		s.Duration = time.Minute
	}
	if s.Clients == 0 {
		s.Clients = 24
	}
	if s.Every == 0 {
		s.Every = 2 * time.Second
	}
	if s.Out == nil {
		s.Out = io.Discard
	}
	if s.Faults == nil {
		s.Faults = Faults
	}
	if s.Events == nil {
		s.Events = []Deed{KillSidecar, StopSidecar, PauseSidecar, ReloadSidecar}
		if s.Store == Redis {
			s.Events = append(s.Events, KillRedis, PauseRedis)
		}
	}
	switch {
	case s.Store != Disk && s.Store != Memory && s.Store != Redis:
		return s, fmt.Errorf("there is no store %q", s.Store)
	case s.Store != Redis && s.Sidecars != 1:
		return s, fmt.Errorf("%d sidecars cannot share a store %s", s.Sidecars, s.Store)
	case s.Every < 100*time.Millisecond || s.Duration < time.Second:
		return s, errors.New("a run takes a second or more, and 100 ms or more from event to event")
	}
	return s, nil
}
