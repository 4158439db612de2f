package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// wantAttendant fails the test unless every process sees, in every way there
// is, that rec is attended by attendant, and is what it was otherwise.
func (s *shared) wantAttendant(rec *idempotency.Record, attendant idempotency.Owner) {
	s.t.Helper()
	for _, m := range []*member{s.a, s.b, s.c} {
		seen := map[string]*idempotency.Record{
			"Get":   m.get(rec.ID),
			"Claim": m.tryClaim(m.started(rec.Key), idempotency.Owner{}),
		}
		if recs := m.unsettled(rec.Adoption); len(recs) > 0 {
			seen["Unsettled"] = recs[0]
		}
		for method, got := range seen {
			s.wantSame(got, rec)
			if got != nil && got.Attendant != attendant {
				s.t.Errorf("%s: the attendant is %x, want %x", method, got.Attendant, attendant)
			}
		}
	}
}

// claimAttended claims a keyless record that attendant attends.
func (m *member) claimAttended(name string, attendant idempotency.Owner) *idempotency.Record {
	m.t.Helper()
	rec := m.keyless(name)
	rec.Attendant = attendant
	m.claim(rec, idempotency.Owner{})
	return rec
}

var attendTests = []sharedTest{
	{"a claim tells who attends", func(t *testing.T, s *shared) {
		attendant := s.a.process.NewOwner()
		s.wantAttendant(s.a.claimAttended("x", attendant), attendant)
		s.wantAttendant(s.a.claimAttended("y", idempotency.Owner{}), idempotency.Owner{})
	}},

	{"a take-over tells who attends from now on", func(t *testing.T, s *shared) {
		rec := s.a.claimAttended("x", s.a.process.NewOwner())
		next := s.b.keyless("x")
		next.Attendant = s.b.process.NewOwner()
		s.b.claim(next, rec.Owner)
		s.wantAttendant(next, next.Attendant)

		last := s.c.keyless("x")
		s.c.claim(last, next.Owner)
		s.wantAttendant(last, idempotency.Owner{})
	}},

	{"a claim that is refused does not change who attends", func(t *testing.T, s *shared) {
		attendant := s.a.process.NewOwner()
		rec := s.a.claimAttended("x", attendant)
		other := s.b.keyless("x")
		other.Attendant = s.b.process.NewOwner()
		s.b.tryClaim(other, s.b.process.NewOwner())
		s.wantAttendant(rec, attendant)
	}},

	{"any process can attend where nobody does, and leave again", func(t *testing.T, s *shared) {
		attendant := s.b.process.NewOwner()
		rec := s.a.claimAttended("x", idempotency.Owner{})
		if !s.b.attend(rec.ID, idempotency.Owner{}, attendant) {
			t.Error("it cannot attend")
		}
		s.wantAttendant(rec, attendant)
		if !s.b.attend(rec.ID, attendant, idempotency.Owner{}) {
			t.Error("it cannot leave")
		}
		s.wantAttendant(rec, idempotency.Owner{})
	}},

	{"a process can replace the attendant that it knows of", func(t *testing.T, s *shared) {
		first, second := s.a.process.NewOwner(), s.b.process.NewOwner()
		rec := s.a.claimAttended("x", first)
		if !s.b.attend(rec.ID, first, second) {
			t.Error("it cannot attend")
		}
		s.wantAttendant(rec, second)
	}},

	{"nobody can attend in place of another that they do not know of", func(t *testing.T, s *shared) {
		first, second := s.a.process.NewOwner(), s.b.process.NewOwner()
		rec := s.a.claimAttended("x", first)
		if s.b.attend(rec.ID, idempotency.Owner{}, second) || s.b.attend(rec.ID, s.a.process.NewOwner(), second) {
			t.Error("it attends")
		}
		s.wantAttendant(rec, first)
	}},

	{"attending can be repeated", func(t *testing.T, s *shared) {
		attendant := s.b.process.NewOwner()
		rec := s.a.claimAttended("x", idempotency.Owner{})
		for range 2 {
			if !s.b.attend(rec.ID, idempotency.Owner{}, attendant) {
				t.Error("it cannot attend")
			}
		}
		s.wantAttendant(rec, attendant)
	}},

	{"of many who would attend exactly one does", func(t *testing.T, s *shared) {
		for round := range 8 {
			rec := s.a.claimAttended(fmt.Sprint("x", round), idempotency.Owner{})
			var (
				wg     sync.WaitGroup
				start  = make(chan struct{})
				tokens [racers]idempotency.Owner
				won    [racers]bool
				errs   [racers]error
			)
			for i := range racers {
				m := []*member{s.a, s.b, s.c}[i%members]
				tokens[i] = m.process.NewOwner()
				wg.Go(func() {
					<-start
					won[i], errs[i] = m.Attend(s.ctx, rec.ID, idempotency.Owner{}, tokens[i])
				})
			}
			close(start)
			wg.Wait()
			var winners []idempotency.Owner
			for i := range racers {
				if errs[i] != nil {
					t.Fatalf("attending: %v", errs[i])
				}
				if won[i] {
					winners = append(winners, tokens[i])
				}
			}
			if len(winners) != 1 {
				t.Fatalf("%d attend, want 1", len(winners))
			}
			s.wantAttendant(rec, winners[0])
		}
	}},

	{"nobody can attend what is not there", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		token := s.a.process.NewOwner()
		if s.a.attend(rec.ID, idempotency.Owner{}, token) {
			t.Error("it attends what was never there")
		}
		s.a.wantAbsent(rec.ID)
		s.a.claim(rec, idempotency.Owner{})
		s.a.release(rec.ID, rec.Owner)
		if s.b.attend(rec.ID, idempotency.Owner{}, token) {
			t.Error("it attends what is gone")
		}
		s.wantAttendant(s.a.claimAttended("x", idempotency.Owner{}), idempotency.Owner{})
	}},

	{"finishing, telling and settling do not change who attends", func(t *testing.T, s *shared) {
		first, second := s.a.process.NewOwner(), s.b.process.NewOwner()
		rec := s.a.claimAttended("x", first)
		s.b.attend(rec.ID, first, second)
		lost := unknown(rec) // says that first attends
		s.a.finish(lost)
		s.wantAttendant(lost, second)
		lost.Told = s.epoch.Add(time.Minute)
		s.a.tell(rec.ID, rec.Owner, lost.Told)
		s.wantAttendant(lost, second)
		answered := done(rec)
		answered.Attendant = idempotency.Owner{}
		s.a.finish(answered)
		s.wantAttendant(answered, second)
		s.a.settle(rec.ID, rec.Owner)
		s.wantAttendant(answered, second)
	}},

	{"attending leaves what is settled settled, and the owner the owner", func(t *testing.T, s *shared) {
		rec := s.a.claimAttended("x", idempotency.Owner{})
		s.a.settle(rec.ID, rec.Owner)
		s.b.attend(rec.ID, idempotency.Owner{}, s.b.process.NewOwner())
		s.b.wantUnsettled(rec.Adoption)
		s.a.finish(done(rec))
		s.b.wantStored(done(rec))
	}},

	{"a record that was handed out keeps its attendant", func(t *testing.T, s *shared) {
		rec := s.a.claimAttended("x", idempotency.Owner{})
		before := s.a.get(rec.ID)
		s.a.attend(rec.ID, idempotency.Owner{}, s.a.process.NewOwner())
		if before.Attendant != (idempotency.Owner{}) {
			t.Error("it has changed")
		}
	}},

	{"a cancelled context changes nothing", func(t *testing.T, s *shared) {
		rec := s.a.claimAttended("x", idempotency.Owner{})
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		if _, err := s.a.Attend(ctx, rec.ID, idempotency.Owner{}, s.a.process.NewOwner()); !errors.Is(err, context.Canceled) {
			t.Errorf("got the error %v, want %q", err, context.Canceled)
		}
		s.wantAttendant(rec, idempotency.Owner{})
	}},
}
