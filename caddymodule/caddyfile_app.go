package caddymodule

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/dustin/go-humanize"

	"genesys-sidecar/caddymodule/genesys"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("genesys", parseGlobalOption)
}

// parseGlobalOption parses the global option genesys, the default organisation,
// further ones, and the store that all of them share:
//
//	{
//	    genesys {
//	        region        <name>
//	        api_url       <url>
//	        login_url     <url>
//	        client_id     <id>
//	        client_secret <secret>
//	        login_transport http { ... }
//	        pace          <n> <window> [{
//	            burst <n>
//	            share <n>
//	        }]
//	        concurrency   <n>
//	        queue         <n>
//	        cache         <size>|off
//	        store         disk [<dir>]
//	        store         memory [{ max_size <size> }]
//	        store         redis <url>... [{ ... }]
//	        encryption_key <key>...
//	        backlog       <calls> [<size>]
//	        organization <name> {
//	            region        <name>
//	            api_url       <url>
//	            login_url     <url>
//	            client_id     <id>
//	            client_secret <secret>
//	            login_transport http { ... }
//	            pace          <n> <window> [{ ... }]
//	            concurrency   <n>
//	            queue         <n>
//	        }
//	    }
//	}
//
// A block that has no client, in the environment neither, and has further
// organisations, describes no default one.
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	if existing != nil {
		return nil, d.Err("the global option genesys is given twice; further organisations go into the first one, as organization <name> { … }")
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
		if seen[name] && name != "organization" {
			return d.Errf("%s is given twice", name)
		}
		seen[name] = true
		own, err := a.parseOption(d)
		if !own {
			switch name {
			case "cache":
				err = a.parseCache(d)
			case "store":
				err = a.parseStore(d)
			case "encryption_key":
				err = a.parseKeys(d)
			case "backlog":
				err = a.parseBacklog(d)
			case "organization":
				err = a.parseOrganization(d)
			default:
				err = d.Errf("unknown option %q; genesys has region, api_url, login_url, client_id, client_secret, login_transport, pace, concurrency, queue, cache, store, encryption_key, backlog and organization", name)
			}
		}
		if err != nil {
			return err
		}
	}
	if err := a.checkBudget(); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

// parseOrganization parses a further organisation.
func (a *App) parseOrganization(d *caddyfile.Dispenser) error {
	var name string
	if err := parseOrganization(d, &name); err != nil {
		return err
	}
	if _, ok := a.Organizations[name]; ok {
		return d.Errf("organization %s is given twice", name)
	}
	o := new(Organization)
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		if seen[option] {
			return d.Errf("organization %s: %s is given twice", name, option)
		}
		seen[option] = true
		own, err := o.parseOption(d)
		if err != nil {
			return err
		}
		if !own {
			return d.Errf("organization %s: unknown option %q; it has region, api_url, login_url, client_id, client_secret, login_transport, pace, concurrency and queue", name, option)
		}
	}
	switch {
	case o.ClientID == "" || o.ClientSecret == "":
		return d.Errf("organization %s: it needs client_id and client_secret; those in the environment are the default organisation's", name)
	case o.Region == "" && o.APIURL == "":
		return d.Errf("organization %s: it needs a region or an api_url", name)
	}
	if err := o.checkBudget(); err != nil {
		return d.Errf("organization %s: %v", name, err)
	}
	if a.Organizations == nil {
		a.Organizations = make(map[string]*Organization)
	}
	a.Organizations[name] = o
	return nil
}

// parseOption parses the option at d if it is one of an organisation's, and
// tells whether it is.
func (o *Organization) parseOption(d *caddyfile.Dispenser) (own bool, err error) {
	switch d.Val() {
	case "region":
		if err := parseArg(d, &o.Region); err != nil {
			return true, err
		}
		return true, o.checkRegion(d)
	case "api_url":
		return true, parseURL(d, &o.APIURL)
	case "login_url":
		return true, parseURL(d, &o.LoginURL)
	case "client_id":
		return true, parseArg(d, &o.ClientID)
	case "client_secret":
		return true, parseArg(d, &o.ClientSecret)
	case "login_transport":
		return true, o.parseLoginTransport(d)
	case "pace":
		return true, o.parsePace(d)
	case "concurrency":
		return true, parseCount(d, &o.Concurrency)
	case "queue":
		return true, parseCount(d, &o.Queue)
	default:
		return false, nil
	}
}

// parsePace parses pace <n> <window> and its block.
func (o *Organization) parsePace(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 2 {
		return d.Err("pace: it takes a number and a window, such as 300 1m")
	}
	starts, err := strconv.Atoi(args[0])
	if err != nil || starts < 1 {
		return d.Errf("pace: %q is no number from 1 on", args[0])
	}
	window, err := caddy.ParseDuration(args[1])
	if err != nil || window <= 0 {
		return d.Errf("pace: %q is no positive duration, such as 1m", args[1])
	}
	p := &Pace{Starts: starts, Window: caddy.Duration(window)}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		if seen[name] {
			return d.Errf("pace: %s is given twice", name)
		}
		seen[name] = true
		switch name {
		case "burst":
			err = parseCount(d, &p.Burst)
		case "share":
			err = parseCount(d, &p.Share)
		default:
			err = d.Errf("pace: unknown option %q; it has burst and share", name)
		}
		if err != nil {
			return err
		}
	}
	if err := p.check(); err != nil {
		return d.Err(err.Error())
	}
	o.Pace = p
	return nil
}

func (o *Organization) parseLoginTransport(d *caddyfile.Dispenser) error {
	if !d.NextArg() || d.Val() != "http" {
		return d.Err("login_transport: it must be http, as in: login_transport http { resolvers 9.9.9.9 }")
	}
	unm, err := caddyfile.UnmarshalModule(d, "http.reverse_proxy.transport.http")
	if err != nil {
		return err
	}
	o.LoginTransportRaw = caddyconfig.JSONModuleObject(unm, "protocol", "http", nil)
	return nil
}

// parseOrganization parses the name of an organisation.
func parseOrganization(d *caddyfile.Dispenser, name *string) error {
	if *name != "" {
		return d.Err("organization is given twice")
	}
	if err := parseArg(d, name); err != nil {
		return err
	}
	if *name == "" {
		return d.Err("organization: its name is empty")
	}
	return nil
}

// knownOrganization finds a misspelt organisation while its line is known.
func knownOrganization(h httpcaddyfile.Helper, name string) error {
	if name == "" {
		return nil // whether there is a default one is up to the environment
	}
	var app App
	if option, ok := h.Option("genesys").(httpcaddyfile.App); ok {
		if err := json.Unmarshal(option.Value, &app); err != nil {
			return err
		}
	}
	if _, ok := app.Organizations[name]; !ok {
		return h.Err(noOrganization(name, slices.Sorted(maps.Keys(app.Organizations))))
	}
	return nil
}

// checkRegion finds a misspelt region while its line is known.
func (o *Organization) checkRegion(d *caddyfile.Dispenser) error {
	if strings.Contains(o.Region, "{") {
		return nil
	}
	if _, _, err := genesys.Endpoints(o.Region); err != nil {
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

func (a *App) parseBacklog(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.Err("backlog: it takes a number of calls, and the size of their requests if need be, as in: backlog 10000 64MiB")
	}
	calls, err := strconv.Atoi(args[0])
	if err != nil || calls < 1 {
		return d.Errf("backlog: %q is no number of calls from 1 on", args[0])
	}
	a.Backlog = &Backlog{Calls: calls}
	if len(args) == 2 {
		size, err := humanize.ParseBytes(args[1])
		if err != nil || size == 0 || size > math.MaxInt64 {
			return d.Errf("backlog: %q is no size, such as 64MiB", args[1])
		}
		a.Backlog.Size = int64(size)
	}
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
