package caddymodule

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"genesys-sidecar/caddymodule/idempotency"
)

// The values of Handler.Async and Handler.AsyncOrder.
const (
	asyncPrefer = "prefer"
	asyncOn     = "on"
	asyncOff    = "off"

	asyncOrderScope = "scope"
	asyncOrderNone  = "none"
)

// preference is what a caller says of how long it would wait (RFC 7240).
type preference struct {
	async bool          // respond-async
	wait  time.Duration // how long the caller would wait all the same
}

// maxPreferredWait is the longest wait that a caller is granted.
const maxPreferredWait = 5 * time.Minute

// preferenceOf reads the header Prefer. What it does not understand, it leaves, as
// RFC 7240 has it; of a preference that is given twice, the first counts.
func preferenceOf(header http.Header) (p preference) {
	waits := false
	for _, line := range header["Prefer"] {
		for one := range strings.SplitSeq(line, ",") {
			one, _, _ = strings.Cut(one, ";") // its parameters
			name, value, _ := strings.Cut(one, "=")
			value = strings.Trim(strings.TrimSpace(value), `"`)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "respond-async":
				p.async = true
			case "wait":
				if n, err := strconv.ParseUint(value, 10, 31); err == nil && !waits {
					waits = true
					p.wait = min(time.Duration(n)*time.Second, maxPreferredWait)
				}
			}
		}
	}
	return p
}

// later returns call as it is to be handed over, nil where it is not.
func (h *Handler) later(p preference, a *action, header http.Header, label idempotency.Label) *idempotency.Deferred {
	if !p.async && h.Async != asyncOn || h.Async == asyncOff || !h.app.backend.gate.Defers() {
		return nil
	}
	delete(header, "Prefer") // it has been followed
	d := &idempotency.Deferred{
		Lane:   idempotency.LaneID(label.Scope),
		Policy: h.policy,
		Method: a.method,
		URL:    a.url.RequestURI(),
		Header: idempotency.NewHeader(header),
		Body:   a.body,
	}
	if label.Scope == (idempotency.ScopeID{}) { // else organisations would wait for each other
		copy(d.Lane[:], label.Organisation[:])
	}
	if h.AsyncOrder == asyncOrderNone {
		d.Lane = idempotency.LaneID(idempotency.NewProcess().NewOwner())
	}
	return d
}

// tellPending tells the caller of a call that is pending where to ask for its
// answer; or the answer, if that comes within the time that the caller would wait.
func (h *Handler) tellPending(w http.ResponseWriter, r *http.Request, a *action, out *idempotency.Outcome, p preference, label idempotency.Label, began time.Time) error {
	if p.wait > 0 {
		ended, err := h.app.backend.gate.AwaitEnd(r.Context(), out, label, p.wait)
		switch {
		case err != nil:
			out.Settle(r.Context().Err() == nil)
			return h.reject(w, r, a, began, out.ID, out.Key, err)
		case ended.Fate != idempotency.Pending:
			w.Header().Set("Preference-Applied", "respond-async, wait="+strconv.Itoa(int(p.wait/time.Second)))
			defer h.accountOf(a, ended, false, began)
			return h.tell(w, r, ended)
		}
		out.Waits = ended.Waits
	}
	defer h.accountOf(a, out, false, began)
	w.Header().Set("Preference-Applied", "respond-async")
	return h.tellAccepted(w, r, out, location(r, out.ID))
}

// accepted is the body of a 202.
type accepted struct {
	ID       string `json:"id"`
	State    string `json:"state"`
	Location string `json:"location"`
	Message  string `json:"message"`
}

// tellAccepted tells the caller of a call that is pending that it is on record,
// and that its answer can be had at location.
func (h *Handler) tellAccepted(w http.ResponseWriter, r *http.Request, out *idempotency.Outcome, location string) error {
	a := accepted{ID: hex.EncodeToString(out.ID[:]), State: "running", Location: location,
		Message: "The call is on record and under way. Its answer can be had at the location."}
	if out.Waits {
		a.State = "queued"
		a.Message = "The call is on record and waits for its turn. Its answer can be had at the location; until its turn has come, DELETE there cancels it."
	}
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	header := w.Header()
	if out.Key != "" { // else it was erased
		header.Set("Idempotency-Key", idempotency.FormatKey(out.Key))
	}
	if out.Manner != idempotency.Executed {
		header.Set("Idempotent-Replayed", "true")
	}
	header.Set("Location", location)
	header.Set("Retry-After", seconds(h.app.backend.expectedWait()))
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)+1))
	stayed := !out.Tracked() || present(r.Context())
	w.WriteHeader(http.StatusAccepted)
	_, err = w.Write(append(body, '\n'))
	if err == nil && out.Tracked() {
		if err = http.NewResponseController(w).Flush(); errors.Is(err, http.ErrNotSupported) {
			err = nil // there is nothing to be learnt, then
		}
	}
	out.Settle(err == nil && stayed)
	return nil
}

// The answer of a call that was handed over is to be had below where the call was
// sent to, so that whatever leads the one to the sidecar leads the other there as
// well.
const locationSegment = "/calls/"

// location returns where the answer of the call with id, which came with r, is to
// be had.
func location(r *http.Request, id idempotency.ID) string {
	return strings.TrimSuffix(originalPath(r), "/") + locationSegment + hex.EncodeToString(id[:])
}

// originalPath returns the path that r came with, before it was rewritten.
func originalPath(r *http.Request) string {
	if original, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && original.URL != nil {
		return original.URL.EscapedPath()
	}
	return r.URL.EscapedPath()
}

// locationOf returns the ID of the call whose location r is for.
func (h *Handler) locationOf(r *http.Request) (id idempotency.ID, ok bool) {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete:
	default:
		return id, false
	}
	path := r.URL.EscapedPath()
	at := len(path) - 2*len(id)
	if at < len(locationSegment) || !strings.HasSuffix(path[:at], locationSegment) {
		return id, false
	}
	if _, err := hex.Decode(id[:], []byte(path[at:])); err != nil {
		return id, false
	}
	return id, h.isCalled(path[:at-len(locationSegment)])
}

// isCalled tells whether data actions may be sent to path.
func (h *Handler) isCalled(path string) bool {
	for _, e := range h.InvokeEndpoints {
		if e.Path == path {
			return true
		}
	}
	for _, p := range h.routes.Patterns() {
		method := p.Method
		if method == "" {
			method = http.MethodPost
		}
		if _, ok := h.matchPath(method, path, h.org.api.EscapedPath()+path); ok {
			return true
		}
	}
	return false
}

// serveLocation tells what has become of the call with id, or cancels it.
func (h *Handler) serveLocation(w http.ResponseWriter, r *http.Request, id idempotency.ID) error {
	gate := h.app.backend.gate
	label := owner{h.org.id, h.scope(r)}.label(&action{url: r.URL}, h.org.digest)
	if r.Method == http.MethodDelete {
		if err := gate.Cancel(r.Context(), id, label); err != nil {
			return h.refuse(w, r, "", err)
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	p := preferenceOf(r.Header)
	out, err := gate.Await(r.Context(), id, label, p.wait)
	if p.wait > 0 {
		w.Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(p.wait/time.Second)))
	}
	switch {
	case err != nil:
		return h.refuse(w, r, "", err)
	case out.Fate == idempotency.Pending:
		out.Manner = idempotency.Executed // it is not repeated, but asked for
		return h.tellAccepted(w, r, out, originalPath(r))
	}
	return h.tell(w, r, out)
}
