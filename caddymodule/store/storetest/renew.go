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
}
