package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// tell tells the caller an outcome, and the gate whether that arrived.
func (h *Handler) tell(w http.ResponseWriter, r *http.Request, out *idempotency.Outcome) error {
	answer := out.Answer
	if answer == nil {
		answer = leftBehind().answer(out.ID)
	}
	header := w.Header()
	values := []string{idempotency.FormatKey(out.Key), "true", cacheStatus(out)}
	if out.Key != "" { // else it was erased
		header["Idempotency-Key"] = values[0:1:1]
	}
	if out.Manner != idempotency.Executed {
		header["Idempotent-Replayed"] = values[1:2:2]
	}
	if before := header["Cache-Status"]; len(before) > 0 {
		header["Cache-Status"] = append(before, values[2])
	} else {
		header["Cache-Status"] = values[2:3:3]
	}

	// Looked at before, not after: a caller that has got its answer may well
	// hang up before the next line is reached.
	stayed := !out.Tracked() || present(r.Context())
	err := writeAnswer(w, answer, out.Rest)
	if err == nil && out.Tracked() {
		if err = http.NewResponseController(w).Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil // there is nothing to be learnt, then
		}
	}
	out.Settle(err == nil && stayed)
	if err != nil {
		// There is nobody to tell, and the status is out.
		h.log.Debug("the caller left before its answer was written")
	}
	if out.Rest != nil && err != nil {
		panic(http.ErrAbortHandler) // else a cut answer would look whole
	}
	return nil
}

// cacheStatus returns what a Cache-Status header says of out (RFC 9211).
func cacheStatus(out *idempotency.Outcome) string {
	b := make([]byte, 0, 64)
	switch out.Manner {
	case idempotency.Replayed:
		b = append(b, "genesys; hit"...)
		if out.Stored {
			b = append(b, "; ttl="...)
			b = strconv.AppendInt(b, int64(out.TTL/time.Second), 10)
		}
	case idempotency.Shared:
		b = append(b, "genesys; fwd=miss; collapsed"...)
	default:
		b = append(b, "genesys; fwd=miss"...)
		if out.Stored {
			b = append(b, "; stored"...)
		}
	}
	if out.Fate == idempotency.Unsure || out.Doubtful {
		b = append(b, "; detail=OUTCOME-UNKNOWN"...)
	}
	return string(b)
}

// writeAnswer writes answer and then rest, which it closes.
func writeAnswer(w http.ResponseWriter, answer *idempotency.Answer, rest io.ReadCloser) error {
	header := w.Header()
	for name, values := range answer.Header.All() {
		if name == "Cache-Status" { // a list: the nearest cache comes last
			values = append(values, header[name]...)
		}
		header[name] = values
	}
	if rest == nil && bodyAllowed(answer.Status) {
		header["Content-Length"] = []string{strconv.Itoa(len(answer.Body))}
	}
	w.WriteHeader(answer.Status)
	_, err := w.Write(answer.Body)
	if rest == nil {
		return err
	}
	defer rest.Close()
	if err == nil {
		_, err = io.Copy(w, rest)
	}
	return err
}

// bodyAllowed tells whether an answer with status may have a body.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
