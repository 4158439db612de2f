package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// action is a data action as it is to be sent.
type action struct {
	id          string // for operators; see genesys.Match
	method      string
	url         *url.URL // the upstream's
	contentType string
	body        []byte
	honored     bool
	key         string // brought by other means than the handler's sources
}

// request returns what tells a from other calls.
func (a *action) request() idempotency.Request {
	return idempotency.Request{
		Method:    a.method,
		Path:      a.url.EscapedPath(),
		Query:     withoutDefaults(a.url.RawQuery),
		MediaType: a.contentType,
		Body:      a.body,
	}
}

// serveAction runs a data action, or tells the answer that it already has.
func (h *Handler) serveAction(w http.ResponseWriter, r *http.Request, a action) error {
	began := time.Now()
	who := identity{key: a.key}
	if a.key == "" {
		var err error
		if who, err = h.identify(r.Header, a.body); err != nil {
			return h.reject(w, r, &a, began, idempotency.ID{}, "", err)
		}
	}
	owner := owner{h.org.id, h.scope(r)}
	request := a.request()

	var out *idempotency.Outcome
	var err error
	var id idempotency.ID
	if who.key != "" {
		id = owner.id(who.key)
		out, err = h.app.backend.gate.Replay(id, request)
	}
	cached := out != nil
	var prefers preference
	if out == nil && err == nil {
		prefers = preferenceOf(r.Header)
		call := h.newCall(r, a, who, id, owner, request.Fingerprint(), prefers)
		out, err = h.app.backend.gate.Do(r.Context(), call)
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			h.logRefusal(err)
		}
		var gone *idempotency.ResultUnavailableError
		if errors.As(err, &gone) && who.key == "" { // the call was found by its request
			id, who.key = gone.ID, gone.Key
		}
		return h.reject(w, r, &a, began, id, who.key, err)
	}
	if out.Fate == idempotency.Pending {
		return h.tellPending(w, r, &a, out, prefers, owner.label(&a, h.org.digest), began)
	}
	defer h.accountOf(&a, out, cached, began)
	return h.tell(w, r, out)
}

// reject tells the caller why its request for a went no further.
func (h *Handler) reject(w http.ResponseWriter, r *http.Request, a *action, began time.Time, id idempotency.ID, key string, err error) error {
	h.accountError(a, err, r.Context().Err() != nil, id, began)
	return h.refuse(w, r, key, err)
}

// owner is whose a key is: the same key of another owner is another key.
type owner struct{ organisation, scope string }

func (o owner) id(key string) idempotency.ID {
	return idempotency.NewID(o.organisation, o.scope, key)
}

// label returns what operators know a call of a by.
func (o owner) label(a *action, organisation idempotency.OrganisationID) idempotency.Label {
	label := idempotency.Label{
		Organisation: organisation,
		Action:       a.method + " " + a.url.EscapedPath(),
	}
	if len(label.Action) > idempotency.MaxText {
		label.Action = label.Action[:idempotency.MaxText]
	}
	if o.scope != "" {
		label.Scope = idempotency.NewScopeID(o.organisation, o.scope)
	}
	return label
}

func (o owner) upstreamKey(key string) string { return idempotency.UpstreamKey(o.scope, key) }

// newCall returns the call that the request r, with the fingerprint fp, makes
// of a. Where it has a key, id is what belongs to that, and Replay was asked.
func (h *Handler) newCall(r *http.Request, a action, who identity, id idempotency.ID, o owner, fp idempotency.Fingerprint, prefers preference) idempotency.Call {
	call := idempotency.Call{
		Key:         who.key,
		Fingerprint: fp,
		Honored:     a.honored,
		Label:       o.label(&a, h.org.digest),
		Retention:   time.Duration(h.Retention),
		Wait:        time.Duration(*h.Wait),
		Deadline:    time.Duration(h.Deadline),
		Stays:       true, // a request that was given up takes up a goroutine until then
	}
	switch {
	case who.hash:
		// The record is found by the request; the key is new each time, since
		// an upstream may remember one for longer than the window.
		call.Key = idempotency.RandomKey()
		call.ID = idempotency.NewHashID(o.organisation, o.scope, fp)
		call.UpstreamKey = o.upstreamKey(call.Key)
		call.Retention = who.retention
	case who.key != "":
		call.ID, call.Asked = id, true
		call.UpstreamKey = o.upstreamKey(who.key)
	default:
		call.NewID, call.NewUpstreamKey = o.id, o.upstreamKey
		call.Present = func() bool { return present(r.Context()) }
		if who.adopt > 0 {
			call.Adoption = idempotency.NewAdoptionID(o.organisation, o.scope, fp)
			call.AdoptWindow = who.adopt
			call.Retention = max(call.Retention, who.adopt)
		}
	}

	header := upstreamHeader(r.Header, a.contentType)
	call.Later = h.later(prefers, &a, header, call.Label)
	call.Sender = &sending{handler: h, action: a, header: header, scope: pacerScope(call.Label.Scope)}
	return call
}

// scope returns whose keys the request's are.
func (h *Handler) scope(r *http.Request) string {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return ""
	}
	if h.scoped != "" {
		value, _ := repl.GetString(h.scoped)
		return value
	}
	if len(h.scopes) == 1 {
		return repl.ReplaceAll(h.scopes[0], "")
	}
	// Each part with its length, so that no caller can shift what it controls
	// of one into the next.
	var b strings.Builder
	some := false
	for _, part := range h.scopes {
		value := repl.ReplaceAll(part, "")
		some = some || value != ""
		fmt.Fprintf(&b, "%d:%s", len(value), value)
	}
	if !some {
		return ""
	}
	return b.String()
}

// onlyPlaceholder returns the name of the placeholder that parts are, or "" where
// they are anything else. To replace it takes no copy of what it stands for.
func onlyPlaceholder(parts []string) string {
	if len(parts) != 1 {
		return ""
	}
	name, opened := strings.CutPrefix(parts[0], "{")
	name, closed := strings.CutSuffix(name, "}")
	if !opened || !closed || strings.ContainsAny(name, `{}\`) {
		return ""
	}
	return name
}

// withoutDefaults returns a query without what the platform takes for granted:
// some SDKs always say flatten=false, others never. A query that says anything
// else of flatten stays as it is, since which of the two counts is for the
// upstream to say.
func withoutDefaults(query string) string {
	const byDefault = "flatten=false"
	if !strings.Contains(query, byDefault) || strings.Contains(query, ";") { // which some split at, too
		return query
	}
	params := strings.Split(query, "&")
	kept := params[:0]
	for _, p := range params {
		if p == byDefault {
			continue
		}
		name, _, _ := strings.Cut(p, "=")
		if name, err := url.QueryUnescape(name); err != nil || name == "flatten" {
			return query
		}
		kept = append(kept, p)
	}
	return strings.Join(kept, "&")
}

// upstreamURL returns where u leads at the organisation's API.
func (o *organization) upstreamURL(u *url.URL) *url.URL {
	up := *o.api
	up.RawQuery = u.RawQuery
	up.Path = o.api.Path + u.Path
	if u.RawPath != "" || o.api.RawPath != "" {
		up.RawPath = o.api.EscapedPath() + u.EscapedPath()
	}
	return &up
}
