package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"

	"genesys-sidecar/caddymodule/idempotency"
)

// callJSON is a call as the admin API tells it. Durations are in seconds.
type callJSON struct {
	ID           string `json:"id"`
	Digest       string `json:"digest"`
	State        string `json:"state"`
	Organization string `json:"organization"`
	Action       string `json:"action"`
	Scope        string `json:"scope,omitempty"`
	KeyDigest    string `json:"key_digest,omitempty"`
	Key          string `json:"key,omitempty"`
	UpstreamKey  string `json:"upstream_key,omitempty"`
	Keyless      bool   `json:"keyless"`
	Honored      bool   `json:"honored"`
	Resolvable   bool   `json:"resolvable"`

	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
	Told     time.Time `json:"told,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`

	Answer          *answerJSON   `json:"answer,omitempty"`
	Attempts        []attemptJSON `json:"attempts"`
	AttemptsSkipped int           `json:"attempts_skipped,omitempty"`
	Words           []wordJSON    `json:"words,omitempty"`
}

type answerJSON struct {
	Status      int         `json:"status"`
	ContentType string      `json:"content_type,omitempty"`
	Size        *int        `json:"size,omitempty"` // in bytes; not in listings
	Header      http.Header `json:"header,omitempty"`
	Body        *string     `json:"body,omitempty"`
	BodyBase64  []byte      `json:"body_base64,omitempty"`
}

type attemptJSON struct {
	Started       time.Time `json:"started"`
	Waited        float64   `json:"waited"`
	Paused        float64   `json:"paused,omitempty"` // the part of waited that the organisation's pause took
	Paced         float64   `json:"paced,omitempty"`  // the part of waited that its budget took
	Took          float64   `json:"took"`
	Written       bool      `json:"written"`
	Status        int       `json:"status,omitempty"`
	CorrelationID string    `json:"correlation_id,omitempty"`
	Verdict       string    `json:"verdict"`
	Error         string    `json:"error,omitempty"`
}

type wordJSON struct {
	Said    time.Time `json:"said"`
	Outcome outcome   `json:"outcome"`
	Note    string    `json:"note,omitempty"`
}

// newCallJSON returns rec, which means standing now, as it is told without being
// asked for more: neither its key nor what was answered.
func newCallJSON(rec *idempotency.Record, standing idempotency.State) *callJSON {
	call := &callJSON{
		ID:           idText(rec.ID),
		Digest:       rec.ID.String(),
		State:        standing.String(),
		Organization: organizationName(rec.Label.Organisation),
		Action:       rec.Label.Action,
		Keyless:      rec.Adoption != idempotency.AdoptionID{},
		Honored:      rec.Honored,
		Resolvable:   standing == idempotency.Unknown || standing == idempotency.Open,
		Started:      rec.Started.UTC(),
		Finished:     rec.Finished.UTC(),
		Told:         rec.Told.UTC(),
		Expires:      rec.Expires.UTC(),
		Attempts:     make([]attemptJSON, len(rec.Journal.Attempts)),

		AttemptsSkipped: rec.Journal.Skipped,
	}
	if rec.Label.Scope != (idempotency.ScopeID{}) {
		call.Scope = hex.EncodeToString(rec.Label.Scope[:])
	}
	if rec.Key != "" {
		sum := sha256.Sum256([]byte(rec.Key))
		call.KeyDigest = hex.EncodeToString(sum[:digestSize])
	}
	if rec.Answer != nil {
		size := len(rec.Answer.Body)
		call.Answer = &answerJSON{
			Status:      rec.Answer.Status,
			ContentType: rec.Answer.Header.HTTP().Get("Content-Type"),
			Size:        &size,
		}
	}
	for i, a := range rec.Journal.Attempts {
		call.Attempts[i] = attemptJSON{
			Started:       a.Started.UTC(),
			Waited:        a.Waited.Seconds(),
			Paused:        a.Paused.Seconds(),
			Paced:         a.Paced.Seconds(),
			Took:          a.Took.Seconds(),
			Written:       a.Written,
			Status:        a.Status,
			CorrelationID: a.CorrelationID,
			Verdict:       a.Verdict,
			Error:         a.Error,
		}
	}
	for _, word := range rec.Journal.Words {
		said := wordJSON{Said: word.Said.UTC(), Outcome: outcomeNotExecuted, Note: word.Note}
		if word.Executed {
			said.Outcome = outcomeExecuted
		}
		call.Words = append(call.Words, said)
	}
	return call
}

// idText returns id in full.
func idText(id idempotency.ID) string { return hex.EncodeToString(id[:]) }

func idField(id idempotency.ID) zap.Field { return zap.String("call", id.String()) }

func outcomeField(o outcome) zap.Field { return zap.String("outcome", string(o)) }

// validFieldName tells whether name can be the name of a header.
func validFieldName(name string) bool { return httpguts.ValidHeaderFieldName(name) }
