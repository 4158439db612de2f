package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler is a middleware which answers data actions of Genesys Cloud, so that
// each runs at most once however often it is sent, and each repeat gets the
// answer of the first. All other requests go on to the next handler.
//
// The organisations, their OAuth clients and the store are those of the app
// `genesys`.
type Handler struct {
	// The name of the organisation that is called. Default: the default one.
	Organization string `json:"organization,omitempty"`

	// Which requests are data actions. Default: the execute and test endpoints
	// of `/api/v2/integrations/actions`, the invoke endpoint of
	// `/api/v2/dataactions/actions`, and the evaluations of
	// `/api/v2/quality/conversations`.
	Actions []Action `json:"actions,omitempty"`

	// Where the key of a call is found, tried in order. Default: the header
	// `Idempotency-Key`, then adopt with a window of 2 minutes.
	Keys []KeySource `json:"keys,omitempty"`

	// Whose key it is: callers in different scopes may use the same key for
	// different calls and never get each other's answers. Placeholders are
	// replaced. Default: `{http.auth.user.id}`.
	Scope *string `json:"scope,omitempty"`

	// A JSON pointer (RFC 6901) to where the key is written in the request
	// body, for actions whose request template forwards it. Default: none.
	InjectKey string `json:"inject_key,omitempty"`

	// Whether the upstream honors an `Idempotency-Key`: `honored`, `ignored`,
	// or `auto` for what the path's documentation says. Where a key is
	// honored, a call whose outcome is unknown is sent again under it.
	// Default: `auto`.
	UpstreamKey string `json:"upstream_key,omitempty"`

	// What to do if an upstream that honors keys answers 409: `return` tells
	// the caller; `new_key` sends the call again under another key, unless an
	// earlier attempt may have run. Default: `return`.
	OnConflict string `json:"on_conflict,omitempty"`

	// How long an answer is kept, from completion; that of a call that may be
	// adopted at least for the window of adopt. Default: 24h.
	Retention caddy.Duration `json:"retention,omitempty"`

	// How long a duplicate waits for the first; 0: not at all. Default: 30s.
	Wait *caddy.Duration `json:"wait,omitempty"`

	// How often a call is sent at the most, where it can be sent again.
	// Default: 4.
	Attempts int `json:"attempts,omitempty"`

	// The longest wait before the second attempt. The wait is random ("full
	// jitter") and its bound doubles with each attempt. Default: 250ms.
	Backoff caddy.Duration `json:"backoff,omitempty"`

	// The longest wait before any attempt, save what the upstream asks for.
	// Default: 10s.
	BackoffMax caddy.Duration `json:"backoff_max,omitempty"`

	// How long one attempt may take, its answer's body included. The platform
	// gives an action up to 60 seconds. Default: 65s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How long the whole call may take. Default: 2m.
	Deadline caddy.Duration `json:"deadline,omitempty"`

	// The size of the largest request body, in bytes. Default: 1048576 (1 MiB).
	MaxRequestBody int64 `json:"max_request_body,omitempty"`

	// The size of the largest answer that is kept, in bytes. A larger one goes
	// to its first caller only. Default: 8388608 (8 MiB).
	MaxResponseBody int64 `json:"max_response_body,omitempty"`

	// Whether calls are handed over: answered 202 at once, and sent when their turn
	// has come; the answer is to be had at the Location. `prefer` does so for those
	// who ask for it by `Prefer: respond-async` (RFC 7240), `on` for all, `off` for
	// none. Default: `prefer`.
	Async string `json:"async,omitempty"`

	// In which order calls that were handed over are sent: `scope` sends those of
	// one scope one after the other, in the order in which they came; `none` sends
	// them side by side, the oldest first. Default: `scope`.
	AsyncOrder string `json:"async_order,omitempty"`

	// Paths that take a key and an input in the body and invoke one action.
	InvokeEndpoints []InvokeEndpoint `json:"invoke_endpoints,omitempty"`

	// How the upstream is reached. Default: `genesys`, with its defaults.
	TransportRaw json.RawMessage `json:"transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	app     *App
	org     *organization
	routes  *genesys.Routes
	keys    []keySource
	scopes  []string // the parts of Scope
	scoped  string   // the name of the placeholder that Scope is, if it is just one
	inject  *pointer
	invoker *genesys.Invoker
	policy  uint64 // a digest of the configuration
	log     *slog.Logger
}

// Action tells which requests are data actions.
type Action struct {
	// The request method. Default: POST.
	Method string `json:"method,omitempty"`

	// The path. A segment that is `*` or `{name}` stands for any one segment;
	// as the last one, `*` stands for everything below.
	Path string `json:"path"`
}

// InvokeEndpoint is a path that takes `{"idempotency_key": …, "input_payload":
// …}` and invokes one data action with it.
type InvokeEndpoint struct {
	// The path, to the letter.
	Path string `json:"path"`

	// The id of the action.
	Action string `json:"action"`
}

const (
	defaultRetention      = 24 * time.Hour
	defaultWait           = 30 * time.Second
	defaultDeadline       = 2 * time.Minute
	defaultMaxRequestBody = 1 << 20
	defaultScope          = "{http.auth.user.id}"

	upstreamKeyAuto    = "auto"
	upstreamKeyHonored = "honored"
	upstreamKeyIgnored = "ignored"

	conflictReturn = "return"
	conflictNewKey = "new_key"
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.genesys_cloud",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets up the handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.log = slog.New(liveLog{}) // a call may outlive the configuration's own logger
	app, err := ctx.App("genesys")
	if err != nil {
		return err
	}
	h.app = app.(*App)
	if h.org, err = h.app.organization(h.Organization); err != nil {
		return err
	}
	h.applyDefaults()
	if h.policy, err = policyOf(h); err != nil {
		return err
	}
	watchCallers(ctx)

	patterns := make([]genesys.Pattern, len(h.Actions))
	for i, a := range h.Actions {
		patterns[i] = genesys.Pattern{Method: a.Method, Path: a.Path}
	}
	if h.routes, err = genesys.NewRoutes(patterns); err != nil {
		return fmt.Errorf("reading actions: %w", err)
	}
	if h.keys, err = newKeySources(h.Keys); err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	h.scopes = strings.Fields(*h.Scope)
	h.scoped = onlyPlaceholder(h.scopes)
	if h.InjectKey != "" {
		if h.inject, err = newPointer(h.InjectKey); err != nil {
			return fmt.Errorf("reading inject_key: %w", err)
		}
	}

	transport, err := h.loadTransport(ctx)
	if err != nil {
		return err
	}
	h.invoker = &genesys.Invoker{
		Transport: transport,
		Tokens:    h.org.tokens,
		Pause:     &h.org.pause,
		Pacer:     h.org.pacer,
		Policy: genesys.Policy{
			Attempts:   h.Attempts,
			Backoff:    time.Duration(h.Backoff),
			BackoffMax: time.Duration(h.BackoffMax),
			Timeout:    time.Duration(h.Timeout),
			MaxBody:    h.MaxResponseBody,
		},
		Log:       h.log,
		Forbidden: h.org.missingRole,
	}
	h.app.tenure.addHandler(h)
	return nil
}

func (h *Handler) applyDefaults() {
	if len(h.Keys) == 0 {
		h.Keys = []KeySource{{Header: "Idempotency-Key"}, {Adopt: caddy.Duration(defaultAdoptWindow)}}
	}
	if h.Scope == nil {
		scope := defaultScope
		h.Scope = &scope
	}
	if h.UpstreamKey == "" {
		h.UpstreamKey = upstreamKeyAuto
	}
	if h.OnConflict == "" {
		h.OnConflict = conflictReturn
	}
	if h.Async == "" {
		h.Async = asyncPrefer
	}
	if h.AsyncOrder == "" {
		h.AsyncOrder = asyncOrderScope
	}
	if h.Retention == 0 {
		h.Retention = caddy.Duration(defaultRetention)
	}
	if h.Wait == nil {
		wait := caddy.Duration(defaultWait)
		h.Wait = &wait
	}
	if h.Deadline == 0 {
		h.Deadline = caddy.Duration(defaultDeadline)
	}
	if h.MaxRequestBody == 0 {
		h.MaxRequestBody = defaultMaxRequestBody
	}
	if h.Backoff > 0 && h.BackoffMax == 0 {
		h.BackoffMax = max(h.Backoff, caddy.Duration(genesys.DefaultPolicy.BackoffMax))
	}
}

func (h *Handler) loadTransport(ctx caddy.Context) (http.RoundTripper, error) {
	raw := h.TransportRaw
	if raw == nil {
		raw = json.RawMessage(`{"protocol": "genesys"}`)
	}
	raw, err := ofOrganization(raw, h.Organization)
	if err != nil {
		return nil, fmt.Errorf("reading transport: %w", err)
	}
	loaded, err := ctx.LoadModule(&Handler{TransportRaw: raw}, "TransportRaw")
	if err != nil {
		return nil, fmt.Errorf("loading transport: %w", err)
	}
	transport, ok := loaded.(*Transport)
	if !ok {
		return nil, fmt.Errorf("loading transport: %T adds no token; use the transport genesys", loaded)
	}
	if transport.org != h.org {
		return nil, fmt.Errorf("loading transport: it is one to %v, the handler is for %v", transport.org, h.org)
	}
	return transport, nil
}

// Validate checks the configuration.
func (h *Handler) Validate() error {
	switch h.UpstreamKey {
	case upstreamKeyAuto, upstreamKeyHonored, upstreamKeyIgnored:
	default:
		return fmt.Errorf("upstream_key is %q; it must be auto, honored or ignored", h.UpstreamKey)
	}
	switch h.OnConflict {
	case conflictReturn, conflictNewKey:
	default:
		return fmt.Errorf("on_conflict is %q; it must be return or new_key", h.OnConflict)
	}
	switch h.Async {
	case asyncPrefer, asyncOff:
	case asyncOn:
		if !h.app.backend.gate.Defers() {
			return errors.New("async is on, but the store keeps no calls for later")
		}
	default:
		return fmt.Errorf("async is %q; it must be prefer, on or off", h.Async)
	}
	switch h.AsyncOrder {
	case asyncOrderScope, asyncOrderNone:
	default:
		return fmt.Errorf("async_order is %q; it must be scope or none", h.AsyncOrder)
	}
	for name, d := range map[string]caddy.Duration{
		"retention": h.Retention, "wait": *h.Wait, "backoff": h.Backoff, "backoff_max": h.BackoffMax,
		"timeout": h.Timeout, "deadline": h.Deadline,
	} {
		if d < 0 {
			return fmt.Errorf("%s must not be negative", name)
		}
	}
	if h.BackoffMax < h.Backoff {
		return errors.New("backoff: the second duration must not be shorter than the first")
	}
	if h.Attempts < 0 || h.MaxRequestBody < 0 || h.MaxResponseBody < 0 {
		return errors.New("attempts, max_request_body and max_response_body must not be negative")
	}
	return validateEndpoints(h.InvokeEndpoints)
}

// ServeHTTP answers data actions, and passes other requests on.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if loops(r.Header) {
		if isLogin(r) {
			return serveLoginLoop(w)
		}
		return h.refuse(w, r, "", errLoop)
	}
	if isLogin(r) {
		return serveLogin(w, r)
	}
	if e, ok := h.invokeEndpoint(r); ok {
		return h.serveFacade(w, r, e)
	}
	if id, ok := h.locationOf(r); ok {
		return h.serveLocation(w, r, id)
	}
	match, ok := h.match(r)
	if !ok {
		return next.ServeHTTP(w, h.paced(r))
	}
	a := action{
		id:          match.Action,
		method:      r.Method,
		url:         h.org.upstreamURL(r.URL),
		contentType: r.Header.Get("Content-Type"),
		honored:     h.honored(match),
	}
	var err error
	if a.body, err = h.readBody(r); err != nil {
		return h.reject(w, r, &a, time.Now(), idempotency.ID{}, "", err)
	}
	return h.serveAction(w, r, a)
}

// match tells whether r is a data action.
func (h *Handler) match(r *http.Request) (genesys.Match, bool) {
	match, ok := h.routes.Match(r.Method, r.URL.EscapedPath())
	if !ok && h.org.api.Path != "" {
		return h.matchPath(r.Method, r.URL.EscapedPath(), h.org.upstreamURL(r.URL).EscapedPath())
	}
	return match, ok
}

// matchPath tells whether a request to path, which is upstreamPath at the API, is a
// data action.
func (h *Handler) matchPath(method, path, upstreamPath string) (genesys.Match, bool) {
	match, ok := h.routes.Match(method, path)
	if !ok && h.org.api.Path != "" {
		// With an API below a prefix, such as /api, it takes both to make an action.
		return h.routes.Match(method, upstreamPath)
	}
	return match, ok
}

func (h *Handler) honored(match genesys.Match) bool {
	switch h.UpstreamKey {
	case upstreamKeyHonored:
		return true
	case upstreamKeyIgnored:
		return false
	default:
		return match.Honored
	}
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
