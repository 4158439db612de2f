package storetest

import (
	"errors"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// ErrGone is returned by the methods of a Member whose process is gone. They
// change nothing then.
var ErrGone = errors.New("the process is gone")

// Fleet is a number of processes on one store, all of them in the test's own
// process. It turns a Store into the SharedStores of its members, which live,
// die and stop as the test has them. Its methods and those of its members are
// safe for concurrent use.
//
// It has no goroutines, and tells who lives by the time of day, so it fits
// bubbles of testing/synctest, provided that it was made in the bubble.
type Fleet struct {
	store idempotency.Store
	lease time.Duration

	mu        sync.Mutex // guards all below, and is never held while the store is called
	processes map[idempotency.Process]*Member
	members   []*Member
	watchers  map[idempotency.ID]map[chan struct{}]struct{}
	turn      chan struct{} // closed, and replaced, when a process joins, goes, stops or goes on
	mute      bool
	certain   bool
	parts     [fleetParts]partLease

	tickets *store.Tickets

	// Who attends is kept by the token of the claim. So nothing has to be
	// changed here in the same instant as in the store: another claim has
	// another token, and finishing leaves the token as it is.
	attendants map[idempotency.Owner]idempotency.Owner
	released   map[idempotency.Owner]bool
}

// NewFleet returns a fleet without members on common, which stays the caller's
// to close. A process that shows no sign of life is taken for dead after lease.
// Its backlog is one of several parts, which the fleet keeps itself.
func NewFleet(common idempotency.Store, lease time.Duration) *Fleet {
	return &Fleet{
		store:      common,
		lease:      lease,
		processes:  make(map[idempotency.Process]*Member),
		watchers:   make(map[idempotency.ID]map[chan struct{}]struct{}),
		turn:       make(chan struct{}),
		attendants: make(map[idempotency.Owner]idempotency.Owner),
		released:   make(map[idempotency.Owner]bool),
		tickets:    store.NewTickets(0),
	}
}

// Member returns the store as a further process has it.
func (f *Fleet) Member() *Member {
	running := make(chan struct{})
	close(running)
	m := &Member{fleet: f, hears: time.Now(), running: running}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
	return m
}

// Mute sets whether the notices that watchers, and who works on the backlog, wait
// for are lost.
func (f *Fleet) Mute(mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = mute
}

// Certain sets whether members know at once who lives. Otherwise a member that
// has been there for less than the lease, or has gone on for less than that
// after a Pause, takes everybody for alive.
func (f *Fleet) Certain(certain bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certain = certain
	f.turnLocked()
}

// drops returns what is to be called where a record was changed after it had
// ended: of all members that run.
func (f *Fleet) drops() (drops []func(idempotency.ID, bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.members {
		if m.drop != nil && m.silent.IsZero() {
			drops = append(drops, m.drop)
		}
	}
	return drops
}

// turnLocked wakes who waits for a sign of life.
func (f *Fleet) turnLocked() {
	close(f.turn)
	f.turn = make(chan struct{})
}

// notify wakes the watchers of id.
func (f *Fleet) notify(id idempotency.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mute {
		return
	}
	for w := range f.watchers[id] {
		select {
		case w <- struct{}{}:
		default: // it has not looked since the last notice
		}
	}
}

func (f *Fleet) watch(id idempotency.ID) (changed chan struct{}, stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed = make(chan struct{}, 1)
	if f.watchers[id] == nil {
		f.watchers[id] = make(map[chan struct{}]struct{}, 1)
	}
	f.watchers[id][changed] = struct{}{}
	return changed, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers[id], changed)
		if len(f.watchers[id]) == 0 {
			delete(f.watchers, id)
		}
	}
}

// claiming notes who attends the claim rec, which is about to be made.
func (f *Fleet) claiming(rec *idempotency.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, again := f.attendants[rec.Owner]; !again {
		f.attendants[rec.Owner] = rec.Attendant
	}
}

// attended returns rec with who attends it by now.
func (f *Fleet) attended(rec *idempotency.Record) *idempotency.Record {
	if rec == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	attendant, ok := f.attendants[rec.Owner]
	if !ok || attendant == rec.Attendant {
		return rec
	}
	c := *rec
	c.Attendant = attendant
	return &c
}

// attend sets who attends the claim of rec from was to next, and tells whether
// that is next.
func (f *Fleet) attend(rec *idempotency.Record, was, next idempotency.Owner) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	attendant, ok := f.attendants[rec.Owner]
	if !ok {
		attendant = rec.Attendant // it was not claimed by a member
	}
	if attendant == was {
		attendant = next
		f.attendants[rec.Owner] = next
	}
	return attendant == next
}

// forget forgets who attended the claim with the token owner, which was released.
func (f *Fleet) forget(owner idempotency.Owner) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.attendants, owner)
	f.released[owner] = true
}

// wasReleased tells whether the claim with the token owner was released.
func (f *Fleet) wasReleased(owner idempotency.Owner) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.released[owner]
}
