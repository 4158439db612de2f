package caddymodule

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/genesys"
)

func init() {
	httpcaddyfile.RegisterDirective("genesys_cloud", parseGenesysCloud)
	httpcaddyfile.RegisterDirectiveOrder("genesys_cloud", httpcaddyfile.Before, "reverse_proxy")
}

// parseGenesysCloud parses the genesys_cloud directive:
//
//	genesys_cloud [<matcher>] {
//	    organization <name>
//	    actions      [<METHOD>] <path pattern>...
//	    key          header <name>... | json <pointer> | hash <window> | adopt [<window>] | require
//	    scope        <placeholders>...
//	    inject_key   <pointer>
//	    upstream_key auto|honored|ignored
//	    on_conflict  return|new_key
//	    retention    <duration>
//	    wait         <duration>|off
//	    attempts     <n>
//	    backoff      <base> [<max>]
//	    timeout      <duration>
//	    deadline     <duration>
//	    max_request_body  <size>
//	    max_response_body <size>
//	    async        prefer|on|off
//	    async_order  scope|none
//	    invoke_endpoint   <path> <action id>
//	    transport http { … }
//	    # any other subdirective of reverse_proxy
//	}
//
// It is a shortcut. This:
//
//	genesys_cloud /api/* {
//	    wait 10s
//	    header_up X-Team blue
//	}
//
// is the same as the handler http.handlers.genesys_cloud with all subdirectives
// above, followed by a proxy for what is no data action:
//
//	route /api/* {
//	    <the handler> { wait 10s }
//	    reverse_proxy {
//	        dynamic genesys
//	        transport genesys
//	        header_up X-Team blue
//	    }
//	}
//
// Where transport is given, both have it; and so have all three the organization.
func parseGenesysCloud(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	if !h.Next() {
		return nil, h.ArgErr()
	}
	matcher, err := h.ExtractMatcherSet()
	if err != nil {
		return nil, err
	}

	h.Next() // extracting the matcher went back to the start
	d := h.NewFromNextSegment()
	d.Next() // consume directive name
	if d.NextArg() {
		return nil, d.Errf("genesys_cloud takes no upstream: the organisation's API is the upstream, as set by region or api_url in the global option genesys; got %q", d.Val())
	}
	handler := new(Handler)
	seen := make(map[string]bool)
	proxied, err := splitBlock(d, func(d *caddyfile.Dispenser) (own bool, err error) {
		name := d.Val()
		if why, refused := refusedSubdirectives[name]; refused {
			return true, d.Errf("%s cannot be used in genesys_cloud: %s", name, why)
		}
		own, err = handler.parseSubdirective(d)
		if own && err == nil && seen[name] && !repeatable[name] {
			err = d.Errf("%s is given twice", name)
		}
		seen[name] = true
		return own, err
	})
	if err != nil {
		return nil, err
	}
	if err := knownOrganization(h, handler.Organization); err != nil {
		return nil, err
	}

	transport := handler.TransportRaw
	if transport == nil {
		transport = json.RawMessage(`{"protocol":"genesys"}`)
	}
	if transport, err = ofOrganization(transport, handler.Organization); err != nil {
		return nil, err
	}
	upstreams, err := ofOrganization(json.RawMessage(`{"source":"genesys"}`), handler.Organization)
	if err != nil {
		return nil, err
	}
	proxy := &reverseproxy.Handler{
		TransportRaw:        transport,
		DynamicUpstreamsRaw: upstreams,
	}
	if err := proxy.UnmarshalCaddyfile(proxied); err != nil {
		return nil, err
	}
	if err := proxy.FinalizeUnmarshalCaddyfile(h); err != nil {
		return nil, err
	}

	handlers := []json.RawMessage{
		caddyconfig.JSONModuleObject(handler, "handler", "genesys_cloud", nil),
		caddyconfig.JSONModuleObject(proxy, "handler", "reverse_proxy", nil),
	}
	route := caddyhttp.Route{HandlersRaw: handlers}
	if matcher != nil {
		route.MatcherSetsRaw = []caddy.ModuleMap{matcher}
	}
	return []httpcaddyfile.ConfigValue{{Class: "route", Value: route}}, nil
}

// refusedSubdirectives are those of reverse_proxy that would break a promise,
// and what to do instead.
var refusedSubdirectives = map[string]string{
	"lb_retry_match": "it makes the proxy send requests again that may have been executed; data actions are sent again by upstream_key and attempts, and what cannot be delivered at all is sent again by lb_retries or lb_try_duration",
	"to":             "the organisation's API is the upstream; set region or api_url in the global option genesys",
	"dynamic":        "the organisation's API is the upstream; set region or api_url in the global option genesys",
	"rewrite":        "it would lead requests past the check for data actions; use the directive rewrite before genesys_cloud",
	"method":         "it would lead requests past the check for data actions; use the directive method before genesys_cloud",
}

// repeatable are those of the handler's subdirectives that add to those before.
var repeatable = map[string]bool{"actions": true, "key": true, "invoke_endpoint": true}

// parseSubdirective parses the subdirective at d if it is one of the handler's,
// and tells whether it is.
func (h *Handler) parseSubdirective(d *caddyfile.Dispenser) (own bool, err error) {
	switch d.Val() {
	case "organization":
		return true, parseOrganization(d, &h.Organization)
	case "actions":
		return true, h.parseActions(d)
	case "key":
		return true, h.parseKey(d)
	case "scope":
		args := d.RemainingArgs()
		if len(args) == 0 {
			return true, d.ArgErr()
		}
		scope := strings.Join(args, " ")
		h.Scope = &scope
		return true, nil
	case "inject_key":
		if err := parseArg(d, &h.InjectKey); err != nil {
			return true, err
		}
		if _, err := newPointer(h.InjectKey); err != nil {
			return true, d.Errf("inject_key: %v", err)
		}
		return true, nil
	case "upstream_key":
		return true, parseChoice(d, &h.UpstreamKey, upstreamKeyAuto, upstreamKeyHonored, upstreamKeyIgnored)
	case "on_conflict":
		return true, parseChoice(d, &h.OnConflict, conflictReturn, conflictNewKey)
	case "retention":
		return true, parsePositiveDuration(d, &h.Retention)
	case "wait":
		return true, h.parseWait(d)
	case "attempts":
		return true, parseCount(d, &h.Attempts)
	case "backoff":
		return true, h.parseBackoff(d)
	case "timeout":
		return true, parsePositiveDuration(d, &h.Timeout)
	case "deadline":
		return true, parsePositiveDuration(d, &h.Deadline)
	case "max_request_body":
		return true, parseSize(d, &h.MaxRequestBody)
	case "max_response_body":
		return true, parseSize(d, &h.MaxResponseBody)
	case "async":
		return true, parseChoice(d, &h.Async, asyncPrefer, asyncOn, asyncOff)
	case "async_order":
		return true, parseChoice(d, &h.AsyncOrder, asyncOrderScope, asyncOrderNone)
	case "invoke_endpoint":
		return true, h.parseInvokeEndpoint(d)
	case "transport":
		return true, h.parseTransport(d)
	default:
		return false, nil
	}
}

func (h *Handler) parseActions(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	method := ""
	if len(args) > 0 && !strings.HasPrefix(args[0], "/") {
		method = strings.ToUpper(args[0])
		if args[0] != method {
			return d.Errf("actions: %q is neither a method, which is written in capitals, nor a path, which starts with a slash", args[0])
		}
		if method == http.MethodPost {
			method = ""
		}
		args = args[1:]
	}
	if len(args) == 0 {
		return d.Err("actions: no path pattern; as in: actions POST /api/v2/flows/executions")
	}
	for _, path := range args {
		if _, err := genesys.NewRoutes([]genesys.Pattern{{Method: method, Path: path}}); err != nil {
			return d.Errf("actions: %v", err)
		}
		h.Actions = append(h.Actions, Action{method, path})
	}
	return nil
}

func (h *Handler) parseKey(d *caddyfile.Dispenser) error {
	if n := len(h.Keys); n > 0 {
		if last := h.Keys[n-1]; last.Hash > 0 || last.Adopt > 0 || last.Require {
			return d.Err("key: hash, adopt and require always decide, so that no source after them is ever asked; put one of them last")
		}
	}
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.Err("key: no source; it is one of header, json, hash, adopt and require")
	}
	kind, args := args[0], args[1:]
	window := func() (caddy.Duration, error) {
		w, err := caddy.ParseDuration(args[0])
		if err != nil || w <= 0 {
			return 0, d.Errf("key %s: the window %q is no positive duration, such as 2m", kind, args[0])
		}
		return caddy.Duration(w), nil
	}
	switch {
	case kind == "header" && len(args) > 0:
		for _, name := range args {
			if _, err := newHeaderName(name); err != nil {
				return d.Errf("key header: %v", err)
			}
			h.Keys = append(h.Keys, KeySource{Header: name})
		}
	case kind == "json" && len(args) == 1:
		if _, err := newPointer(args[0]); err != nil {
			return d.Errf("key json: %v", err)
		}
		h.Keys = append(h.Keys, KeySource{JSON: args[0]})
	case kind == "hash" && len(args) == 1:
		w, err := window()
		if err != nil {
			return err
		}
		h.Keys = append(h.Keys, KeySource{Hash: w})
	case kind == "adopt" && len(args) == 0:
		h.Keys = append(h.Keys, KeySource{Adopt: caddy.Duration(defaultAdoptWindow)})
	case kind == "adopt" && len(args) == 1:
		w, err := window()
		if err != nil {
			return err
		}
		h.Keys = append(h.Keys, KeySource{Adopt: w})
	case kind == "require" && len(args) == 0:
		h.Keys = append(h.Keys, KeySource{Require: true})
	default:
		return d.Errf("key: wrong source %q or number of arguments; it is one of: header <name>..., json <pointer>, hash <window>, adopt [<window>], require", kind)
	}
	return nil
}

func (h *Handler) parseWait(d *caddyfile.Dispenser) error {
	var arg string
	if err := parseArg(d, &arg); err != nil {
		return err
	}
	var wait caddy.Duration
	if arg != "off" {
		parsed, err := caddy.ParseDuration(arg)
		if err != nil || parsed < 0 {
			return d.Errf("wait: %q is neither a duration, such as 30s, nor off", arg)
		}
		wait = caddy.Duration(parsed)
	}
	h.Wait = &wait
	return nil
}

func (h *Handler) parseBackoff(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Err("backoff: it takes one or two durations, as in: backoff 250ms 10s")
	}
	for i, target := range []*caddy.Duration{&h.Backoff, &h.BackoffMax}[:len(args)] {
		parsed, err := caddy.ParseDuration(args[i])
		if err != nil || parsed <= 0 {
			return d.Errf("backoff: %q is no positive duration, such as 250ms", args[i])
		}
		*target = caddy.Duration(parsed)
	}
	if len(args) == 2 && h.BackoffMax < h.Backoff {
		return d.Err("backoff: the second duration is the longest wait; it must not be shorter than the first")
	}
	return nil
}

func (h *Handler) parseInvokeEndpoint(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("invoke_endpoint: it takes a path and the id of an action, as in: invoke_endpoint /refunds custom_-_3f0c…")
	}
	e := InvokeEndpoint{Path: args[0], Action: args[1]}
	h.InvokeEndpoints = append(h.InvokeEndpoints, e)
	if err := validateEndpoints(h.InvokeEndpoints); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// parseTransport parses Caddy's own transport http into the transport that
// adds the token.
func (h *Handler) parseTransport(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	if name := d.Val(); name != "http" && name != "genesys" {
		return d.Errf("transport: %q cannot add a token; it must be http, whose options all apply", name)
	}
	t := &Transport{HTTPTransport: new(reverseproxy.HTTPTransport)}
	if err := t.UnmarshalCaddyfile(d.NewFromNextSegment()); err != nil {
		return err
	}
	h.TransportRaw = caddyconfig.JSONModuleObject(t, "protocol", "genesys", nil)
	return nil
}
