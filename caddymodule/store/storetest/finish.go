package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var finishTests = []test{
	{"finishing replaces the record", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"finishing another's record changes nothing", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.wantNotOwner(f.Finish(f.ctx, done(f.started("a"))))
		f.wantStored(rec)
	}},

	{"finishing a record that was taken over changes nothing", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		f.wantNotOwner(f.Finish(f.ctx, done(first)))
		f.wantStored(second)
	}},

	{"finishing a record that is not there makes none", func(t *testing.T, f *fixture) {
		rec := done(f.started("a"))
		f.wantNotOwner(f.Finish(f.ctx, rec))
		f.wantAbsent(rec.ID)
	}},

	{"a late answer makes an unknown record done", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.finish(unknown(rec))
		f.wantStored(unknown(rec))
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"a tombstone is done and has no answer", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		tombstone := done(rec)
		tombstone.Answer = nil
		f.finish(tombstone)
		f.wantStored(tombstone)
	}},
}

var releaseTests = []test{
	{"releasing removes the record", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.release(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},

	{"a released ID can be claimed again", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.release(first.ID, first.Owner)
		f.claim(second, idempotency.Owner{})
		f.wantStored(second)
	}},

	{"releasing another's record changes nothing", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.wantNotOwner(f.Release(f.ctx, rec.ID, process.NewOwner()))
		f.wantStored(rec)
	}},

	{"releasing a record that was taken over changes nothing", func(t *testing.T, f *fixture) {
		first, second := f.started("a"), f.started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		f.wantNotOwner(f.Release(f.ctx, first.ID, first.Owner))
		f.wantStored(second)
	}},

	{"releasing a record that is not there succeeds", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.release(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},
}

var tellTests = []test{
	{"telling sets when a caller was told", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		want := unknown(rec)
		f.finish(want)
		want.Told = f.epoch.Add(time.Minute + time.Nanosecond)
		f.tell(rec.ID, rec.Owner, want.Told)
		f.wantStored(want)
	}},

	{"telling with another's token does nothing", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		f.tell(rec.ID, process.NewOwner(), f.epoch.Add(time.Minute))
		f.wantStored(rec)
	}},

	{"telling of a record that is not there does nothing", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.tell(rec.ID, rec.Owner, f.epoch)
		f.wantAbsent(rec.ID)
	}},

	{"telling keeps a record unsettled", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.tell(rec.ID, rec.Owner, f.epoch.Add(time.Minute))
		want := *rec
		want.Told = f.epoch.Add(time.Minute)
		f.wantUnsettled(rec.Adoption, &want)
	}},

	{"telling does not change the record that was handed out", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		before := f.get(rec.ID)
		f.tell(rec.ID, rec.Owner, f.epoch.Add(time.Minute))
		f.wantSame(before, rec)
	}},
}
