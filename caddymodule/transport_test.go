package caddymodule

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

func TestDataActionsGoDirectlyUnlessTheOptionsAskForMore(t *testing.T) {
	for options, direct := range map[string]bool{
		"":                           true,
		"dial_timeout 1s":            true,
		"keepalive_idle_conns 5":     true,
		"versions 1.1":               true,
		"versions h2c 2":             false,
		"compression off":            true,
		"resolvers 127.0.0.1":        true,
		"max_response_header 1MiB":   true,
		"read_timeout 1s":            false,
		"write_timeout 1s":           false,
		"response_header_timeout 1s": true,
		"max_conns_per_host 5":       false,
		"keepalive off":              false,
		"keepalive 5s":               true,
		"proxy_protocol v2":          false,
		"network_proxy none":         true,
	} {
		h := &reverseproxy.HTTPTransport{KeepAlive: &reverseproxy.KeepAlive{MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: caddy.Duration(idleTimeout)}}
		if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("http {\n" + options + "\n}")); err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		ctx, cancel := caddy.NewContext(caddy.Context{Context: t.Context()})
		defer cancel()
		if err := h.Provision(ctx); err != nil {
			t.Errorf("%s: %v", options, err)
			continue
		}
		if got := directTransport(h); (got != nil) != direct {
			t.Errorf("with %q it is %v", options, got)
		}
	}
}
