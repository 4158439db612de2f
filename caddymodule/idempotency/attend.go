package idempotency

import (
	"context"
	"errors"
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

// notes are what has become of callers and the store does not know yet: that one
// has left, or has its answer. Others ask for a sign of life before they take a
// caller for present, and before each the notes are taken to the store.
type notes struct {
	leaving noteSet // whom a caller has left, by its token
	settled noteSet // what was delivered, by the token of its claim
}

// noteSet is notes of one kind: the IDs of records, by tokens.
type noteSet struct {
	mu  sync.Mutex
	ids map[Owner]ID // guarded by mu
}

func (n *noteSet) add(token Owner, id ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ids == nil {
		n.ids = make(map[Owner]ID)
	}
	n.ids[token] = id
}

func (n *noteSet) remove(token Owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.ids, token)
}

func (n *noteSet) has(token Owner) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.ids[token]
	return ok
}

func (n *noteSet) all() map[Owner]ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.ids)
}

// unattend notes that the caller of call has left. Where the store does not
// answer, it is told before the next sign of life.
func (g *Gate) unattend(call Call) {
	if call.attendant == (Owner{}) {
		return
	}
	g.notes.leaving.add(call.attendant, call.ID)
	if !g.use.enter() {
		return // the store is closed
	}
	go func() {
		defer g.use.leave()
		g.noteLeaving(context.Background(), call.attendant, call.ID)
	}()
}

// unattendNow is unattend, and the store knows it when it returns, if it answers
// before ctx ends.
func (g *Gate) unattendNow(ctx context.Context, call Call) {
	if call.attendant == (Owner{}) {
		return
	}
	g.notes.leaving.add(call.attendant, call.ID)
	g.noteLeaving(ctx, call.attendant, call.ID)
}

// noteLeaving tells the store that the caller with the token attendant has left
// the call with id.
func (g *Gate) noteLeaving(ctx context.Context, attendant Owner, id ID) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if _, err := g.shared.Attend(ctx, id, attendant, Owner{}); err == nil {
		g.notes.leaving.remove(attendant)
	}
}

// noteSettled tells the store that the answer of the claim with the token owner
// was delivered.
func (g *Gate) noteSettled(ctx context.Context, owner Owner, id ID) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	if err := g.shared.Settle(ctx, id, owner); err == nil {
		g.notes.settled.remove(owner)
	}
}

// takeNotes takes all notes to the store, several at a time.
func (g *Gate) takeNotes(ctx context.Context) error {
	leaving, settled := g.notes.leaving.all(), g.notes.settled.all()
	if len(leaving)+len(settled) == 0 {
		return nil
	}
	places := make(chan struct{}, 32)
	var all sync.WaitGroup
	take := func(note func(context.Context, Owner, ID), token Owner, id ID) {
		places <- struct{}{}
		all.Go(func() {
			note(ctx, token, id)
			<-places
		})
	}
	for attendant, id := range leaving {
		take(g.noteLeaving, attendant, id)
	}
	for owner, id := range settled {
		take(g.noteSettled, owner, id)
	}
	all.Wait()
	// What came after does not matter: who asks is to see what came before.
	for attendant := range leaving {
		if g.notes.leaving.has(attendant) {
			return errors.New("noting that callers have left: the store did not take it")
		}
	}
	return nil
}

// lives is what was found out about other processes during one look. The
// zero value of a gate whose store is not shared knows of none.
type lives struct {
	gate  *Gate
	known map[Process]Life
	dead  []Process // as was found out before; it may not be possible to tell again
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
	if slices.Contains(l.dead, p) {
		life.Alive = false
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
// after the wait began, or is known to be gone. It returns those that are.
func (g *Gate) awaitSigns(ctx context.Context, processes []Process) (dead []Process, err error) {
	slices.SortFunc(processes, func(a, b Process) int { return slices.Compare(a[:], b[:]) })
	for _, p := range slices.Compact(processes) {
		alive, err := g.shared.Ping(ctx, p)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, storeError(err)
		case !alive:
			dead = append(dead, p)
		}
	}
	return dead, nil
}
