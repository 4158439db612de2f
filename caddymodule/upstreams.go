package caddymodule

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/upstream"
)

func init() {
	caddy.RegisterModule(Upstreams{})
}

// Upstreams is the organisation's API as the upstream of a reverse_proxy.
type Upstreams struct {
	// The name of the organisation. Default: the default one.
	Organization string `json:"organization,omitempty"`

	upstreams []*reverseproxy.Upstream
}

// CaddyModule returns the Caddy module information.
func (Upstreams) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.upstreams.genesys",
		New: func() caddy.Module { return new(Upstreams) },
	}
}

// Provision finds the API.
func (u *Upstreams) Provision(ctx caddy.Context) error {
	app, err := ctx.App("genesys")
	if err != nil {
		return err
	}
	org, err := app.(*App).organization(u.Organization)
	if err != nil {
		return err
	}
	u.upstreams = []*reverseproxy.Upstream{{Dial: upstream.Address(org.api)}}
	return nil
}

// UnmarshalCaddyfile sets up the upstreams from Caddyfile tokens. Syntax:
//
//	dynamic genesys {
//	    organization <name>
//	}
func (u *Upstreams) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume source name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if d.Val() != "organization" {
			return d.Errf("unknown option %q; dynamic genesys has organization", d.Val())
		}
		if err := parseOrganization(d, &u.Organization); err != nil {
			return err
		}
	}
	return nil
}

// GetUpstreams implements reverseproxy.UpstreamSource.
func (u *Upstreams) GetUpstreams(*http.Request) ([]*reverseproxy.Upstream, error) {
	return u.upstreams, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Upstreams)(nil)
	_ caddyfile.Unmarshaler       = (*Upstreams)(nil)
	_ reverseproxy.UpstreamSource = (*Upstreams)(nil)
)
