package pacing

import (
	"context"
	"time"
)

// Limits are a budget. A zero field does not limit.
type Limits struct {
	// Starts is how many calls may start in any period of the length Window.
	Starts int
	Window time.Duration

	// Burst is how many of them may start at once after a time with less to do;
	// then they start at even intervals. 0: a tenth of Starts, but at least 10.
	Burst int

	// Concurrency is how many calls may be under way at a time.
	Concurrency int
}

// Shared is a budget that several processes spend together.
type Shared interface {
	// Take asks for starts from the budget of name, and says how many calls are
	// under way in this process. Who takes is counted as one that shares the
	// budget for some seconds, and has to ask again within them, for nothing if
	// need be, while calls of its own are under way: else these are forgotten.
	Take(ctx context.Context, name string, limits Limits, ask Ask) (Grant, error)

	// Hold lets none of the processes start anything for d, and has the budget
	// lowered for a while to what was spent of it: the upstream has counted more.
	Hold(ctx context.Context, name string, limits Limits, d time.Duration) error
}

// Ask is what a process wants of a shared budget.
type Ask struct {
	// Want is how many calls could start; 0: none, the process only reports.
	Want int

	// Leave is how many more starts, and how many more places for calls at a
	// time, the budget must have left over for others at this moment, or nothing
	// is granted.
	Leave, LeaveConcurrency int

	// InFlight is how many of the process's calls are under way.
	InFlight int

	// Late are starts that were granted so long ago and have come only now: they
	// count from now on, as they do for the upstream.
	Late []time.Duration

	// Own are starts that the process has made by itself so long ago, from its
	// share, while the budget did not answer.
	Own []time.Duration
}

// Grant is what a process gets of a shared budget.
type Grant struct {
	// Starts is how many calls may start now, at most as many as were wanted.
	Starts int

	// Wait is how long it is until one more can start, as far as that is a matter
	// of time; 0: it is not, or could be at once.
	Wait time.Duration

	// Used is how many calls of all processes have started within the window, and
	// Limit of how many at present, which is less than Limits.Starts after a Hold.
	Used, Limit int

	// InFlight is how many calls of all processes are under way.
	InFlight int

	// Sharers is how many processes share the budget, this one included.
	Sharers int
}
