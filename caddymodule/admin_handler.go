package caddymodule

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(AdminHandler{})
	for _, directive := range []string{"genesys_admin", "genesys_probes"} {
		httpcaddyfile.RegisterHandlerDirective(directive, parseAdminHandler)
		httpcaddyfile.RegisterDirectiveOrder(directive, httpcaddyfile.Before, "respond")
	}
}

// AdminHandler serves the paths of the admin API below /genesys/ on a site:
// for browsers, which Caddy's admin endpoint does not let in, behind whatever
// authentication the site has; or, where only the probes are served, for those
// who close the admin endpoint. Other paths go on to the next handler.
//
// Whoever can reach it can read and change what is on record. Where there is
// neither TLS nor authentication, it answers only requests for localhost or for an
// address, so that no page of another site gets at it by a name of its own (DNS
// rebinding).
type AdminHandler struct {
	// Whether only /genesys/health and /genesys/ready are served, which tell
	// nothing that is worth protecting. Default: false.
	Probes bool `json:"probes,omitempty"`

	// Further names, without a port, that requests without TLS and without
	// authentication may be for. Default: none.
	Hosts []string `json:"hosts,omitempty"`
}

// origins tells what a page of another site has a browser send.
var origins = http.NewCrossOriginProtection()

// CaddyModule returns the Caddy module information.
func (AdminHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.genesys_admin",
		New: func() caddy.Module { return new(AdminHandler) },
	}
}

// Provision makes sure that there is something to tell of.
func (h *AdminHandler) Provision(ctx caddy.Context) error {
	if _, err := ctx.App("genesys"); err != nil {
		return err
	}
	return nil
}

// ServeHTTP serves what is below /genesys/.
func (h *AdminHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Probes {
		if r.URL.Path != "/genesys/health" && r.URL.Path != "/genesys/ready" {
			return next.ServeHTTP(w, r)
		}
		probes.ServeHTTP(w, r)
		return nil
	}
	if r.URL.Path == "/genesys" {
		http.Redirect(w, r, "/genesys/", http.StatusMovedPermanently)
		return nil
	}
	if !strings.HasPrefix(r.URL.Path, "/genesys/") {
		return next.ServeHTTP(w, r)
	}
	if err := h.check(r); err != nil {
		fail(w, err)
		return nil
	}
	operations.ServeHTTP(w, r)
	return nil
}

// check refuses what a page of another site has a browser send.
func (h *AdminHandler) check(r *http.Request) error {
	if err := origins.Check(r); err != nil {
		return &apiError{http.StatusForbidden, "checking origin: " + err.Error()}
	}
	if r.TLS != nil || authenticated(r) {
		return nil // neither a certificate nor a password is had by a name of one's own
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	_, notAddress := netip.ParseAddr(host)
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || notAddress == nil || slices.Contains(h.Hosts, host) {
		return nil
	}
	return &apiError{http.StatusForbidden,
		fmt.Sprintf("without TLS and without authentication, genesys_admin answers for localhost and for addresses, and not for the host %q; add it, if it is this one's: genesys_admin { hosts %s }", host, host)}
}

// authenticated tells whether a handler in front knows who asks.
func authenticated(r *http.Request) bool {
	repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return false
	}
	user, ok := repl.GetString("http.auth.user.id")
	return ok && user != ""
}

// parseAdminHandler parses either of:
//
//	genesys_admin [<matcher>] {
//	    hosts <name>...
//	}
//	genesys_probes [<matcher>]
func parseAdminHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	a := new(AdminHandler)
	if err := a.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return a, nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens; see
// parseAdminHandler for the syntax.
func (h *AdminHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume directive name
	h.Probes = d.Val() == "genesys_probes"
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		if h.Probes || d.Val() != "hosts" {
			return d.Errf("unknown option %q; genesys_admin has hosts, genesys_probes has none", d.Val())
		}
		names := d.RemainingArgs()
		if len(names) == 0 {
			return d.ArgErr()
		}
		for _, name := range names {
			h.Hosts = append(h.Hosts, strings.ToLower(name))
		}
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*AdminHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*AdminHandler)(nil)
	_ caddyfile.Unmarshaler       = (*AdminHandler)(nil)
)
