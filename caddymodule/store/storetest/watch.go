package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// watch watches the record of id until the end of the test.
func (m *member) watch(id idempotency.ID) (changed <-chan struct{}, stop func()) {
	m.t.Helper()
	changed, stop, err := m.Watch(m.ctx, id)
	if err != nil {
		m.t.Fatalf("watching: %v", err)
	}
	m.t.Cleanup(stop)
	return changed, stop
}

// wantNotice fails the test unless changed wakes m to find that so is true.
// It may be woken too early, but never for the last time.
func (m *member) wantNotice(changed <-chan struct{}, so func(rec *idempotency.Record) bool, id idempotency.ID) {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case <-changed:
		case <-deadline:
			m.t.Fatalf("no notice after %v", patience)
		}
		if so(m.get(id)) {
			return
		}
	}
}

func in(state idempotency.State) func(*idempotency.Record) bool {
	return func(rec *idempotency.Record) bool { return rec != nil && rec.State == state }
}

func absent(rec *idempotency.Record) bool { return rec == nil }

var watchTests = []sharedTest{
	{"a watcher learns that another process has finished", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.b.watch(rec.ID)
		s.a.finish(done(rec))
		s.b.wantNotice(changed, in(idempotency.Done), rec.ID)
	}},

	{"a watcher learns that another process has released", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.b.watch(rec.ID)
		s.a.release(rec.ID, rec.Owner)
		s.b.wantNotice(changed, absent, rec.ID)
	}},

	{"a watcher learns that another process has taken over", func(t *testing.T, s *shared) {
		rec, next := s.a.started("x"), s.c.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.b.watch(rec.ID)
		s.c.claim(next, rec.Owner)
		s.b.wantNotice(changed, func(rec *idempotency.Record) bool { return rec.OwnedBy(next.Owner) }, rec.ID)
	}},

	{"a watcher learns of its own process's changes", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.a.watch(rec.ID)
		s.a.finish(done(rec))
		s.a.wantNotice(changed, in(idempotency.Done), rec.ID)
	}},

	{"a watcher learns of one change after the other", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.b.watch(rec.ID)
		s.a.finish(unknown(rec))
		s.b.wantNotice(changed, in(idempotency.Unknown), rec.ID)
		s.c.finish(done(rec))
		s.b.wantNotice(changed, in(idempotency.Done), rec.ID)
		s.a.release(rec.ID, rec.Owner)
		s.b.wantNotice(changed, absent, rec.ID)
	}},

	{"a watcher that does not look holds nobody up", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		changed, _ := s.b.watch(rec.ID)
		for range 300 {
			s.a.finish(unknown(rec))
		}
		s.a.finish(done(rec))
		y := s.a.started("y")
		s.a.claim(y, idempotency.Owner{})
		other, _ := s.b.watch(y.ID)
		s.a.finish(done(y))
		s.b.wantNotice(other, in(idempotency.Done), y.ID)
		s.b.wantNotice(changed, in(idempotency.Done), rec.ID)
	}},

	{"every watcher of a record is woken", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		one, _ := s.b.watch(rec.ID)
		two, _ := s.b.watch(rec.ID)
		three, _ := s.c.watch(rec.ID)
		s.a.finish(done(rec))
		s.b.wantNotice(one, in(idempotency.Done), rec.ID)
		s.b.wantNotice(two, in(idempotency.Done), rec.ID)
		s.c.wantNotice(three, in(idempotency.Done), rec.ID)
	}},

	{"ending one watch, even twice, leaves the others", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		_, stop := s.b.watch(rec.ID)
		changed, _ := s.b.watch(rec.ID)
		stop()
		stop()
		s.a.finish(done(rec))
		s.b.wantNotice(changed, in(idempotency.Done), rec.ID)
	}},

	{"a record can be watched again", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		for range 20 {
			_, stop := s.b.watch(rec.ID)
			stop()
		}
		changed, _ := s.b.watch(rec.ID)
		s.a.finish(done(rec))
		s.b.wantNotice(changed, in(idempotency.Done), rec.ID)
	}},

	{"watching an absent record is no error, and makes none", func(t *testing.T, s *shared) {
		id := s.a.started("x").ID
		_, stop := s.b.watch(id) // whether it learns of a claim is left open
		s.a.wantAbsent(id)
		stop()
	}},
}
