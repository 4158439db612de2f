package storetest

import (
	"bytes"
	"fmt"
	"net/http"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// process makes the suite's claims.
var process = idempotency.NewProcess()

// newClaim returns a claim that name makes at the given time. It expires an
// hour later.
func newClaim(name string, at time.Time) *idempotency.Record {
	return &idempotency.Record{
		ID:          idempotency.NewID("org", "scope", name),
		State:       idempotency.Started,
		Owner:       process.NewOwner(),
		Fingerprint: idempotency.Request{Method: "POST", Path: "/" + name}.Fingerprint(),
		Key:         name,
		UpstreamKey: idempotency.UpstreamKey("scope", name),
		Started:     at.Add(time.Nanosecond),
		Expires:     at.Add(time.Hour),
	}
}

func adoption(name string) idempotency.AdoptionID {
	return idempotency.NewAdoptionID("org", "scope", idempotency.Request{Path: "/" + name}.Fingerprint())
}

// done returns rec as it is after its call was answered.
func done(rec *idempotency.Record) *idempotency.Record {
	d := *rec
	d.State = idempotency.Done
	d.Finished = rec.Started.Add(3 * time.Second)
	d.Answer = &idempotency.Answer{
		Status: http.StatusOK,
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}}),
		Body:   []byte(`{"answer":"` + rec.Key + `"}`),
	}
	return &d
}

// unknown returns rec as it is after its call was lost.
func unknown(rec *idempotency.Record) *idempotency.Record {
	u := *rec
	u.State = idempotency.Unknown
	u.Finished = rec.Started.Add(2 * time.Second)
	u.Answer = nil
	return &u
}

// same tells whether two records are equal as far as stores promise: times by
// the instant, empty bodies whether nil or not.
func same(a, b *idempotency.Record) bool {
	return a.ID == b.ID && a.State == b.State && a.Owner == b.Owner &&
		a.Fingerprint == b.Fingerprint && a.Key == b.Key && a.UpstreamKey == b.UpstreamKey &&
		a.Honored == b.Honored && a.Adoption == b.Adoption &&
		a.Started.Equal(b.Started) && a.Finished.Equal(b.Finished) &&
		a.Told.Equal(b.Told) && a.Told.IsZero() == b.Told.IsZero() &&
		a.Expires.Equal(b.Expires) && sameAnswer(a.Answer, b.Answer)
}

func sameAnswer(a, b *idempotency.Answer) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Status == b.Status && a.Header == b.Header && bytes.Equal(a.Body, b.Body)
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
