package storetest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// Member is the SharedStore of one process of a Fleet.
type Member struct {
	fleet *Fleet

	// All below are guarded by fleet.mu.
	before      func(context.Context) error // see Join
	hears       time.Time                   // since when it hears of others without a break
	running     chan struct{}               // closed while the process is not stopped
	silent      time.Time                   // since when the process shows no life; zero: it does
	gone        bool                        // for good
	losesAttend bool
	losesDrop   bool
	drop        func(idempotency.ID, bool)
	goodbye     bool      // gone, and said so
	asked       time.Time // when it last asked for parts of the backlog; zero: never
	enqueued    func(idempotency.Part)
}

var (
	_ idempotency.SharedStore = (*Member)(nil)
	_ idempotency.Lister      = (*Member)(nil)
)

// Crash ends the process without a word. What it has under way in the store is
// done, and nothing after that.
func (m *Member) Crash() { m.leave(false) }

// Close implements idempotency.Store: the process says that it goes, also where
// it is stopped. The common store stays open. It does nothing after a Crash.
func (m *Member) Close() error {
	m.leave(true)
	return nil
}

func (m *Member) leave(goodbye bool) {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.gone {
		return
	}
	m.gone, m.goodbye = true, goodbye
	if m.silent.IsZero() {
		m.silent = time.Now()
	} else {
		close(m.running) // calls that wait for Resume
	}
	f.turnLocked()
}

// Pause stops the process, as SIGSTOP does: it shows no life, and what it calls
// waits for Resume, whatever becomes of the context.
func (m *Member) Pause() {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.gone || !m.silent.IsZero() {
		return
	}
	m.silent = time.Now()
	m.running = make(chan struct{})
	f.turnLocked()
}

// Resume lets a stopped process go on.
func (m *Member) Resume() {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.gone || m.silent.IsZero() {
		return
	}
	m.silent = time.Time{}
	m.hears = time.Now()
	close(m.running)
	f.turnLocked()
	if m.drop != nil {
		go m.drop(idempotency.ID{}, true)
	}
}

// enter waits until the process runs, and returns ErrGone where it does not
// any more, or the error of ctx.
func (m *Member) enter(ctx context.Context) error {
	for {
		m.fleet.mu.Lock()
		running, gone, stopped := m.running, m.gone, !m.silent.IsZero()
		m.fleet.mu.Unlock()
		if gone {
			return ErrGone
		}
		if !stopped {
			return ctx.Err()
		}
		<-running
	}
}

// Get implements idempotency.Store.
func (m *Member) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	if err := m.enter(ctx); err != nil {
		return nil, fmt.Errorf("getting record: %w", err)
	}
	rec, err := m.fleet.store.Get(ctx, id)
	return m.fleet.attended(rec), err
}

// Claim implements idempotency.Store.
func (m *Member) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	if err := m.enter(ctx); err != nil {
		return nil, fmt.Errorf("claiming record: %w", err)
	}
	if m.fleet.wasReleased(rec.Owner) {
		return nil, fmt.Errorf("claiming record: %w: it was released", idempotency.ErrNotMade)
	}
	m.fleet.claiming(rec)
	standing, err := m.fleet.store.Claim(ctx, rec, over)
	if standing == nil { // an error may be a claim, too
		m.fleet.notify(rec.ID)
	}
	return m.fleet.attended(standing), err
}

// Finish implements idempotency.Store.
func (m *Member) Finish(ctx context.Context, rec *idempotency.Record) error {
	if err := m.enter(ctx); err != nil {
		return fmt.Errorf("finishing record: %w", err)
	}
	if rec.State == idempotency.Started || rec.State == idempotency.Queued {
		if standing, err := m.fleet.store.Get(ctx, rec.ID); err == nil && standing != nil && !mayBecome(standing.State, rec.State) {
			return fmt.Errorf("finishing record: %w: it has ended", idempotency.ErrNotOwner)
		}
	}
	err := m.fleet.store.Finish(ctx, rec)
	if !errors.Is(err, idempotency.ErrNotOwner) {
		m.fleet.notify(rec.ID)
	}
	return err
}

// mayBecome tells whether a claim that is Started or Queued may follow what stands:
// a call that has ended is neither again, and one that was put back is started by
// another claim.
func mayBecome(standing, next idempotency.State) bool {
	return standing == idempotency.Started || standing == idempotency.Queued && next == idempotency.Queued
}

// Release implements idempotency.Store. It dequeues the ticket of the record, if
// that has one.
func (m *Member) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	if err := m.enter(ctx); err != nil {
		return fmt.Errorf("releasing record: %w", err)
	}
	standing, _ := m.fleet.store.Get(ctx, id)
	err := m.fleet.store.Release(ctx, id, owner)
	if err == nil {
		m.fleet.forget(owner)
		if standing != nil && standing.OwnedBy(owner) && standing.Deferred != nil {
			m.fleet.tickets.Take(standing.Deferred.Place)
		}
	}
	if !errors.Is(err, idempotency.ErrNotOwner) {
		m.fleet.notify(id)
	}
	return err
}

// Unsettled implements idempotency.Store.
func (m *Member) Unsettled(ctx context.Context, adoption idempotency.AdoptionID) ([]*idempotency.Record, error) {
	if err := m.enter(ctx); err != nil {
		return nil, fmt.Errorf("listing unsettled records: %w", err)
	}
	recs, err := m.fleet.store.Unsettled(ctx, adoption)
	for i, rec := range recs {
		recs[i] = m.fleet.attended(rec)
	}
	return recs, err
}

// List implements idempotency.Lister, where the common store does; else its error
// wraps errors.ErrUnsupported.
func (m *Member) List(ctx context.Context, q idempotency.Query) (idempotency.Listing, error) {
	lister, err := m.lister(ctx)
	if err != nil {
		return idempotency.Listing{}, fmt.Errorf("listing records: %w", err)
	}
	listing, err := lister.List(ctx, q)
	for i, rec := range listing.Records {
		listing.Records[i] = m.fleet.attended(rec)
	}
	return listing, err
}

// Tally implements idempotency.Lister as List does.
func (m *Member) Tally(ctx context.Context) (map[idempotency.State]int, error) {
	lister, err := m.lister(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting records: %w", err)
	}
	return lister.Tally(ctx)
}

func (m *Member) lister(ctx context.Context) (idempotency.Lister, error) {
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	lister, ok := m.fleet.store.(idempotency.Lister)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	return lister, nil
}

// Settle implements idempotency.Store.
func (m *Member) Settle(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	if err := m.enter(ctx); err != nil {
		return fmt.Errorf("settling record: %w", err)
	}
	return m.fleet.store.Settle(ctx, id, owner)
}

// Tell implements idempotency.Store.
func (m *Member) Tell(ctx context.Context, id idempotency.ID, owner idempotency.Owner, told time.Time) error {
	if err := m.enter(ctx); err != nil {
		return fmt.Errorf("noting what a caller was told: %w", err)
	}
	return m.fleet.store.Tell(ctx, id, owner, told)
}

// Join implements idempotency.SharedStore.
func (m *Member) Join(p idempotency.Process, before func(context.Context) error) {
	f := m.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	m.before = before
	f.processes[p] = m
	f.turnLocked()
}

// Life implements idempotency.SharedStore.
func (m *Member) Life(ctx context.Context, p idempotency.Process) (idempotency.Life, error) {
	if err := m.enter(ctx); err != nil {
		return idempotency.Life{}, fmt.Errorf("asking for the life of a process: %w", err)
	}
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	life, _ := m.lifeLocked(p)
	return life, nil
}

// lifeLocked returns what m knows of p's life. Where p is taken for alive and
// shows no life, until tells how long that stays so if nothing happens; else it
// is zero.
func (m *Member) lifeLocked(p idempotency.Process) (life idempotency.Life, until time.Time) {
	f, now := m.fleet, time.Now()
	other := f.processes[p]
	if other != nil && other.silent.IsZero() {
		return idempotency.Life{Alive: true, Seen: now}, time.Time{}
	}
	if !f.certain {
		until = m.hears.Add(f.lease)
	}
	if other != nil {
		life.Seen = other.silent
		switch end := other.silent.Add(f.lease); {
		case !other.goodbye:
			until = later(until, end)
		case !m.hears.After(other.silent):
			until = time.Time{} // m was there to hear it
		}
	}
	life.Alive = now.Before(until)
	return life, until
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Ping implements idempotency.SharedStore. A process that shows life answers at
// once.
func (m *Member) Ping(ctx context.Context, p idempotency.Process) (bool, error) {
	for {
		if err := m.enter(ctx); err != nil {
			return false, fmt.Errorf("waiting for a sign of life: %w", err)
		}
		m.fleet.mu.Lock()
		life, until := m.lifeLocked(p)
		turn := m.fleet.turn
		var before func(context.Context) error
		if other := m.fleet.processes[p]; other != nil {
			before = other.before
		}
		m.fleet.mu.Unlock()
		switch {
		case !life.Alive:
			return false, nil
		case until.IsZero() && before(ctx) == nil:
			return true, nil
		case until.IsZero():
			until = time.Now().Add(m.fleet.lease / 4) // it tries again
		}
		timer := time.NewTimer(time.Until(until))
		select {
		case <-turn:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// OnDrop implements idempotency.SharedStore.
func (m *Member) OnDrop(drop func(id idempotency.ID, all bool)) {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.drop = drop
}

// Drop implements idempotency.SharedStore. Members that do not run miss it, and
// are told so when they go on.
func (m *Member) Drop(ctx context.Context, id idempotency.ID) error {
	if err := m.enter(ctx); err != nil {
		return err
	}
	m.fleet.mu.Lock()
	lost := m.losesDrop
	m.fleet.mu.Unlock()
	if lost {
		return errors.New("the network is away")
	}
	for _, drop := range m.fleet.drops() {
		drop(id, false)
	}
	return nil
}

// LoseDrop sets whether Drop fails.
func (m *Member) LoseDrop(lose bool) {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.losesDrop = lose
}

// Watch implements idempotency.SharedStore. stop may be called more than once.
func (m *Member) Watch(ctx context.Context, id idempotency.ID) (changed <-chan struct{}, stop func(), err error) {
	if err := m.enter(ctx); err != nil {
		return nil, nil, fmt.Errorf("watching record: %w", err)
	}
	changed, stop = m.fleet.watch(id)
	return changed, stop, nil
}

// Attend implements idempotency.SharedStore.
func (m *Member) Attend(ctx context.Context, id idempotency.ID, was, next idempotency.Owner) (bool, error) {
	if err := m.enter(ctx); err != nil {
		return false, fmt.Errorf("attending record: %w", err)
	}
	rec, err := m.fleet.store.Get(ctx, id)
	if err != nil || rec == nil {
		return false, err
	}
	ours := m.fleet.attend(rec, was, next)
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	if m.losesAttend {
		return false, errors.New("attending record: the reply was lost")
	}
	return ours, nil
}

// LoseAttend sets whether Attend does its work and reports that it failed.
func (m *Member) LoseAttend(lose bool) {
	m.fleet.mu.Lock()
	defer m.fleet.mu.Unlock()
	m.losesAttend = lose
}

// Renew implements idempotency.SharedStore.
func (m *Member) Renew(ctx context.Context, rec *idempotency.Record) (*idempotency.Record, error) {
	standing, err := m.Claim(ctx, rec, idempotency.Owner{})
	if standing != nil && standing.Owner == rec.Owner {
		return nil, err
	}
	return standing, err
}
