package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// checkConfig finds the app in the configuration, and has Caddy provision all of
// it as a start would.
func (d *doctor) checkConfig() {
	const check = "configuration"
	if d.configErr != nil {
		d.problem(check, d.configErr.Error(), "mend that line; genesys-sidecar adapt shows what a Caddyfile stands for")
		return
	}
	app, err := findApp(d.config)
	if err != nil {
		d.problem(check, err.Error(), "add the global option genesys, and a site with genesys_cloud")
		return
	}
	d.app = app
	if err := rehearse(d.config); err != nil {
		d.problem(check, err.Error(), "mend it: a sidecar does not start with this. (Placeholders are those of this shell: "+
			"the environment of a service may be another.)")
	} else {
		d.ok(check, "it loads")
	}
	organizations := []*Organization{&app.Organization}
	for _, o := range app.Organizations {
		organizations = append(organizations, o)
	}
	if slices.ContainsFunc(organizations, func(o *Organization) bool { return o != nil && o.writtenOut() }) {
		d.warn(check, "client_secret is written out in the configuration, where whoever may read that finds it",
			"use {env.…} or {file.…}")
	}
}

// writtenOut tells whether the secret stands in the configuration itself.
func (o *Organization) writtenOut() bool {
	secret, err := orEnv(o.ClientSecret, "")
	return err == nil && secret != "" && secret == o.ClientSecret
}

// findApp returns the app genesys of a configuration, not provisioned.
func findApp(config []byte) (*App, error) {
	var c struct {
		Apps map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(config, &c); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	raw, ok := c.Apps["genesys"]
	if !ok {
		return nil, errors.New("it has no app genesys")
	}
	app := new(App)
	if err := caddy.StrictUnmarshalJSON(raw, app); err != nil {
		return nil, fmt.Errorf("reading the app genesys: %w", err)
	}
	return app, nil
}

// rehearse provisions a configuration as a start would, without touching what is
// there: neither the store, which a running sidecar may have open, nor Caddy's
// own storage and logs, which may belong to another user.
func rehearse(config []byte) error {
	var c map[string]any
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	dir, err := os.MkdirTemp("", "genesys-doctor-")
	if err != nil {
		return fmt.Errorf("making a directory for the rehearsal: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	c["admin"] = map[string]any{"disabled": true}
	// Another writer would be announced in the log.
	c["logging"] = map[string]any{"logs": map[string]any{"default": map[string]any{"level": "FATAL"}}}
	c["storage"] = map[string]any{"module": "file_system", "root": dir}
	if apps, ok := c["apps"].(map[string]any); ok {
		if app, ok := apps["genesys"].(map[string]any); ok {
			app["storage"] = map[string]any{"backend": "memory"}
		}
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	var cfg caddy.Config
	if err := caddy.StrictUnmarshalJSON(raw, &cfg); err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	return caddy.Validate(&cfg)
}

// loadStorage returns the store's module, not provisioned.
func (d *doctor) loadStorage() (caddy.Module, error) {
	raw := d.app.StorageRaw
	if raw == nil {
		return new(DiskStorage), nil
	}
	var fields map[string]json.RawMessage
	var name string
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("reading storage: %w", err)
	}
	if err := json.Unmarshal(fields["backend"], &name); err != nil {
		return nil, errors.New("reading storage: it has no backend")
	}
	info, err := caddy.GetModule("http.handlers.genesys_cloud.storage." + name)
	if err != nil {
		return nil, fmt.Errorf("reading storage: %w", err)
	}
	delete(fields, "backend")
	options, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("reading storage: %w", err)
	}
	module := info.New()
	if err := caddy.StrictUnmarshalJSON(options, module); err != nil {
		return nil, fmt.Errorf("reading storage: %w", err)
	}
	return module, nil
}

// checkSidecar asks the sidecar that runs.
func (d *doctor) checkSidecar() {
	const check = "sidecar"
	switch {
	case d.admin == nil:
		d.ok(check, "the admin endpoint is switched off, so that one that may run cannot be asked; a site with genesys_admin is found by --address")
		return
	case d.running == nil:
		d.ok(check, "none answers at "+d.admin.address+": this is about the configuration alone")
		return
	}
	s := d.running
	d.ok(check, fmt.Sprintf("%s answers at %s, up for %s", s.Version, d.admin.address, roughly(s.Now.Sub(s.Started))))
	for _, wrong := range s.wrong() {
		d.problem(check, wrong, "the checks below and its log tell more")
	}
	if n := s.Store.Unresolved["unknown"]; n > 0 {
		d.warn(check, counted(n, "call")+" with an outcome that nobody knows",
			"find out whether they ran, and say so: genesys calls list --state unknown, genesys calls resolve")
	}
	if n := s.Calls.Unrecorded; n > 0 {
		d.warn(check, counted(n, "answer")+" not recorded yet: the store was or is away", "keep the sidecar running until the store is back")
	}
}

// runningConfig returns the configuration of the Caddy that runs.
func (c *adminClient) runningConfig(ctx context.Context) ([]byte, error) {
	status, _, answer, err := c.exchange(ctx, http.MethodGet, c.base+"/config/", nil)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK || !json.Valid(answer):
		return nil, fmt.Errorf("reading the running configuration: %s answered %d; --config names one in a file", c.address, status)
	}
	return answer, nil
}
