package storetest

import (
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// renew renews rec's claim and returns what stands in its way.
func (m *member) renew(rec *idempotency.Record) *idempotency.Record {
	m.t.Helper()
	standing, err := m.Renew(m.ctx, rec)
	if err != nil {
		m.t.Fatalf("renewing: %v", err)
	}
	return standing
}

var renewTests = []sharedTest{
	{"renewing a claim that stands changes nothing", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		s.a.claim(rec, idempotency.Owner{})
		s.a.settle(rec.ID, rec.Owner)
		if standing := s.a.renew(rec); standing != nil {
			t.Errorf("%s stands in the way of a claim of its own", show(standing))
		}
		s.b.wantStored(rec)
		s.b.wantUnsettled(rec.Adoption)
	}},

	{"renewing a claim that is finished changes nothing", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		s.a.finish(done(rec))
		if standing := s.a.renew(rec); standing != nil {
			t.Errorf("%s stands in the way of a claim of its own", show(standing))
		}
		s.b.wantStored(done(rec))
	}},

	{"renewing a claim that is lost makes it anew", func(t *testing.T, s *shared) {
		rec := s.a.keyless("x")
		if standing := s.a.renew(rec); standing != nil {
			t.Errorf("%s stands in the way", show(standing))
		}
		s.b.wantStored(rec)
		s.b.wantUnsettled(rec.Adoption, rec)
		s.b.wantSame(s.b.tryClaim(s.b.started("x"), idempotency.Owner{}), rec)
	}},

	{"renewing a claim that was taken over changes nothing", func(t *testing.T, s *shared) {
		rec, next := s.a.started("x"), s.b.started("x")
		s.a.claim(rec, idempotency.Owner{})
		s.b.claim(next, rec.Owner)
		s.a.wantSame(s.a.renew(rec), next)
		s.c.wantStored(next)
	}},

	{"a claim that was released does not come back", func(t *testing.T, s *shared) {
		rec, never, next := s.a.started("x"), s.a.started("y"), s.b.started("x")
		s.a.claim(rec, idempotency.Owner{})
		s.a.release(rec.ID, rec.Owner)
		s.a.release(never.ID, never.Owner) // its claim is still under way
		for _, late := range []*idempotency.Record{rec, never} {
			if standing, err := s.a.Claim(s.ctx, late, idempotency.Owner{}); err == nil || standing != nil {
				t.Errorf("a late claim: %s, %v", show(standing), err)
			}
			if standing, err := s.a.Renew(s.ctx, late); err == nil || standing != nil {
				t.Errorf("a late renewal: %s, %v", show(standing), err)
			}
			s.b.wantAbsent(late.ID)
		}
		s.b.claim(next, idempotency.Owner{})
		s.c.wantStored(next)
	}},

	{"what has ended is not started again by its own claim's copy", func(t *testing.T, s *shared) {
		rec := s.a.started("x")
		s.a.claim(rec, idempotency.Owner{})
		s.a.finish(done(rec))
		if err := s.a.Finish(s.ctx, rec); err == nil {
			t.Error("it was")
		}
		s.b.wantStored(done(rec))
	}},
}
