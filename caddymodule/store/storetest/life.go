package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// wantAlive fails the test if m takes the living process p for dead, unless the
// machine had everything stand still for so long that it may.
func (m *member) wantAlive(p idempotency.Process, lastLook time.Time) idempotency.Life {
	m.t.Helper()
	life := m.life(p)
	if stood := time.Since(lastLook); !life.Alive && stood < m.lease/4 {
		m.t.Fatalf("a living process is taken for dead: %+v", life)
	}
	return life
}

var lifeTests = []sharedTest{
	{"a process that has joined is alive, and seen now", func(t *testing.T, s *shared) {
		for _, m := range []*member{s.a, s.b} {
			var (
				life   idempotency.Life
				before time.Time
			)
			s.eventually("a sign of life", func() bool {
				before = time.Now()
				life = m.wantAlive(s.c.process, before)
				return !life.Seen.IsZero()
			})
			if after := time.Now(); life.Seen.Before(before.Add(-s.lease)) || life.Seen.After(after.Add(s.lease)) {
				t.Errorf("it was seen at %v, want about %v", life.Seen, after)
			}
		}
	}},

	{"a living process stays alive, and is seen again and again", func(t *testing.T, s *shared) {
		var first, last time.Time
		look := time.Now()
		s.eventually("signs of life over several leases", func() bool {
			life := s.a.wantAlive(s.b.process, look)
			look = time.Now()
			if first.IsZero() {
				first = life.Seen
			}
			// Clocks may differ, and by no more than a little.
			if life.Seen.Before(last.Add(-s.lease / 4)) {
				t.Fatalf("it was last seen at %v, after it was seen at %v", life.Seen, last)
			}
			last = life.Seen
			return last.Sub(first) > 3*s.lease
		})
	}},

	{"a process that never joined is dead once that can be told", func(t *testing.T, s *shared) {
		never := idempotency.NewProcess()
		s.eventually("its being dead", func() bool {
			life := s.a.life(never)
			if !life.Seen.IsZero() {
				t.Fatalf("it was seen at %v", life.Seen)
			}
			return !life.Alive
		})
	}},

	{"a process that has closed its store is dead before long", func(t *testing.T, s *shared) {
		s.eventually("a sign of life", func() bool { return !s.a.life(s.b.process).Seen.IsZero() })
		s.b.leave()
		left := time.Now()
		s.eventually("its being dead", func() bool { return !s.a.life(s.b.process).Alive })
		if seen := s.a.life(s.b.process).Seen; seen.After(left.Add(s.lease)) {
			t.Errorf("it was seen at %v, after it was gone", seen)
		}
		s.a.wantAlive(s.c.process, time.Now())
	}},

	{"a process that is dead stays dead", func(t *testing.T, s *shared) {
		s.b.leave()
		s.eventually("its being dead", func() bool { return !s.a.life(s.b.process).Alive })
		for end := time.Now().Add(2 * s.lease); time.Now().Before(end); time.Sleep(s.lease / 20) {
			if life := s.a.life(s.b.process); life.Alive {
				t.Fatalf("it is alive again: %+v", life)
			}
		}
	}},
}

var pingTests = []sharedTest{
	{"a living process answers", func(t *testing.T, s *shared) {
		for range 5 {
			before := time.Now()
			if !s.a.ping(s.b.process) {
				t.Fatal("it did not answer")
			}
			if life := s.a.wantAlive(s.b.process, time.Now()); life.Seen.Before(before.Add(-s.lease)) {
				t.Errorf("it has just answered, and was seen at %v, long before %v", life.Seen, before)
			}
		}
	}},

	{"who sees a sign of life sees what the process had to do before it", func(t *testing.T, s *shared) {
		token := s.b.process.NewOwner()
		rec := s.b.claimAttended("x", token)
		s.b.before.Store(func(ctx context.Context) error {
			_, err := s.b.Attend(ctx, rec.ID, token, idempotency.Owner{})
			return err
		})
		if !s.a.ping(s.b.process) {
			t.Fatal("it did not answer")
		}
		if got := s.a.get(rec.ID); got == nil || got.Attendant != (idempotency.Owner{}) {
			t.Errorf("it has not done it: %s", show(got))
		}
	}},

	{"a process that cannot do what it has to do before shows no sign of life", func(t *testing.T, s *shared) {
		s.b.before.Store(func(context.Context) error { return errors.New("cannot do it") })
		ctx, cancel := context.WithTimeout(s.ctx, 3*s.lease)
		defer cancel()
		if alive, err := s.a.Ping(ctx, s.b.process); alive {
			t.Errorf("it answered: %v", err)
		}
	}},

	{"processes may ask one another at once", func(t *testing.T, s *shared) {
		type answer struct {
			alive bool
			err   error
		}
		answers := make(chan answer)
		const each = 4
		for range each {
			for _, pair := range [][2]*member{{s.a, s.b}, {s.b, s.a}, {s.c, s.a}, {s.c, s.b}} {
				go func() {
					alive, err := pair[0].Ping(s.ctx, pair[1].process)
					answers <- answer{alive, err}
				}()
			}
		}
		for range each * 4 {
			if got := <-answers; !got.alive || got.err != nil {
				t.Errorf("got %v and the error %v", got.alive, got.err)
			}
		}
	}},

	{"a process that has closed its store does not answer", func(t *testing.T, s *shared) {
		s.b.leave()
		if s.a.ping(s.b.process) {
			t.Error("it answered")
		}
	}},

	{"a process that is dead does not answer", func(t *testing.T, s *shared) {
		s.b.leave()
		s.eventually("its being dead", func() bool { return !s.a.life(s.b.process).Alive })
		if s.a.ping(s.b.process) {
			t.Error("it answered")
		}
	}},

	{"a process that never joined does not answer", func(t *testing.T, s *shared) {
		if s.a.ping(idempotency.NewProcess()) {
			t.Error("it answered")
		}
	}},

	{"waiting for an answer ends with the context", func(t *testing.T, s *shared) {
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		if alive, err := s.a.Ping(ctx, idempotency.NewProcess()); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v and the error %v, want %q", alive, err, context.Canceled)
		}
	}},
}
