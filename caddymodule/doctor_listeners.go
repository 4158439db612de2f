package caddymodule

import (
	"encoding/json"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

const checkListeners = "listeners"

// checkListeners looks at who can reach the sidecar: whoever does acts with its
// token.
func (d *doctor) checkListeners() {
	var c struct {
		Admin struct {
			Disabled bool   `json:"disabled"`
			Listen   string `json:"listen"`
		} `json:"admin"`
		Apps struct {
			HTTP struct {
				Servers map[string]struct {
					Listen   []string         `json:"listen"`
					Routes   []any            `json:"routes"`
					Policies []map[string]any `json:"tls_connection_policies"`
				} `json:"servers"`
			} `json:"http"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(d.config, &c); err != nil {
		d.warn(checkListeners, "the servers cannot be looked at: "+err.Error(), "")
		return
	}
	served := false
	for _, name := range slices.Sorted(maps.Keys(c.Apps.HTTP.Servers)) {
		server := c.Apps.HTTP.Servers[name]
		var acts, guarded bool
		walkObjects(server.Routes, func(module map[string]any) {
			transport, _ := module["transport"].(map[string]any)
			acts = acts || module["handler"] == "genesys_cloud" || transport["protocol"] == "genesys"
			guarded = guarded || module["handler"] == "authentication" || module["client_ip"] != nil || module["remote_ip"] != nil
		})
		for _, p := range server.Policies {
			guarded = guarded || p["client_authentication"] != nil
		}
		if !acts {
			continue
		}
		served = true
		d.checkListener(server.Listen, guarded)
	}
	if !served {
		d.problem(checkListeners, "no site has genesys_cloud, so that no call is served", "add it to a site")
	}
	if listen := c.Admin.Listen; !c.Admin.Disabled && listen != "" && !isLocal(listen) {
		d.warn(checkListeners, "the admin endpoint listens on "+listen+": whoever reaches it can change the configuration and read what is on record",
			"bind it to loopback or a unix socket, as in: admin localhost:2019; a site with genesys_admin can have authentication")
	}
}

// checkListener looks at the addresses of a server that acts with the token.
func (d *doctor) checkListener(listen []string, guarded bool) {
	var open []string
	for _, address := range listen {
		if !isLocal(address) {
			open = append(open, address)
		}
	}
	all := strings.Join(listen, ", ")
	switch {
	case len(open) == 0:
		d.ok(checkListeners, all+" is reached from this machine only")
	case guarded:
		d.ok(checkListeners, all+" is reached from elsewhere; something in it asks who calls (which routes that covers was not looked at)")
	default:
		d.warn(checkListeners, strings.Join(open, ", ")+" is reached from elsewhere, and whoever reaches it acts with the organisation's token; "+
			"looked for in vain: basic_auth and other authentication, client certificates, and matchers by address",
			"write bind 127.0.0.1 in that site, or put authentication in front of genesys_cloud")
	}
}

// isLocal tells whether only this machine reaches a listener.
func isLocal(listen string) bool {
	a, err := caddy.ParseNetworkAddress(listen)
	if err != nil {
		return false
	}
	if a.IsUnixNetwork() || a.IsFdNetwork() || a.Host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && ip.Unmap().IsLoopback()
}

// checkProxy tells which proxies the environment names.
func (d *doctor) checkProxy() {
	const check = "proxy"
	var found []string
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"} {
		if value := orElse(os.Getenv(name), os.Getenv(strings.ToLower(name))); value != "" {
			if name != "NO_PROXY" {
				value = withoutPassword(value)
			}
			found = append(found, name+"="+value)
		}
	}
	if len(found) == 0 {
		d.ok(check, "the environment names none")
		return
	}
	d.ok(check, "the environment has "+strings.Join(found, ", ")+"; tokens are fetched through it, and calls are, unless transport http says otherwise")
}

// withoutPassword is a proxy's URL without its password.
func withoutPassword(proxy string) string {
	u, err := url.Parse(proxy)
	if err != nil {
		return "(unreadable)"
	}
	return u.Redacted()
}
