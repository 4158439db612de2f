package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var sharingTests = []sharedTest{
	{"what one claims stands in the others' way", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		s.a.claim(rec, idempotency.Owner{})
		for _, m := range []*member{s.a, s.b, s.c} {
			m.wantStored(rec)
			m.wantSame(m.tryClaim(m.keyless("x"), idempotency.Owner{}), rec)
			m.wantUnsettled(rec.Adoption, rec)
		}
	}},

	{"of many claims by all processes at once exactly one is made", func(t *testing.T, s *shared) {
		for round := range 8 {
			s.race(func(m *member) (*idempotency.Record, idempotency.Owner) {
				return m.started(fmt.Sprint("x", round)), idempotency.Owner{}
			})
		}
	}},

	{"of many take-overs by all processes at once exactly one is made", func(t *testing.T, s *shared) {
		for round := range 8 {
			first := s.a.started(fmt.Sprint("x", round))
			s.a.claim(first, idempotency.Owner{})
			s.race(func(m *member) (*idempotency.Record, idempotency.Owner) {
				return m.started(first.Key), first.Owner
			})
		}
	}},

	{"what one finishes or releases all see at once", func(t *testing.T, s *shared) {
		for round := range 50 {
			rec := s.a.started(fmt.Sprint("x", round%2))
			s.a.claim(rec, idempotency.Owner{})
			s.b.wantStored(rec)
			s.c.finish(unknown(rec))
			s.b.wantStored(unknown(rec))
			s.a.finish(done(rec))
			s.b.wantStored(done(rec))
			s.a.release(rec.ID, rec.Owner)
			s.b.wantAbsent(rec.ID)
		}
	}},

	{"who has the token may change the record from any process", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		s.a.claim(rec, idempotency.Owner{})
		s.b.finish(unknown(rec))
		want := *unknown(rec)
		want.Told = s.epoch.Add(time.Minute + time.Nanosecond)
		s.c.tell(rec.ID, rec.Owner, want.Told)
		s.a.wantStored(&want)
		s.a.wantUnsettled(rec.Adoption, &want)
		s.b.settle(rec.ID, rec.Owner)
		s.a.wantUnsettled(rec.Adoption)
		s.c.release(rec.ID, rec.Owner)
		s.a.wantAbsent(rec.ID)
	}},

	{"with another token no process may change the record", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		s.a.claim(rec, idempotency.Owner{})
		for _, m := range []*member{s.a, s.b} {
			for _, token := range []idempotency.Owner{{}, s.a.process.NewOwner(), s.b.process.NewOwner()} {
				other := done(rec)
				other.Owner = token
				m.wantNotOwner(m.Finish(m.ctx, other))
				m.wantNotOwner(m.Release(m.ctx, rec.ID, token))
				m.settle(rec.ID, token)
				m.tell(rec.ID, token, s.epoch.Add(time.Minute))
			}
		}
		s.c.wantStored(rec)
		s.c.wantUnsettled(rec.Adoption, rec)
	}},

	{"what one takes over the other has lost", func(t *testing.T, s *shared) {
		first, second := s.a.keyless("x"), s.b.keyless("x")
		s.a.claim(first, idempotency.Owner{})
		s.a.settle(first.ID, first.Owner)
		s.b.claim(second, first.Owner)
		s.a.wantNotOwner(s.a.Finish(s.ctx, done(first)))
		s.a.wantNotOwner(s.a.Release(s.ctx, first.ID, first.Owner))
		s.a.settle(first.ID, first.Owner)
		s.a.wantUnsettled(first.Adoption, second)
		s.b.finish(done(second))
		s.a.wantStored(done(second))
	}},

	{"records outlive the process that made them", func(t *testing.T, s *shared) {
		open, answered := s.a.keyless("x"), s.a.keyless("y")
		s.a.claim(open, idempotency.Owner{})
		s.a.claim(answered, idempotency.Owner{})
		s.a.finish(done(answered))
		s.a.leave()
		s.b.wantStored(open)
		s.b.wantStored(done(answered))
		s.b.wantUnsettled(open.Adoption, open)
		next := s.b.keyless("x")
		s.b.claim(next, open.Owner)
		s.c.wantStored(next)
	}},
}

// race claims what next returns from many goroutines of all processes at once,
// all for one ID, and checks that one claim is made and the others get that one.
func (s *shared) race(next func(m *member) (*idempotency.Record, idempotency.Owner)) {
	s.t.Helper()
	var (
		wg       sync.WaitGroup
		start    = make(chan struct{})
		all      = []*member{s.a, s.b, s.c}
		claims   [racers]*idempotency.Record
		standing [racers]*idempotency.Record
		errs     [racers]error
	)
	for i := range racers {
		m := all[i%len(all)]
		rec, over := next(m)
		claims[i] = rec
		wg.Go(func() {
			<-start
			standing[i], errs[i] = m.Claim(s.ctx, rec, over)
		})
	}
	close(start)
	wg.Wait()

	var winners []*idempotency.Record
	for i := range racers {
		if errs[i] != nil {
			s.t.Fatalf("claiming: %v", errs[i])
		}
		if standing[i] == nil {
			winners = append(winners, claims[i])
		}
	}
	if len(winners) != 1 {
		s.t.Fatalf("%d claims were made, want 1", len(winners))
	}
	for _, rec := range standing {
		if rec != nil {
			s.wantSame(rec, winners[0])
		}
	}
	for _, m := range all {
		m.wantStored(winners[0])
	}
}
