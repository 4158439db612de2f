package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// largeBody is the length of the largest body that stores must take: the
// default limit of answers that are kept.
const largeBody = 8 << 20

// keeps returns a test that an answer comes back as it went in.
func keeps(answer func() *idempotency.Answer) func(*testing.T, *fixture) {
	return func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		rec = done(rec)
		rec.Answer = answer()
		f.finish(rec)
		want := *rec
		want.Answer = answer()
		f.wantStored(&want)
	}
}

var fidelityTests = []test{
	{"every field is kept", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		rec.Honored = true
		rec.Told = f.epoch.Add(7)
		rec.Label, rec.Journal = label(), journal(f.epoch)
		f.claim(rec, idempotency.Owner{})
		f.wantStored(rec)
		for _, s := range []idempotency.State{
			idempotency.Started, idempotency.Done, idempotency.Unknown, idempotency.Open, idempotency.Released,
		} {
			next := done(rec)
			next.State = s
			f.finish(next)
			f.wantStored(next)
		}
	}},

	{"each field of a label is kept without the others", func(t *testing.T, f *fixture) {
		all := label()
		for i, l := range []idempotency.Label{{Organisation: all.Organisation}, {Scope: all.Scope}, {Action: all.Action}, {}} {
			rec := f.started(fmt.Sprint("a", i))
			rec.Label = l
			f.claim(rec, idempotency.Owner{})
			f.wantStored(rec)
			f.finish(done(rec))
			f.wantStored(done(rec))
		}
	}},

	{"each field of an attempt and of a word is kept without the others", func(t *testing.T, f *fixture) {
		for i, j := range []idempotency.Journal{
			{},
			{Skipped: 7},
			{Attempts: []idempotency.Attempt{{}}},
			{Attempts: []idempotency.Attempt{{Started: f.epoch.Add(1)}}},
			{Attempts: []idempotency.Attempt{{Waited: 1}, {Took: 1}}},
			{Attempts: []idempotency.Attempt{{}, {Paused: 1}}},
			{Attempts: []idempotency.Attempt{{Paced: 1}, {}}},
			{Attempts: []idempotency.Attempt{{Written: true}, {Status: 500}}},
			{Attempts: []idempotency.Attempt{{CorrelationID: "\xff"}, {Verdict: "b"}, {Error: "c"}}},
			{Words: []idempotency.Word{{}}},
			{Words: []idempotency.Word{{Said: f.epoch.Add(1)}, {Executed: true}, {Note: "\xff"}}},
		} {
			rec := f.started(fmt.Sprint("a", i))
			rec.Journal = j
			f.claim(rec, idempotency.Owner{})
			f.wantStored(rec)
			f.finish(done(rec))
			f.wantStored(done(rec))
		}
	}},

	{"finishing replaces label and journal", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		rec = unknown(rec)
		rec.Label, rec.Journal = label(), journal(f.epoch)
		f.finish(rec)
		f.wantStored(rec)
		rec = done(rec)
		rec.Label.Action, rec.Journal = "another", idempotency.Journal{}
		f.finish(rec)
		f.wantStored(rec)
	}},

	{"a take-over replaces label and journal", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		rec.Label, rec.Journal = label(), journal(f.epoch)
		f.claim(rec, idempotency.Owner{})
		next := f.started("a")
		f.claim(next, rec.Owner)
		f.wantStored(next)
	}},

	{"telling and settling leave label and journal as they are", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		rec = unknown(rec)
		rec.Label, rec.Journal = label(), journal(f.epoch)
		f.finish(rec)
		rec.Told = f.epoch.Add(time.Minute)
		f.tell(rec.ID, rec.Owner, rec.Told)
		f.wantUnsettled(rec.Adoption, rec)
		f.settle(rec.ID, rec.Owner)
		f.wantStored(rec)
	}},

	{"fields may hold any bytes", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		rec.Key, rec.UpstreamKey = "", "\x00\xff\n\"'"
		f.claim(rec, idempotency.Owner{})
		f.wantStored(rec)
	}},

	{"times are kept to the nanosecond", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		rec.Started = f.epoch.Add(1)
		f.claim(rec, idempotency.Owner{})
		rec = done(rec)
		rec.Finished, rec.Expires, rec.Told = f.epoch.Add(2), f.epoch.Add(time.Hour+3), f.epoch.Add(4)
		f.finish(rec)
		f.wantStored(rec)
	}},

	{"zero times stay zero", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		rec.Started = time.Time{}
		f.claim(rec, idempotency.Owner{})
		got := f.get(rec.ID)
		if got == nil || !got.Started.IsZero() || !got.Finished.IsZero() || !got.Told.IsZero() {
			t.Errorf("got %v", show(got))
		}
	}},

	{"headers with several values are kept in order", keeps(func() *idempotency.Answer {
		return &idempotency.Answer{Status: 200, Header: idempotency.NewHeader(http.Header{
			"Link": {"<b>", "<a>", "<a>", ""}, "X-Bytes": {"\x80\xff"}, "x-lower": {"1"},
		})}
	})},
	{"any status is kept", keeps(func() *idempotency.Answer { return &idempotency.Answer{Status: 599} })},
	{"an answer without headers and body is kept", keeps(func() *idempotency.Answer {
		return &idempotency.Answer{Status: http.StatusNoContent}
	})},
	{"an answer with empty headers and an empty body is kept", keeps(func() *idempotency.Answer {
		return &idempotency.Answer{Status: http.StatusOK, Header: idempotency.NewHeader(http.Header{}), Body: []byte{}}
	})},
	{"a binary body is kept", keeps(func() *idempotency.Answer {
		body := make([]byte, 256)
		for i := range body {
			body[i] = byte(i)
		}
		return &idempotency.Answer{Status: http.StatusOK, Body: body}
	})},
	{"a large body is kept", func(t *testing.T, f *fixture) {
		body := make([]byte, largeBody)
		rand.Read(body)
		keeps(func() *idempotency.Answer {
			return &idempotency.Answer{Status: http.StatusOK, Body: body}
		})(t, f)
	}},

	{"the caller may use its record again", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		want := *rec
		f.claim(rec, idempotency.Owner{})
		*rec = idempotency.Record{State: idempotency.Open, Key: "other"}
		f.wantStored(&want)

		rec = done(&want)
		want = *rec
		f.finish(rec)
		rec.State, rec.Answer = idempotency.Unknown, nil
		f.wantStored(&want)
	}},

	{"a record that was handed out does not change", func(t *testing.T, f *fixture) {
		rec := f.started("a")
		f.claim(rec, idempotency.Owner{})
		before := f.get(rec.ID)
		f.finish(done(rec))
		f.wantSame(before, rec)
		after := f.get(rec.ID)
		f.release(rec.ID, rec.Owner)
		f.claim(f.started("a"), idempotency.Owner{})
		f.wantSame(after, done(rec))
	}},
}

var contextTests = []test{
	{"a cancelled context changes nothing", func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(f.ctx)
		cancel()
		rec := f.keyless("a", adoption("x"))
		f.claim(rec, idempotency.Owner{})
		absent := f.keyless("b", rec.Adoption)

		_, getErr := f.Get(ctx, rec.ID)
		_, claimErr := f.Claim(ctx, absent, idempotency.Owner{})
		_, takeErr := f.Claim(ctx, f.keyless("a", rec.Adoption), rec.Owner)
		_, listErr := f.Unsettled(ctx, rec.Adoption)
		for method, err := range map[string]error{
			"Get":       getErr,
			"Claim":     claimErr,
			"take-over": takeErr,
			"Unsettled": listErr,
			"Finish":    f.Finish(ctx, done(rec)),
			"Release":   f.Release(ctx, rec.ID, rec.Owner),
			"Settle":    f.Settle(ctx, rec.ID, rec.Owner),
			"Tell":      f.Tell(ctx, rec.ID, rec.Owner, f.epoch),
		} {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got the error %v, want %q", method, err, context.Canceled)
			}
		}
		f.wantStored(rec)
		f.wantAbsent(absent.ID)
		f.wantUnsettled(rec.Adoption, rec)
	}},
}

var reopenTests = []test{
	{"reopening keeps every record", func(t *testing.T, f *fixture) {
		a, b, c := f.started("a"), f.started("b"), f.started("c")
		for _, rec := range []*idempotency.Record{a, b, c} {
			f.claim(rec, idempotency.Owner{})
		}
		f.finish(done(b))
		f.release(c.ID, c.Owner)
		for range 3 {
			f.reopen()
			f.wantStored(a)
			f.wantStored(done(b))
			f.wantAbsent(c.ID)
		}
		f.finish(done(a))
		f.wantStored(done(a))
	}},

	{"reopening keeps what is unsettled", func(t *testing.T, f *fixture) {
		x := adoption("x")
		a, b, c := f.keyless("a", x), f.keyless("b", x), f.keyless("c", x)
		a.Started = f.epoch.Add(2 * time.Second)
		for _, rec := range []*idempotency.Record{a, b, c} {
			f.claim(rec, idempotency.Owner{})
		}
		f.settle(c.ID, c.Owner)
		f.reopen()
		f.wantUnsettled(x, b, a)
	}},
}
