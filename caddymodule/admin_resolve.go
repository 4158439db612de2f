package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"genesys-sidecar/caddymodule/idempotency"
)

// maxResolution bounds the body of a resolution, in bytes.
const maxResolution = 16 << 20

// resolutionJSON is what POST /genesys/calls/{id}/resolve takes.
type resolutionJSON struct {
	Outcome string            `json:"outcome"`
	Note    string            `json:"note"`
	Answer  *resolutionAnswer `json:"answer"`
}

// resolutionAnswer is what repeats of a call that ran are to be told.
type resolutionAnswer struct {
	Status int                        `json:"status"`
	Header map[string]json.RawMessage `json:"header"` // each a string or a list of them
	Body   json.RawMessage            `json:"body"`   // a string is taken as it is, all else as JSON
}

// resolveCall takes an operator's word on a call whose outcome nobody knows.
func resolveCall(w http.ResponseWriter, r *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	word, err := readResolution(w, r)
	if err != nil {
		return err
	}
	id, err := a.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	rec, err := a.backend.gate.Resolve(r.Context(), id, word)
	if err != nil {
		return err
	}
	outcome := outcomeNotExecuted
	if word.Executed {
		outcome = outcomeExecuted
	}
	a.log.Info("a call was resolved by an operator", idField(id), outcomeField(outcome))
	call := newCallJSON(rec, rec.State)
	call.Key, call.UpstreamKey = rec.Key, rec.UpstreamKey
	writeJSON(w, http.StatusOK, call)
	return nil
}

func readResolution(w http.ResponseWriter, r *http.Request) (word idempotency.Resolution, err error) {
	if !isJSON(r) {
		return word, &apiError{http.StatusUnsupportedMediaType, "a resolution is JSON; send it with Content-Type: application/json"}
	}
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxResolution))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return word, &apiError{http.StatusRequestEntityTooLarge, fmt.Sprintf("a resolution has at most %d bytes", maxResolution)}
	case err != nil:
		return word, badInput("reading resolution: %v", err)
	}
	var res resolutionJSON
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&res); err != nil {
		return word, badInput(`reading resolution: %v; it must be like {"outcome": "executed", "answer": {"status": 200, "body": {…}}, "note": "…"}`, err)
	}
	if dec.More() {
		return word, badInput("reading resolution: something follows its end")
	}
	strict := jsontext.Value(raw)
	if err := strict.Format(); err != nil { // such as a member that is given twice
		return word, badInput("reading resolution: %v", err)
	}
	switch res.Outcome {
	case string(outcomeExecuted):
		word.Executed = true
	case string(outcomeNotExecuted):
		if res.Answer != nil {
			return word, badInput("a call that did not run has no answer; leave answer out")
		}
	default:
		return word, badInput("outcome is %q; it must be executed (the call ran, and is not sent again while it is on record) or not_executed (it did not, and its key is free)", res.Outcome)
	}
	if len(res.Note) > idempotency.MaxText {
		return word, badInput("the note has %d bytes; it may have %d", len(res.Note), idempotency.MaxText)
	}
	word.Note = res.Note
	if res.Answer != nil {
		if word.Answer, err = res.Answer.answer(); err != nil {
			return word, err
		}
	}
	return word, nil
}

// answer returns the answer as it is kept.
func (r *resolutionAnswer) answer() (*idempotency.Answer, error) {
	if r.Status == 0 {
		r.Status = http.StatusOK
	}
	if r.Status < 200 || r.Status > 599 {
		return nil, badInput("the answer's status is %d; it must be from 200 to 599", r.Status)
	}
	header := make(http.Header, len(r.Header))
	for name, raw := range r.Header {
		values, err := headerValues(raw)
		if err != nil || !validFieldName(name) || slices.ContainsFunc(values, func(v string) bool { return strings.ContainsAny(v, "\r\n\x00") }) {
			return nil, badInput("the answer's header %q must be a string or a list of strings", name)
		}
		header[http.CanonicalHeaderKey(name)] = values
	}
	answer := &idempotency.Answer{Status: r.Status}
	var text string
	switch body := bytes.TrimSpace(r.Body); {
	case len(body) == 0 || bytes.Equal(body, []byte("null")):
	case json.Unmarshal(body, &text) == nil:
		answer.Body = []byte(text)
	default:
		answer.Body = body
	}
	if len(answer.Body) > 0 && header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	answer.Header = keptHeader(header)
	return answer, nil
}

func headerValues(raw json.RawMessage) (values []string, err error) {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}, nil
	}
	return values, json.Unmarshal(raw, &values)
}
