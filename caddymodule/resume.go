package caddymodule

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// policyOf returns a digest of a handler's configuration.
func policyOf(h *Handler) (uint64, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8]), nil
}

// resume returns the call of rec, whose turn has come, as the configuration in
// force sends it.
func (b *backend) resume(rec *idempotency.Record) (idempotency.Call, error) {
	app := running.Load()
	if app == nil || app.backend != b {
		return idempotency.Call{}, errors.New("no configuration in force uses its store")
	}
	u, err := url.ParseRequestURI(rec.Deferred.URL)
	if err != nil {
		return idempotency.Call{}, fmt.Errorf("reading its URL: %w", err)
	}
	h, a, err := app.handlerOf(rec, u)
	if err != nil {
		return idempotency.Call{}, err
	}
	header := rec.Deferred.Header.HTTP()
	a.contentType = header.Get("Content-Type")
	a.body = rec.Deferred.Body
	call := idempotency.Call{
		Honored:   a.honored,
		Retention: time.Duration(h.Retention),
		Deadline:  time.Duration(h.Deadline),
		Sender:    &sending{handler: h, action: a, header: header, scope: pacerScope(rec.Label.Scope), accepted: true},
	}
	return call, nil
}

// handlerOf returns the handler that sends the call of rec, which leads to u: the
// one that it came in by, or if there is none like that any more, one to which the
// same request would be the same call. It returns the call as well, as far as the
// request line tells.
func (a *App) handlerOf(rec *idempotency.Record, u *url.URL) (*Handler, action, error) {
	var found *Handler
	var act action
	for _, h := range a.tenure.allHandlers() {
		if h.org.digest != rec.Label.Organisation {
			continue
		}
		path := u.EscapedPath()
		match, ok := h.matchPath(rec.Deferred.Method, strings.TrimPrefix(path, h.org.api.EscapedPath()), path)
		same := h.policy == rec.Deferred.Policy
		if !ok && !same || found != nil && !same {
			continue
		}
		up := *u
		up.Scheme, up.Host = h.org.api.Scheme, h.org.api.Host
		found, act = h, action{id: match.Action, method: rec.Deferred.Method, url: &up, honored: h.honored(match)}
		if !ok { // it came by an invoke endpoint
			act.honored = rec.Honored
		}
		if same {
			break
		}
	}
	if found == nil {
		return nil, action{}, errors.New("no handler is configured for it: its organisation, and an action with its path")
	}
	return found, act, nil
}

// The wait that a caller who asks for the answer of a call is told, at least and at
// the most.
const (
	minExpectedWait = time.Second
	maxExpectedWait = time.Minute
)

// expectedWait returns when it makes sense to ask for an answer that is not there
// yet: when the backlog will have been worked through, as far as can be told.
func (b *backend) expectedWait() time.Duration {
	_, drain := b.gate.Throughput()
	return min(max(drain, minExpectedWait), maxExpectedWait)
}
