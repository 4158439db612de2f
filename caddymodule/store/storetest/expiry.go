package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// claimed returns a fixture's record that has been claimed without a key, and
// sets the clock to d before its expiry.
func (f *fixture) claimed(name string, d time.Duration) *idempotency.Record {
	f.t.Helper()
	rec := keyless(name, adoption(name))
	f.claim(rec, idempotency.Owner{})
	f.setTime(rec.Expires.Add(-d))
	return rec
}

var expiryTests = []test{
	{"a record is there until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		f.wantStored(rec)
		f.setTime(rec.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"a record stands in the way until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		next := started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		wantSame(t, f.tryClaim(next, idempotency.Owner{}), rec)
		f.setTime(rec.Expires)
		f.claim(next, idempotency.Owner{})
		f.wantStored(next)
	}},

	{"a record can be finished until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		late := done(rec)
		late.Expires = rec.Expires.Add(time.Hour)
		f.setTime(rec.Expires)
		wantNotOwner(t, f.Finish(f.ctx, late))
		f.wantAbsent(rec.ID)

		rec = started("b")
		rec.Expires = f.time().Add(time.Nanosecond)
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"releasing an expired record with any token succeeds", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		wantNotOwner(t, f.Release(f.ctx, rec.ID, process.NewOwner()))
		f.setTime(rec.Expires)
		f.release(rec.ID, process.NewOwner())
	}},

	{"releasing an expired record does not touch what is claimed after", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", 0)
		next := started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		f.claim(next, idempotency.Owner{})
		wantNotOwner(t, f.Release(f.ctx, rec.ID, rec.Owner))
		f.wantStored(next)
	}},

	{"a record is unsettled until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		f.wantUnsettled(rec.Adoption, rec)
		f.setTime(rec.Expires)
		f.wantUnsettled(rec.Adoption)
	}},

	{"telling or settling an expired record does nothing", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", 0)
		f.tell(rec.ID, rec.Owner, f.time())
		f.settle(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},

	{"a claim after expiry forgets the unsettled record", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", 0)
		next := started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		f.claim(next, idempotency.Owner{})
		f.wantUnsettled(rec.Adoption)
	}},

	{"finishing may put expiry off", func(t *testing.T, f *fixture) {
		rec := f.claimed("a", time.Nanosecond)
		d := done(rec)
		d.Expires = rec.Expires.Add(24 * time.Hour)
		f.finish(d)
		f.setTime(d.Expires.Add(-time.Nanosecond))
		f.wantStored(d)
		f.setTime(d.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"finishing may bring expiry forward", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		d := done(rec)
		d.Expires = epoch.Add(time.Minute)
		f.finish(d)
		f.setTime(d.Expires.Add(-time.Nanosecond))
		f.wantStored(d)
		f.setTime(d.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"records expire each at its own time", func(t *testing.T, f *fixture) {
		var recs []*idempotency.Record
		for i, name := range []string{"a", "b", "c", "d"} {
			rec := started(name)
			rec.Expires = epoch.Add(time.Duration(4-i) * time.Second)
			f.claim(rec, idempotency.Owner{})
			recs = append(recs, rec)
		}
		for s := range 5 {
			now := epoch.Add(time.Duration(s) * time.Second)
			f.setTime(now)
			for _, rec := range recs {
				if rec.Expired(now) {
					f.wantAbsent(rec.ID)
				} else {
					f.wantStored(rec)
				}
			}
		}
	}},
}

var unsettledTests = []test{
	{"a claim with a key is never unsettled", func(t *testing.T, f *fixture) {
		f.claim(started("a"), idempotency.Owner{})
		f.wantUnsettled(idempotency.AdoptionID{})
	}},

	{"unsettled records are listed oldest first", func(t *testing.T, f *fixture) {
		x := adoption("x")
		var recs [3]*idempotency.Record
		for _, i := range []int{1, 2, 0} {
			recs[i] = keyless(string(rune('a'+i)), x)
			recs[i].Started = epoch.Add(time.Duration(i))
			f.claim(recs[i], idempotency.Owner{})
		}
		f.claim(keyless("other", adoption("y")), idempotency.Owner{})
		f.wantUnsettled(x, recs[:]...)
	}},

	{"a finished record stays unsettled", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.wantUnsettled(rec.Adoption, done(rec))
	}},

	{"a settled record is listed no more and stays", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.settle(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
		f.wantStored(done(rec))
	}},

	{"finishing does not make a settled record unsettled", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.finish(unknown(rec))
		f.settle(rec.ID, rec.Owner)
		f.finish(done(rec))
		f.wantUnsettled(rec.Adoption)
	}},

	{"settling with another's token does nothing", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.settle(rec.ID, process.NewOwner())
		f.settle(rec.ID, idempotency.Owner{})
		f.wantUnsettled(rec.Adoption, rec)
	}},

	{"settling what is settled or not there does nothing", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.settle(rec.ID, rec.Owner)
		f.claim(rec, idempotency.Owner{})
		f.settle(rec.ID, rec.Owner)
		f.settle(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
	}},

	{"settling leaves the others unsettled", func(t *testing.T, f *fixture) {
		x := adoption("x")
		a, b := keyless("a", x), keyless("b", x)
		f.claim(a, idempotency.Owner{})
		f.claim(b, idempotency.Owner{})
		f.settle(a.ID, a.Owner)
		f.wantUnsettled(x, b)
	}},

	{"a released record is listed no more", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.release(rec.ID, rec.Owner)
		f.wantUnsettled(rec.Adoption)
	}},

	{"taking over makes a record unsettled again", func(t *testing.T, f *fixture) {
		x := adoption("x")
		first, second := keyless("a", x), keyless("a", x)
		f.claim(first, idempotency.Owner{})
		f.settle(first.ID, first.Owner)
		f.wantUnsettled(x)
		f.claim(second, first.Owner)
		f.wantUnsettled(x, second)
	}},

	{"a claim that is refused leaves what is settled settled", func(t *testing.T, f *fixture) {
		x := adoption("x")
		first := keyless("a", x)
		f.claim(first, idempotency.Owner{})
		f.settle(first.ID, first.Owner)
		f.tryClaim(keyless("a", x), idempotency.Owner{})
		f.wantUnsettled(x)
	}},
}
