package caddymodule

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"genesys-sidecar/caddymodule/idempotency"
)

const (
	defaultCalls = 50
	maxCalls     = 500

	// maxPages is how many pages of the store are looked through for one of the
	// API. One that finds less than was asked for says where to go on.
	maxPages = 20
)

// callPage is what GET /genesys/calls answers.
type callPage struct {
	Calls []*callJSON `json:"calls"`
	Next  string      `json:"next,omitempty"`
}

// selection says which calls are wanted.
type selection struct {
	query         idempotency.Query
	standings     []idempotency.State // nil: any
	organizations []idempotency.OrganisationID
	action        string // a part of it
	limit         int
}

// serveCalls lists calls, the latest first.
func serveCalls(w http.ResponseWriter, r *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	s, err := a.selection(r)
	if err != nil {
		return err
	}
	page, err := a.list(r.Context(), s)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, page)
	return nil
}

// list returns what s selects.
func (a *App) list(ctx context.Context, s *selection) (*callPage, error) {
	lister, err := a.lister()
	if err != nil {
		return nil, err
	}
	page := &callPage{Calls: []*callJSON{}}
	for range maxPages {
		s.query.Limit = s.limit - len(page.Calls)
		listing, err := lister.List(ctx, s.query)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", idempotency.ErrStore, err)
		}
		standings, err := a.backend.gate.Standings(ctx, listing.Records)
		if err != nil {
			return nil, err
		}
		for i, rec := range listing.Records {
			if rec != nil && s.wants(rec, standings[i]) {
				call := newCallJSON(rec, standings[i])
				if call.Answer != nil {
					call.Answer.Size = nil // a listing reads no bodies
				}
				page.Calls = append(page.Calls, call)
			}
		}
		s.query.After = listing.Next
		if listing.Next.IsZero() || len(page.Calls) >= s.limit {
			break
		}
	}
	page.Next = cursor(s.query.After)
	return page, nil
}

func (s *selection) wants(rec *idempotency.Record, standing idempotency.State) bool {
	return (s.standings == nil || slices.Contains(s.standings, standing)) &&
		(s.organizations == nil || slices.Contains(s.organizations, rec.Label.Organisation)) &&
		strings.Contains(rec.Label.Action, s.action)
}

// selection reads the query of a listing.
func (a *App) selection(r *http.Request) (*selection, error) {
	query := r.URL.Query()
	for name := range query {
		if !slices.Contains([]string{"state", "action", "scope", "organization", "since", "limit", "cursor"}, name) {
			return nil, badInput("there is no parameter %q; there are state, action, scope, organization, since, limit and cursor", name)
		}
	}
	s := &selection{limit: defaultCalls, action: query.Get("action")}
	for _, names := range query["state"] {
		for name := range strings.SplitSeq(names, ",") {
			if err := s.addState(strings.TrimSpace(name)); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if query.Has("organization") {
		var orgs []*organization
		if orgs, err = a.named(query.Get("organization")); err != nil {
			return nil, err
		}
		s.organizations = []idempotency.OrganisationID{orgs[0].digest}
	}
	if query.Has("scope") {
		if s.query.Scopes, err = a.scopes(query.Get("scope"), query); err != nil {
			return nil, err
		}
	}
	if since := query.Get("since"); since != "" {
		if s.query.Since, err = parseSince(since, time.Now()); err != nil {
			return nil, err
		}
	}
	if limit := query.Get("limit"); limit != "" {
		if s.limit, err = strconv.Atoi(limit); err != nil || s.limit < 1 || s.limit > maxCalls {
			return nil, badInput("limit is %q; it must be a number from 1 to %d", limit, maxCalls)
		}
	}
	if text := query.Get("cursor"); text != "" {
		if s.query.After, err = parseCursor(text); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// addState adds a state by its name. What records say and what they mean differs
// for calls that were left behind, which are on record as started.
func (s *selection) addState(name string) error {
	var standing idempotency.State
	var recorded []idempotency.State
	switch name {
	case "":
		return nil
	case "started":
		standing, recorded = idempotency.Started, []idempotency.State{idempotency.Started}
	case "unknown":
		standing, recorded = idempotency.Unknown, []idempotency.State{idempotency.Unknown, idempotency.Started, idempotency.Open}
	case "open":
		standing, recorded = idempotency.Open, []idempotency.State{idempotency.Open, idempotency.Started}
	case "done":
		standing, recorded = idempotency.Done, []idempotency.State{idempotency.Done}
	case "queued":
		standing, recorded = idempotency.Queued, []idempotency.State{idempotency.Queued}
	case "released":
		standing, recorded = idempotency.Released, []idempotency.State{idempotency.Released}
	default:
		return badInput("there is no state %q; there are started, done, unknown, open, queued and released", name)
	}
	s.standings = append(s.standings, standing)
	for _, state := range recorded {
		if !slices.Contains(s.query.States, state) {
			s.query.States = append(s.query.States, state)
		}
	}
	return nil
}

// parseSince reads a time, or how long ago it was.
func parseSince(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, badInput("since is %q; it must be a time such as %s, or how long ago, such as 90m", text, now.UTC().Format(time.RFC3339))
}

// cursor returns p as text, "" for the zero Position.
func cursor(p idempotency.Position) string {
	if p.IsZero() {
		return ""
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(p.Started.UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(b, p.ID[:]...))
}

func parseCursor(text string) (p idempotency.Position, err error) {
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(b) != 8+len(p.ID) {
		return p, badInput("the cursor is none that a listing gave")
	}
	p.Started = time.Unix(0, int64(binary.BigEndian.Uint64(b))).UTC()
	copy(p.ID[:], b[8:])
	return p, nil
}

// serveCall tells all that is known of a call.
func serveCall(w http.ResponseWriter, r *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	answer := r.URL.Query().Get("answer")
	if answer != "" && answer != "full" {
		return badInput("answer is %q; it can be full", answer)
	}
	id, err := a.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	call, err := a.call(r.Context(), id, answer == "full")
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, call)
	return nil
}

func (a *App) call(ctx context.Context, id idempotency.ID, answer bool) (*callJSON, error) {
	rec, err := a.backend.store.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", idempotency.ErrStore, err)
	}
	if rec == nil {
		return nil, idempotency.ErrNoRecord
	}
	recs := []*idempotency.Record{rec}
	standings, err := a.backend.gate.Standings(ctx, recs)
	if err != nil {
		return nil, err
	}
	if rec = recs[0]; rec == nil {
		return nil, idempotency.ErrNoRecord
	}
	call := newCallJSON(rec, standings[0])
	call.Key, call.UpstreamKey = rec.Key, rec.UpstreamKey
	if answer && rec.Answer != nil {
		call.Answer.Header = rec.Answer.Header.HTTP()
		if utf8.Valid(rec.Answer.Body) {
			body := string(rec.Answer.Body)
			call.Answer.Body = &body
		} else {
			call.Answer.BodyBase64 = rec.Answer.Body
		}
	}
	return call, nil
}

// find returns the ID that text names: by all its digits, or by the first twelve,
// which are what the log has.
func (a *App) find(ctx context.Context, text string) (id idempotency.ID, err error) {
	digits, err := hex.DecodeString(text)
	switch {
	case err != nil || len(digits) != len(id) && len(digits) != digestSize:
		return id, badInput("%q is no call's id; it has %d hexadecimal digits, or the %d that the log has", text, 2*len(id), 2*digestSize)
	case len(digits) == len(id):
		return idempotency.ID(digits), nil
	}
	if finder, ok := a.backend.store.(idempotency.Finder); ok {
		ids, err := finder.Find(ctx, digits)
		switch {
		case err != nil:
			return id, fmt.Errorf("%w: %w", idempotency.ErrStore, err)
		case len(ids) == 0:
			return id, idempotency.ErrNoRecord
		case len(ids) > 1:
			return id, badInput("there are several calls whose ids begin with %s; give all digits", text)
		}
		return ids[0], nil
	}
	lister, err := a.lister()
	if err != nil {
		return id, err
	}
	// Those that somebody asks for are mostly among the few that are not done.
	for _, states := range [][]idempotency.State{
		{idempotency.Started, idempotency.Unknown, idempotency.Open, idempotency.Released, idempotency.Queued}, {idempotency.Done},
	} {
		query := idempotency.Query{States: states, Limit: maxCalls}
		for {
			page, err := lister.List(ctx, query)
			if err != nil {
				return id, fmt.Errorf("%w: %w", idempotency.ErrStore, err)
			}
			for _, rec := range page.Records {
				if bytes.HasPrefix(rec.ID[:], digits) {
					return rec.ID, nil
				}
			}
			if page.Next.IsZero() {
				break
			}
			query.After = page.Next
		}
	}
	return id, idempotency.ErrNoRecord
}

// digestSize is the number of bytes of an ID that stand in the log.
const digestSize = 6

// forgetCall removes a call, whose key is then free.
func forgetCall(w http.ResponseWriter, r *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	id, err := a.find(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if err := a.backend.gate.Forget(r.Context(), id); err != nil {
		return err
	}
	a.log.Info("a call was forgotten by an operator; its key is free", idField(id))
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// eraseScope erases what was said in the calls of a scope.
func eraseScope(w http.ResponseWriter, r *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	query := r.URL.Query()
	if query.Get("scope") == "" {
		return badInput("DELETE /genesys/calls erases the calls of one scope: say which, as in ?scope=alice; a single call has its own path")
	}
	scopes, err := a.scopes(query.Get("scope"), query)
	if err != nil {
		return err
	}
	lister, err := a.lister()
	if err != nil {
		return err
	}
	var result struct {
		Erased  int `json:"erased"`
		Running int `json:"running"`
	}
	result.Erased, result.Running, err = a.backend.gate.EraseScopes(r.Context(), lister, scopes)
	if err != nil {
		return err
	}
	a.log.Info("the calls of a scope were erased by an operator")
	writeJSON(w, http.StatusOK, result)
	return nil
}

// scopes returns the digests of scope in the organisation that query names, or in
// all.
func (a *App) scopes(scope string, query map[string][]string) ([]idempotency.ScopeID, error) {
	orgs := a.sortedOrgs()
	if names, ok := query["organization"]; ok {
		var err error
		if orgs, err = a.named(names[0]); err != nil {
			return nil, err
		}
	}
	ids := make([]idempotency.ScopeID, len(orgs))
	for i, o := range orgs {
		ids[i] = idempotency.NewScopeID(o.id, scope)
	}
	return ids, nil
}

// named returns the organisation with that name, in a list of one.
func (a *App) named(name string) ([]*organization, error) {
	o, err := a.organization(name)
	if err != nil {
		return nil, badInput("%v", err)
	}
	return []*organization{o}, nil
}
