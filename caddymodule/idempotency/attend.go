package idempotency

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// In a store that others see, it stands with each keyless call who has a caller
// for it, under a token that is new with each caller: a call that somebody
// attends to elsewhere is no orphan. Within a process, the wards know.

// attendance returns a token for the caller of a keyless call.
func (g *Gate) attendance(call Call) Owner {
	if g.shared == nil || call.Adoption == (AdoptionID{}) {
		return Owner{}
	}
	return g.process.NewOwner()
}

// leavers are callers that have left and of whom the store does not know that
// yet. Others ask for a sign of life before they take a caller for present, and
// before each the leavers are noted.
type leavers struct {
	mu      sync.Mutex
	records map[Owner]ID // guarded by mu; what each has left, by its token
}

func (l *leavers) add(attendant Owner, id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records == nil {
		l.records = make(map[Owner]ID)
	}
	l.records[attendant] = id
}

func (l *leavers) remove(attendant Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.records, attendant)
}

func (l *leavers) all() map[Owner]ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.records)
}

// unattend notes that the caller of call has left. Where the store does not
// answer, that is done before the next sign of life.
func (g *Gate) unattend(call Call) {
	if call.attendant == (Owner{}) {
		return
	}
	g.leavers.add(call.attendant, call.ID)
	if !g.use.enter() {
		return // the store is closed
	}
	go func() {
		defer g.use.leave()
		g.noteLeaver(context.Background(), call.attendant, call.ID)
	}()
}

// unattendNow is unattend, and has noted it when it returns, if the store
// answers before ctx ends.
func (g *Gate) unattendNow(ctx context.Context, call Call) {
	if call.attendant == (Owner{}) {
		return
	}
	g.leavers.add(call.attendant, call.ID)
	g.noteLeaver(ctx, call.attendant, call.ID)
}

// noteLeaver notes that the caller with the token attendant has left the call
// with id.
func (g *Gate) noteLeaver(ctx context.Context, attendant Owner, id ID) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if _, err := g.shared.Attend(ctx, id, attendant, Owner{}); err != nil {
		g.log.Debug("noting that a caller has left", slog.String("id", id.String()), slog.Any("error", err))
		return
	}
	g.leavers.remove(attendant)
}

// noteLeavers notes all who have left and are not noted yet.
func (g *Gate) noteLeavers(ctx context.Context) error {
	for attendant, id := range g.leavers.all() {
		if _, err := g.shared.Attend(ctx, id, attendant, Owner{}); err != nil {
			return fmt.Errorf("noting that a caller has left: %w", err)
		}
		g.leavers.remove(attendant)
	}
	return nil
}

// lives is what was found out about other processes during one look. The
// zero value of a gate whose store is not shared knows of none.
type lives struct {
	gate  *Gate
	known map[Process]Life
}

// of returns the life of p; of the gate's own process, that it lives.
func (l *lives) of(ctx context.Context, p Process) (Life, error) {
	if p == l.gate.process {
		return Life{Alive: true}, nil
	}
	if life, ok := l.known[p]; ok {
		return life, nil
	}
	life, err := l.gate.shared.Life(ctx, p)
	if err != nil {
		return Life{}, storeError(err)
	}
	if l.known == nil {
		l.known = make(map[Process]Life)
	}
	l.known[p] = life
	return life, nil
}

// attendedElsewhere tells whether another process that lives has a caller for
// rec.
func (l *lives) attendedElsewhere(ctx context.Context, rec *Record) (bool, error) {
	p := rec.Attendant.Process()
	if l.gate.shared == nil || rec.Attendant == (Owner{}) || p == l.gate.process {
		return false, nil
	}
	life, err := l.of(ctx, p)
	return life.Alive, err
}

// endOf returns when, at the latest, the processes that are named in rec and
// gone can have done something for it: from then on its caller could notice.
func (l *lives) endOf(ctx context.Context, rec *Record) (time.Time, error) {
	g := l.gate
	if g.shared == nil {
		if rec.Owner.Process() == g.process {
			return time.Time{}, nil
		}
		return g.opened, nil // its callers could not come back before
	}
	var end time.Time
	for _, o := range []Owner{rec.Owner, rec.Attendant} {
		if o == (Owner{}) || o.Process() == g.process {
			continue
		}
		life, err := l.of(ctx, o.Process())
		if err != nil {
			return time.Time{}, err
		}
		seen := life.Seen
		if !life.Alive && seen.Before(g.opened) && g.opened.Sub(seen) < staleOrphan {
			seen = g.opened // this process may be the other's, started anew
		}
		if !life.Alive && seen.After(end) {
			end = seen
		}
	}
	return end, nil
}

// awaitSigns waits until each of the processes has shown that it still lived
// after the wait began, or is known to be gone.
func (g *Gate) awaitSigns(ctx context.Context, processes []Process) error {
	slices.SortFunc(processes, func(a, b Process) int { return slices.Compare(a[:], b[:]) })
	for _, p := range slices.Compact(processes) {
		if _, err := g.shared.Ping(ctx, p); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return storeError(err)
		}
	}
	return nil
}
