package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule"
)

// The names of modules that lead to the platform of the run without a socket.
const (
	transportName = "in_process"
	loginName     = "in_process_login"
)

// current is the run that is being played. Caddy makes modules without telling
// them what for, and has one configuration at a time.
var current struct {
	platform   *platform
	transports []*reverseproxy.HTTPTransport // those to the platform
	handler    *caddymodule.Handler
}

func init() {
	caddy.RegisterModule(host{})
	caddy.RegisterModule(transport{})
	caddy.RegisterModule(login{})
}

// toPlatform returns Caddy's HTTP transport, which the host leads to the platform
// once it is provisioned.
func toPlatform() *reverseproxy.HTTPTransport {
	t := new(reverseproxy.HTTPTransport)
	current.transports = append(current.transports, t)
	return t
}

// transport is the sidecar's own transport, with its token.
type transport struct{}

func (transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport." + transportName,
		New: func() caddy.Module { return &caddymodule.Transport{HTTPTransport: toPlatform()} },
	}
}

// login is the transport to the login service.
type login struct{}

func (login) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport." + loginName,
		New: func() caddy.Module { return toPlatform() },
	}
}

// host is an app that has a handler as Caddy's HTTP app has, but no listener.
type host struct {
	Handler json.RawMessage `json:"handler"`
}

func (host) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "day", New: func() caddy.Module { return new(host) }}
}

// Provision loads the handler, and with it all that it needs.
func (h *host) Provision(ctx caddy.Context) error {
	loaded, err := ctx.LoadModuleByID("http.handlers.genesys_cloud", h.Handler)
	if err != nil {
		return err
	}
	current.handler = loaded.(*caddymodule.Handler)
	for _, t := range current.transports {
		t.Transport.RegisterProtocol("http", current.platform)
	}
	return nil
}

func (*host) Start() error { return nil }
func (*host) Stop() error  { return nil }

// object is one of JSON.
type object map[string]any

// startSidecar runs Caddy with the sidecar in front of p, paced or not, and returns
// its handler. The caller must stop Caddy.
func startSidecar(p *platform, paced bool) (http.Handler, error) {
	current.platform, current.transports, current.handler = p, nil, nil
	genesys := object{
		"api_url":         platformURL,
		"client_id":       "sandbox",
		"client_secret":   "sandbox",
		"login_transport": object{"protocol": loginName},
		"cache_size":      0,
		"storage":         object{"backend": "memory", "max_size": 256 << 20},
	}
	if paced {
		genesys["pace"] = object{"starts": platformStarts, "window": platformWindow}
		genesys["concurrency"] = platformPlaces
	}
	handler := object{
		"scope":     "{http.request.header.X-Caller}",
		"retention": retention,
		"deadline":  deadline,
		// With its timeout the sidecar makes no connections of its own.
		"transport": object{"protocol": transportName, "read_timeout": "24h"},
	}
	apps := make(caddy.ModuleMap)
	for name, app := range map[string]object{"genesys": genesys, "day": {"handler": handler}} {
		raw, err := json.Marshal(app)
		if err != nil {
			return nil, fmt.Errorf("writing the configuration: %w", err)
		}
		apps[name] = raw
	}
	no := false
	cfg := &caddy.Config{
		Admin: &caddy.AdminConfig{Disabled: true, Config: &caddy.ConfigSettings{Persist: &no}},
		Logging: &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {
			BaseLog: caddy.BaseLog{WriterRaw: json.RawMessage(`{"output": "stderr"}`), Level: "ERROR"},
		}}},
		AppsRaw: apps,
	}
	if err := caddy.Run(cfg); err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	return served{current.handler}, nil
}

// The sidecar's options. The deadline is one that the longest of queues fits in,
// since some of the callers have that much patience.
const (
	retention = time.Hour
	deadline  = 15 * time.Minute
)

// served is a handler as Caddy's HTTP server calls it.
type served struct{ handler caddyhttp.MiddlewareHandler }

func (s served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		switch p := recover(); p {
		case nil, http.ErrAbortHandler: // which cuts the connection
		default:
			panic(p)
		}
	}()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
		w.WriteHeader(http.StatusNotFound)
		return nil
	})
	if err := s.handler.ServeHTTP(w, r, next); err != nil {
		status := http.StatusInternalServerError
		var handled caddyhttp.HandlerError
		if errors.As(err, &handled) {
			status = handled.StatusCode
		}
		w.WriteHeader(status)
	}
}
