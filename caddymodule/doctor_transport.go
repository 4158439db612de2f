package caddymodule

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/genesys"
)

// newExchanges returns what talks with o as the sidecar would: the login service
// by its login_transport, and the API by the options of the first handler that
// has some for it. What cannot be loaded is left out; the rehearsal has said so.
func (d *doctor) newExchanges(ctx context.Context, o *patient) *exchanges {
	caddyCtx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	e := &exchanges{timeout: d.timeout, api: genesys.NewTokenTransport(), close: cancel}

	state := new(org)
	login, err := o.options.loginTransport(caddyCtx)
	if err != nil {
		login = nil
	}
	state.access.Store(&access{transport: login})
	e.login = newLoginTransport(state)

	raw := transportOf(d.config, o.name)
	if raw == nil {
		return e
	}
	t := &Transport{HTTPTransport: new(reverseproxy.HTTPTransport)}
	if t.UnmarshalJSON(raw) == nil && t.HTTPTransport.Provision(caddyCtx) == nil {
		t.Transport.DisableKeepAlives = true
		e.api, e.configured = http.RoundTripper(t.HTTPTransport), true
	}
	return e
}

// transportOf returns the options of transport http of the first handler
// genesys_cloud of an organisation that has some.
func transportOf(config []byte, organization string) (found json.RawMessage) {
	var root any
	if json.Unmarshal(config, &root) != nil {
		return nil
	}
	walkObjects(root, func(module map[string]any) {
		transport, ok := module["transport"].(map[string]any)
		if found != nil || module["handler"] != "genesys_cloud" || !ok {
			return
		}
		name, _ := module["organization"].(string)
		if own, ok := transport["organization"].(string); ok {
			name = own
		}
		delete(transport, "organization")
		if name == organization && len(transport) > 1 { // more than its own name
			found, _ = json.Marshal(transport)
		}
	})
	return found
}

// walkObjects calls visit with every object in value, always in the same order.
func walkObjects(value any, visit func(map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		visit(value)
		for _, name := range slices.Sorted(maps.Keys(value)) {
			walkObjects(value[name], visit)
		}
	case []any:
		for _, v := range value {
			walkObjects(v, visit)
		}
	}
}
