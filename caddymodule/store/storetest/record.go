package storetest

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
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

// label returns a label with all of its fields set.
func label() idempotency.Label {
	return idempotency.Label{
		Organisation: idempotency.NewOrganisationID("org"),
		Scope:        idempotency.NewScopeID("org", "scope"),
		Action:       "custom_-_action",
	}
}

// journal returns a journal that is full, each text as long as it may be.
func journal(at time.Time) (j idempotency.Journal) {
	text := func(i int) string {
		return strings.Repeat(string(rune('a'+i)), idempotency.MaxText-1) + "\x00"
	}
	for i := range idempotency.MaxAttempts {
		j.Attempts = append(j.Attempts, idempotency.Attempt{
			Started:       at.Add(time.Duration(i) * time.Second),
			Waited:        time.Duration(i),
			Paused:        time.Duration(i / 2),
			Paced:         time.Minute + time.Duration(i),
			Took:          time.Hour + time.Duration(i),
			Written:       i%2 == 0,
			Status:        100*(i%6) + i,
			CorrelationID: text(i),
			Verdict:       fmt.Sprint("verdict ", i),
			Error:         text(i + 1),
		})
	}
	for i := range idempotency.MaxWords {
		j.Words = append(j.Words, idempotency.Word{
			Said: at.Add(time.Duration(i) * time.Minute), Executed: i%3 == 0, Note: text(i),
		})
	}
	j.Skipped = 12345
	return j
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
		a.Expires.Equal(b.Expires) && a.Label == b.Label && sameJournal(a.Journal, b.Journal) &&
		sameAnswer(a.Answer, b.Answer) && sameDeferred(a.Deferred, b.Deferred)
}

func sameJournal(a, b idempotency.Journal) bool {
	return a.Skipped == b.Skipped && slices.EqualFunc(a.Attempts, b.Attempts, sameAttempt) &&
		slices.EqualFunc(a.Words, b.Words, sameWord)
}

func sameAttempt(a, b idempotency.Attempt) bool {
	same := a.Started.Equal(b.Started)
	a.Started, b.Started = time.Time{}, time.Time{}
	return same && a == b
}

func sameWord(a, b idempotency.Word) bool {
	return a.Said.Equal(b.Said) && a.Executed == b.Executed && a.Note == b.Note
}

func sameAnswer(a, b *idempotency.Answer) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Status == b.Status && a.Header == b.Header && bytes.Equal(a.Body, b.Body)
}

func sameDeferred(a, b *idempotency.Deferred) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Place == b.Place && a.Lane == b.Lane && a.Since.Equal(b.Since) && a.Policy == b.Policy &&
		a.Method == b.Method && a.URL == b.URL && a.Header == b.Header && bytes.Equal(a.Body, b.Body)
}

// show prints a record with the start of its body only.
func show(rec *idempotency.Record) string {
	if rec == nil {
		return "no record"
	}
	c := *rec
	c.Answer, c.Deferred = nil, nil
	s := fmt.Sprintf("%+v", c)
	if a := rec.Answer; a != nil {
		s += fmt.Sprintf(" status %d, header %q, body of %d bytes %.64q", a.Status, a.Header, len(a.Body), a.Body)
	}
	if d := rec.Deferred; d != nil {
		s += fmt.Sprintf(" place %q, lane %x, since %v, policy %x, %s %q, header %q, body of %d bytes %.64q",
			d.Place, d.Lane, d.Since, d.Policy, d.Method, d.URL, d.Header, len(d.Body), d.Body)
	}
	return s
}
