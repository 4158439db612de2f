package idempotency

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what a gate holds in memory. A zero field means its default.
type Limits struct {
	// Flights is the greatest number of calls under way at a time. Default: 4096.
	Flights int

	// Waiters is the greatest number of callers that wait at a time, the calls'
	// own callers included. Default: 16384.
	Waiters int
}

func (l Limits) withDefaults() Limits {
	if l.Flights == 0 {
		l.Flights = 4096
	}
	if l.Waiters == 0 {
		l.Waiters = 16384
	}
	return l
}

// trust is how long an upstream that honors keys is trusted to remember one,
// from its first use. The platform documents 24 hours.
const trust = 24 * time.Hour

// Gate lets each call through at most once, and tells the answer to everybody
// who repeats it. Where the store is not a SharedStore, all callers must go
// through one gate. A Gate is safe for concurrent use.
type Gate struct {
	store   Store
	shared  SharedStore // the store, if it is one; else nil
	backlog Backlog     // the store, if it is one; else nil
	clock   Clock
	process Process
	opened  time.Time
	limits  Limits
	log     *slog.Logger
	cache   atomic.Pointer[Cache]

	mu      sync.Mutex
	flights map[ID]*flight // guarded by mu
	waiters int            // guarded by mu

	// watchers are told when a flight of a call has landed.
	watchers map[ID][]chan struct{} // guarded by mu

	// lost has the claims under which a call was sent whose outcome could not
	// be recorded at all. Their records look as if they had not been used.
	lost map[Owner]lostCall // guarded by mu

	// unused has the claims that were given up before their calls were sent,
	// with when they expire. Only those may be sent again in a shared store,
	// which may have lost what was recorded since the claim.
	unused map[Owner]time.Time // guarded by mu

	unrecorded atomic.Int64 // outcomes that the store does not have yet
	insisting  atomic.Int64 // see insist
	drops      atomic.Int64 // how often something was to be dropped from the cache
	purging    sync.Mutex   // held by who purges the store

	bounds atomic.Pointer[Bounds] // of the backlog
	turns  *turns                 // nil: the store is no Backlog

	notes   notes
	orphans orphanage
	crew    *crew
	use     useCount
}

// NewGate returns a gate in front of store, which it takes over: Close closes
// it. A nil log discards.
func NewGate(store Store, limits Limits, log *slog.Logger) *Gate {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	g := &Gate{
		store:   store,
		process: NewProcess(),
		clock:   wallClock{},
		limits:  limits.withDefaults(),
		log:     log,
		flights: make(map[ID]*flight),
		lost:    make(map[Owner]lostCall),
		unused:  make(map[Owner]time.Time),
	}
	if clock, ok := store.(Clock); ok {
		g.clock = clock
	}
	g.opened = g.clock.Now()
	g.crew = newCrew(g.fly)
	if backlog := BacklogOf(store); backlog != nil {
		g.backlog = backlog
		g.turns = newTurns(g)
		backlog.OnEnqueue(g.turns.wake)
	}
	if shared, ok := store.(SharedStore); ok {
		g.shared = shared
		shared.OnDrop(g.drop)
		shared.Join(g.process, g.takeNotes)
	}
	return g
}

// SetCache makes c the gate's cache and returns the one before.
func (g *Gate) SetCache(c *Cache) *Cache { return g.cache.Swap(c) }

// Unrecorded returns how many calls are over whose outcome the store has not
// taken yet. Their callers have been answered.
func (g *Gate) Unrecorded() int64 { return g.unrecorded.Load() }

// Replay returns what the caller of the call with id is to be told, if the
// cache holds that: an outcome, or ErrKeyReused where r is another request than
// the one that was answered. Else it returns nil, from which nothing follows.
//
// It is a shortcut past all that Do needs to know of a call that may be sent.
func (g *Gate) Replay(id ID, r Request) (*Outcome, error) {
	now := g.clock.Now()
	e := g.cache.Load().entry(id, now)
	switch {
	case e == nil:
		return nil, nil
	case !e.isFor(r):
		return nil, ErrKeyReused
	default:
		return replay(e.Record, e.Fingerprint, now)
	}
}

// Do decides what becomes of call and returns what its caller is to be told.
// It returns when there is something to tell, or with ctx.Err() when ctx ends
// (see Call.Stays), which changes nothing about a call that has been claimed.
//
// Its other errors are ErrKeyReused, ErrInUse, ErrResultUnavailable,
// ErrOverloaded, ErrClosed, those that wrap ErrStore, and what the call's Prepare
// returned. With none of them was anything sent for this caller.
func (g *Gate) Do(ctx context.Context, call Call) (*Outcome, error) {
	if !g.use.enter() {
		return nil, ErrClosed
	}
	defer g.use.leave()
	if err := ctx.Err(); err != nil {
		return nil, err // who has left already is sent nothing for
	}

	if call.Key == "" {
		return g.doKeyless(ctx, call)
	}
	return g.doKeyed(ctx, call, false)
}

// doKeyed runs call, whose key is known. An adopter takes the place of the
// call's own caller: it waits as long as that would have.
func (g *Gate) doKeyed(ctx context.Context, call Call, adopter bool) (*Outcome, error) {
	for {
		if !call.Asked {
			now := g.clock.Now()
			if rec := g.cache.Load().Get(call.ID, now); rec != nil {
				return replay(rec, call.Fingerprint, now)
			}
		}
		call.Asked = false
		f, first, err := g.board(call)
		if err != nil {
			call.claiming.end()
			return nil, err
		}
		var out *Outcome
		here := first && g.mayStay(call, adopter)
		if here {
			if out, err = g.flyHere(ctx, f, call); errors.Is(err, errElsewhere) {
				here, call.recorded = false, true
			}
		}
		if !here {
			if first {
				g.crew.launch(f, call)
			}
			out, err = g.await(ctx, f, call, first, adopter)
			g.alight(f)
			if !first {
				if rec := g.overtaken(ctx, f, out); rec != nil {
					out, err = replay(rec, call.Fingerprint, g.clock.Now())
				}
			}
		}
		if errors.Is(err, errQueued) || out != nil && out.Fate == Pending && call.Later == nil {
			if err := g.awaitTurn(ctx, &call, adopter); err != nil {
				return nil, err
			}
			continue
		}
		if errors.Is(err, errAgain) || !first && ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, errTurnOver)) {
			continue // it was given up for its first caller, who has left, or whose turn was over
		}
		return out, err
	}
}

// errAgain makes doKeyed look again: the flight that was joined turned out to
// be another request's that claimed nothing.
var errAgain = errors.New("looking again")

// await waits for f on behalf of one caller.
func (g *Gate) await(ctx context.Context, f *flight, call Call, first, adopter bool) (*Outcome, error) {
	if call.Later != nil {
		return f.accept(ctx, call, first)
	}
	var expired <-chan time.Time
	var followed <-chan struct{}
	switch {
	case adopter:
	case first:
		followed = f.followed.signal()
	case call.Wait > 0:
		timer := time.NewTimer(call.Wait)
		defer timer.Stop()
		expired = timer.C
	}
	if !first {
		if err := f.admit(ctx, expired, call, !adopter && call.Wait <= 0); err != nil {
			return nil, err
		}
	}

	for {
		select {
		case <-f.done.signal():
			return f.outcome(first)
		case <-followed:
			// The first here, but not the first: it repeats a call that
			// another process was sent.
			followed = nil
			if call.Wait <= 0 {
				return nil, ErrInUse
			}
			timer := time.NewTimer(call.Wait)
			defer timer.Stop()
			expired = timer.C
		case <-expired:
			if !first || !f.ours.Load() {
				return nil, ErrInUse
			}
			expired = nil // its own call runs after all
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// board puts a caller on the flight of its call, and tells whether the caller
// is the first, who has to let it fly.
func (g *Gate) board(call Call) (f *flight, first bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.waiters >= g.limits.Waiters {
		return nil, false, ErrOverloaded
	}
	f, ok := g.flights[call.ID]
	if !ok {
		if len(g.flights) >= g.limits.Flights {
			return nil, false, ErrOverloaded
		}
		f = newFlight(call.ID, call.Fingerprint)
		g.flights[call.ID] = f
		g.use.mustEnter() // the caller holds the gate, so it cannot be closed
	}
	g.waiters++
	f.callers.Add(1)
	return f, !ok, nil
}

// alight takes a caller off a flight.
func (g *Gate) alight(f *flight) {
	g.mu.Lock()
	g.waiters--
	g.mu.Unlock()
	if f.callers.Add(-1) == 0 {
		f.deserted()
	}
}

// Close waits until no call is under way and then closes the store. Calls that
// come after it has begun may be refused with ErrClosed. If ctx ends first,
// Close returns its error and the store stays open.
func (g *Gate) Close(ctx context.Context) error {
	if err := g.use.drain(ctx); err != nil {
		return fmt.Errorf("waiting for calls under way: %w", err)
	}
	g.cache.Load().Close()
	if err := g.store.Close(); err != nil {
		return fmt.Errorf("closing store: %w", err)
	}
	return nil
}
