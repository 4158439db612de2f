package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var unsettledTests = []test{
	{"a claim with a key is never unsettled", func(t *testing.T, f *fixture) {
		f.claim(f.started("a"), idempotency.Owner{})
		f.wantUnsettled(idempotency.AdoptionID{})
	}},

	{"unsettled records are listed oldest first", func(t *testing.T, f *fixture) {
		x := adoption("x")
		var recs [3]*idempotency.Record
		for _, i := range []int{1, 2, 0} {
			recs[i] = f.keyless(string(rune('a'+i)), x)
			recs[i].Started = f.epoch.Add(time.Duration(i))
			f.claim(recs[i], idempotency.Owner{})
		}
		f.claim(f.keyless("other", adoption("y")), idempotency.Owner{})
		f.wantUnsettled(x, recs[:]...)
	}},

	{"a finished record stays unsettled", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.wantUnsettled(rec.Adoption, done(rec))
	}},

	{"a settled record is listed no more and stays", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.settle(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
		f.wantStored(done(rec))
	}},

	{"finishing does not make a settled record unsettled", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(unknown(rec))
		f.settle(rec.ID, rec.Owner)
		f.finish(done(rec))
		f.wantUnsettled(rec.Adoption)
	}},

	{"settling with another's token does nothing", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.settle(rec.ID, process.NewOwner())
		f.settle(rec.ID, idempotency.Owner{})
		f.wantUnsettled(rec.Adoption, rec)
	}},

	{"settling what is settled or not there does nothing", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.settle(rec.ID, rec.Owner)
		f.claim(rec, idempotency.Owner{})
		f.settle(rec.ID, rec.Owner)
		f.settle(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
	}},

	{"settling leaves the others unsettled", func(t *testing.T, f *fixture) {
		x := adoption("x")
		a, b := f.keyless("a", x), f.keyless("b", x)
		f.claim(a, idempotency.Owner{})
		f.claim(b, idempotency.Owner{})
		f.settle(a.ID, a.Owner)
		f.wantUnsettled(x, b)
	}},

	{"a released record is listed no more", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.release(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
	}},

	{"taking over makes a record unsettled again", func(t *testing.T, f *fixture) {
		x := adoption("x")
		first, second := f.keyless("a", x), f.keyless("a", x)
		f.claim(first, idempotency.Owner{})
		f.settle(first.ID, first.Owner)
		f.wantUnsettled(x)
		f.claim(second, first.Owner)
		f.wantUnsettled(x, second)
	}},

	{"a claim that is refused leaves what is settled settled", func(t *testing.T, f *fixture) {
		x := adoption("x")
		first := f.keyless("a", x)
		f.claim(first, idempotency.Owner{})
		f.settle(first.ID, first.Owner)
		f.tryClaim(f.keyless("a", x), idempotency.Owner{})
		f.wantUnsettled(x)
	}},
}
