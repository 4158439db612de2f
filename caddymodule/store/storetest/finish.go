package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

var finishTests = []test{
	{"finishing replaces the record", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"finishing another's record changes nothing", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		wantNotOwner(t, f.Finish(f.ctx, done(started("a"))))
		f.wantStored(rec)
	}},

	{"finishing a record that was taken over changes nothing", func(t *testing.T, f *fixture) {
		first, second := started("a"), started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		wantNotOwner(t, f.Finish(f.ctx, done(first)))
		f.wantStored(second)
	}},

	{"finishing a record that is not there makes none", func(t *testing.T, f *fixture) {
		rec := done(started("a"))
		wantNotOwner(t, f.Finish(f.ctx, rec))
		f.wantAbsent(rec.ID)
	}},

	{"a late answer makes an unknown record done", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		f.finish(unknown(rec))
		f.wantStored(unknown(rec))
		f.finish(done(rec))
		f.wantStored(done(rec))
	}},

	{"a tombstone is done and has no answer", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		tombstone := done(rec)
		tombstone.Answer = nil
		f.finish(tombstone)
		f.wantStored(tombstone)
	}},
}

var releaseTests = []test{
	{"releasing removes the record", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		f.release(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},

	{"a released ID can be claimed again", func(t *testing.T, f *fixture) {
		first, second := started("a"), started("a")
		f.claim(first, idempotency.Owner{})
		f.release(first.ID, first.Owner)
		f.claim(second, idempotency.Owner{})
		f.wantStored(second)
	}},

	{"releasing another's record changes nothing", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		wantNotOwner(t, f.Release(f.ctx, rec.ID, process.NewOwner()))
		f.wantStored(rec)
	}},

	{"releasing a record that was taken over changes nothing", func(t *testing.T, f *fixture) {
		first, second := started("a"), started("a")
		f.claim(first, idempotency.Owner{})
		f.claim(second, first.Owner)
		wantNotOwner(t, f.Release(f.ctx, first.ID, first.Owner))
		f.wantStored(second)
	}},

	{"releasing a record that is not there succeeds", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.release(rec.ID, rec.Owner)
		f.wantAbsent(rec.ID)
	}},
}

var tellTests = []test{
	{"telling sets when a caller was told", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		want := unknown(rec)
		f.finish(want)
		want.Told = epoch.Add(time.Minute + time.Nanosecond)
		f.tell(rec.ID, rec.Owner, want.Told)
		f.wantStored(want)
	}},

	{"telling with another's token does nothing", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		f.tell(rec.ID, process.NewOwner(), epoch.Add(time.Minute))
		f.wantStored(rec)
	}},

	{"telling of a record that is not there does nothing", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.tell(rec.ID, rec.Owner, epoch)
		f.wantAbsent(rec.ID)
	}},

	{"telling keeps a record unsettled", func(t *testing.T, f *fixture) {
		rec := keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		f.tell(rec.ID, rec.Owner, epoch.Add(time.Minute))
		want := *rec
		want.Told = epoch.Add(time.Minute)
		f.wantUnsettled(rec.Adoption, &want)
	}},

	{"telling does not change the record that was handed out", func(t *testing.T, f *fixture) {
		rec := started("a")
		f.claim(rec, idempotency.Owner{})
		before := f.get(rec.ID)
		f.tell(rec.ID, rec.Owner, epoch.Add(time.Minute))
		wantSame(t, before, rec)
	}},
}

// wantNotOwner fails the test unless err is ErrNotOwner.
func wantNotOwner(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, idempotency.ErrNotOwner) {
		t.Errorf("got the error %v, want %q", err, idempotency.ErrNotOwner)
	}
}

// show prints a record with the start of its body only.
func show(rec *idempotency.Record) string {
	if rec == nil {
		return "no record"
	}
	c := *rec
	c.Answer = nil
	s := fmt.Sprintf("%+v", c)
	if a := rec.Answer; a != nil {
		s += fmt.Sprintf(" status %d, header %q, body of %d bytes %.64q", a.Status, a.Header, len(a.Body), a.Body)
	}
	return s
}
