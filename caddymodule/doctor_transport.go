package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/genesys"
)

// newExchanges returns what talks with o as the sidecar would: where a handler
// has options of transport http, with those of the first.
func (d *doctor) newExchanges(patient) *exchanges {
	plain := genesys.NewTokenTransport()
	e := &exchanges{timeout: d.timeout, api: plain, login: plain}
	raw := firstTransport(d.config)
	if raw == nil {
		return e
	}
	t := &Transport{HTTPTransport: new(reverseproxy.HTTPTransport)}
	if t.UnmarshalJSON(raw) != nil {
		return e // the rehearsal has said so
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	if t.HTTPTransport.Provision(ctx) != nil {
		return e
	}
	e.api, e.proxied = http.RoundTripper(t.HTTPTransport), t.HTTPTransport
	return e
}

// close gives up idle connections.
func (e *exchanges) close() {
	if e.proxied != nil {
		e.proxied.Transport.CloseIdleConnections()
	}
}

// firstTransport returns the first transport with options that a handler
// genesys_cloud has.
func firstTransport(config []byte) (found json.RawMessage) {
	var root any
	if json.Unmarshal(config, &root) != nil {
		return nil
	}
	walk(root, func(module map[string]any) {
		transport, ok := module["transport"].(map[string]any)
		if found != nil || module["handler"] != "genesys_cloud" || !ok || len(transport) < 2 {
			return
		}
		found, _ = json.Marshal(transport)
	})
	return found
}

// walk calls visit with every object in value.
func walk(value any, visit func(map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		visit(value)
		for _, v := range value {
			walk(v, visit)
		}
	case []any:
		for _, v := range value {
			walk(v, visit)
		}
	}
}
