package caddymodule

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"genesys-sidecar/caddymodule/genesys"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("genesys", parseGlobalOption)
}

// parseGlobalOption parses the global option genesys, the organisation:
//
//	{
//	    genesys {
//	        region        <name>
//	        api_url       <url>
//	        login_url     <url>
//	        client_id     <id>
//	        client_secret <secret>
//	        cache         <size>|off
//	        store         disk [<dir>]
//	        store         memory [{ max_size <size> }]
//	        store         redis <url>... [{ ... }]
//	    }
//	}
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("the global option genesys is given twice; there is one organisation")
	}
	app := new(App)
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "genesys", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from Caddyfile tokens; see
// parseGlobalOption for the syntax.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume option name
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(map[string]bool)
	for d.NextBlock(0) {
		name := d.Val()
		if seen[name] {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		var err error
		switch name {
		case "region":
			if err = parseArg(d, &a.Region); err == nil {
				err = a.checkRegion(d)
			}
		case "api_url":
			err = parseURL(d, &a.APIURL)
		case "login_url":
			err = parseURL(d, &a.LoginURL)
		case "client_id":
			err = parseArg(d, &a.ClientID)
		case "client_secret":
			err = parseArg(d, &a.ClientSecret)
		case "cache":
			err = a.parseCache(d)
		case "store":
			err = a.parseStore(d)
		default:
			err = d.Errf("unknown option %q; genesys has region, api_url, login_url, client_id, client_secret, cache and store", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRegion finds a misspelt region while its line is known.
func (a *App) checkRegion(d *caddyfile.Dispenser) error {
	if strings.Contains(a.Region, "{") {
		return nil
	}
	if _, _, err := genesys.Endpoints(a.Region); err != nil {
		return d.Errf("region: %v", err)
	}
	return nil
}

func parseURL(d *caddyfile.Dispenser, target *string) error {
	name := d.Val()
	if err := parseArg(d, target); err != nil {
		return err
	}
	if strings.Contains(*target, "{") {
		return nil
	}
	if _, err := genesys.ParseURL(*target); err != nil {
		return d.Errf("%s: %v", name, err)
	}
	return nil
}

func (a *App) parseCache(d *caddyfile.Dispenser) error {
	var size int64
	if d.CountRemainingArgs() == 1 {
		d.NextArg()
		if d.Val() == "off" {
			a.CacheSize = &size
			return nil
		}
		d.Prev()
	}
	if err := parseSize(d, &size); err != nil {
		return err
	}
	a.CacheSize = &size
	return nil
}

func (a *App) parseStore(d *caddyfile.Dispenser) error {
	const namespace = "http.handlers.genesys_cloud.storage"
	if !d.NextArg() {
		return d.Errf("store: which one? It is one of %s", strings.Join(storeNames(namespace), ", "))
	}
	name := d.Val()
	if !slices.Contains(storeNames(namespace), name) {
		return d.Errf("store: there is no %q; it is one of %s", name, strings.Join(storeNames(namespace), ", "))
	}
	unm, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return err
	}
	a.StorageRaw = caddyconfig.JSONModuleObject(unm, "backend", name, nil)
	return nil
}

// storeNames returns the names of the stores in this build.
func storeNames(namespace string) []string {
	var names []string
	for _, m := range caddy.GetModules(namespace) {
		names = append(names, m.ID.Name())
	}
	slices.Sort(names)
	return names
}

// Interface guard
var _ caddyfile.Unmarshaler = (*App)(nil)
