package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI serves what operators need under Caddy's admin endpoint: the status,
// the calls on record and what can be done about them, probes, and a page that
// shows it all.
//
//	GET    /genesys/                    the page
//	GET    /genesys/status              what is going on
//	GET    /genesys/calls               ?state=&action=&scope=&organization=&since=&limit=&cursor=
//	DELETE /genesys/calls               ?scope=[&organization=]: erases what was said in a scope's calls
//	GET    /genesys/calls/{id}          [?answer=full]
//	DELETE /genesys/calls/{id}          forgets a call, whose key is then free
//	POST   /genesys/calls/{id}/resolve  says whether a call ran
//	GET    /genesys/health              200 as long as the process serves
//	GET    /genesys/ready               200 if a call would be taken, else 503
//
// Its errors are those of Caddy's own admin API: {"error": "…"}.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.genesys",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// Routes implements caddy.AdminRouter.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{
		Pattern: "/genesys/",
		Handler: caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
			operations.ServeHTTP(w, r)
			return nil
		}),
	}}
}

// operation is a method on a path of the admin API. What it writes, it writes
// once it has not failed.
type operation func(w http.ResponseWriter, r *http.Request) error

// operations are all of them; probes are those that tell nothing but whether it
// works.
var (
	operations = newOperations(map[string]map[string]operation{
		"/genesys/{$}":                {http.MethodGet: servePage},
		"/genesys/status":             {http.MethodGet: serveStatus},
		"/genesys/calls":              {http.MethodGet: serveCalls, http.MethodDelete: eraseScope},
		"/genesys/calls/{id}":         {http.MethodGet: serveCall, http.MethodDelete: forgetCall},
		"/genesys/calls/{id}/resolve": {http.MethodPost: resolveCall},
		"/genesys/health":             {http.MethodGet: serveHealth},
		"/genesys/ready":              {http.MethodGet: serveReady},
	})
	probes = newOperations(map[string]map[string]operation{
		"/genesys/health": {http.MethodGet: serveHealth},
		"/genesys/ready":  {http.MethodGet: serveBriefReady},
	})
)

func newOperations(paths map[string]map[string]operation) http.Handler {
	mux := http.NewServeMux()
	for path, methods := range paths {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			method := r.Method
			if method == http.MethodHead {
				method = http.MethodGet
			}
			do, ok := methods[method]
			if !ok {
				for m := range methods {
					w.Header().Add("Allow", m)
				}
				fail(w, &apiError{http.StatusMethodNotAllowed, fmt.Sprintf("%s does not know the method %s", r.URL.Path, r.Method)})
				return
			}
			if err := do(w, r); err != nil {
				fail(w, err)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, &apiError{http.StatusNotFound, "there is nothing at " + r.URL.Path})
	})
	return mux
}

// apiError is an error of the admin API.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

func badInput(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// fail tells the caller what went wrong.
func fail(w http.ResponseWriter, err error) {
	var known *apiError
	status := http.StatusInternalServerError
	switch {
	case errors.As(err, &known):
		status = known.status
	case errors.Is(err, idempotency.ErrNoRecord):
		status = http.StatusNotFound
	case errors.Is(err, idempotency.ErrUnderWay), errors.Is(err, idempotency.ErrKnown):
		status = http.StatusConflict
	case errors.Is(err, idempotency.ErrStore), errors.Is(err, idempotency.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the caller may have left
}

// inForce returns the app of the configuration in force.
func inForce() (*App, error) {
	a := running.Load()
	if a == nil {
		return nil, &apiError{http.StatusServiceUnavailable,
			"the configuration has no genesys_cloud and no global option genesys, so that there is nothing to tell"}
	}
	return a, nil
}

// lister returns the store of a as one that can be looked through.
func (a *App) lister() (idempotency.Lister, error) {
	lister, ok := a.backend.store.(idempotency.Lister)
	if !ok {
		return nil, &apiError{http.StatusNotImplemented, "the store " + kindOf(a.backend.identity) + " cannot list its calls"}
	}
	return lister, nil
}

// isJSON tells whether a request says that its body is JSON. A page of another
// origin cannot say so without being asked whether it may.
func isJSON(r *http.Request) bool {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(media), "application/json")
}

// Interface guard
var _ caddy.AdminRouter = (*AdminAPI)(nil)
