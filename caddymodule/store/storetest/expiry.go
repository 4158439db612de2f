package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// claimMortal returns a mortal record that has been claimed, and sets the clock
// to the instant before it expires.
func (f *fixture) claimMortal(name string) *idempotency.Record {
	f.t.Helper()
	rec := f.mortal(name)
	f.claim(rec, idempotency.Owner{})
	f.setTimeBefore(rec.Expires)
	return rec
}

// claimExpired returns a record that has been claimed and has expired.
func (f *fixture) claimExpired(name string) *idempotency.Record {
	f.t.Helper()
	rec := f.claimMortal(name)
	f.setTime(rec.Expires)
	return rec
}

var expiryTests = []test{
	{"a record is there until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		f.wantStored(rec)
		f.setTime(rec.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"a record stands in the way until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		next := f.started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		f.wantSame(f.tryClaim(next, idempotency.Owner{}), rec)
		f.setTime(rec.Expires)
		f.claim(next, idempotency.Owner{})
		f.wantStored(next)
	}},

	{"a record can be finished until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		late := done(rec)
		late.Expires = rec.Expires.Add(time.Hour)
		f.setTime(rec.Expires)
		f.wantNotOwner(f.Finish(f.ctx, late))
		f.wantAbsent(rec.ID)

		rec = f.claimMortal("b")
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"releasing an expired record with any token succeeds", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		f.wantNotOwner(f.Release(f.ctx, rec.ID, process.NewOwner()))
		f.setTime(rec.Expires)
		f.release(rec.ID, process.NewOwner())
	}},

	{"releasing an expired record does not touch what is claimed after", func(t *testing.T, f *fixture) {
		rec := f.claimExpired("a")
		next := f.started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		f.claim(next, idempotency.Owner{})
		f.wantNotOwner(f.Release(f.ctx, rec.ID, rec.Owner))
		f.wantStored(next)
	}},

	{"a record is unsettled until the instant it expires", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		f.wantUnsettled(rec.Adoption, rec)
		f.setTime(rec.Expires)
		f.wantUnsettled(rec.Adoption)
	}},

	{"telling or settling an expired record does nothing", func(t *testing.T, f *fixture) {
		rec := f.claimExpired("a")
		f.tell(rec.ID, rec.Owner, f.time())
		f.settle(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},

	{"a claim after expiry forgets the unsettled record", func(t *testing.T, f *fixture) {
		rec := f.claimExpired("a")
		next := f.started("a")
		next.Expires = rec.Expires.Add(time.Hour)
		f.claim(next, idempotency.Owner{})
		f.wantUnsettled(rec.Adoption)
	}},

	{"finishing may put expiry off", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		d := done(rec)
		d.Expires = rec.Expires.Add(f.life)
		f.finish(d)
		f.setTime(rec.Expires)
		f.wantStored(d)
		f.setTimeBefore(d.Expires)
		f.wantStored(d)
		f.setTime(d.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"finishing may bring expiry forward", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		d := done(rec)
		d.Expires = f.time().Add(f.life / 2)
		f.finish(d)
		f.setTimeBefore(d.Expires)
		f.wantStored(d)
		f.setTime(d.Expires)
		f.wantAbsent(rec.ID)
	}},

	{"records expire each at its own time", func(t *testing.T, f *fixture) {
		var recs []*idempotency.Record
		start := f.time()
		for i, name := range []string{"a", "b", "c", "d"} {
			rec := f.started(name)
			rec.Expires = start.Add(time.Duration(4-i) * time.Second)
			f.claim(rec, idempotency.Owner{})
			recs = append(recs, rec)
		}
		for s := range 5 {
			now := start.Add(time.Duration(s) * time.Second)
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

	{"reopening keeps when records expire", func(t *testing.T, f *fixture) {
		rec := f.claimMortal("a")
		f.reopen()
		f.wantStored(rec)
		f.setTime(rec.Expires)
		f.wantAbsent(rec.ID)
	}},
}
