package caddymodule

import (
	"context"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"time"
)

// The levels of a finding.
const (
	levelOK      = "ok"
	levelWarning = "warning"
	levelProblem = "problem"
)

// finding is one line of a doctor's report.
type finding struct {
	Organization string `json:"organization,omitempty"`
	Check        string `json:"check"`
	Level        string `json:"level"`
	Found        string `json:"found"`
	Advice       string `json:"advice,omitempty"`
}

// doctor looks for what is wrong with a configuration and with what that depends
// on. Its checks go on after a problem as far as they make sense.
type doctor struct {
	timeout    time.Duration // of each exchange
	configName string
	config     []byte // adapted; nil: it cannot be read
	configErr  error  // why
	app        *App   // nil: there is none in config
	admin      *adminClient
	running    *toldStatus // nil: no sidecar answers

	organization string // that is being looked at
	findings     []finding
}

func (d *doctor) add(check, level, found, advice string) {
	d.findings = append(d.findings, finding{d.organization, check, level, found, advice})
}

func (d *doctor) ok(check, found string)              { d.add(check, levelOK, found, "") }
func (d *doctor) warn(check, found, advice string)    { d.add(check, levelWarning, found, advice) }
func (d *doctor) problem(check, found, advice string) { d.add(check, levelProblem, found, advice) }

func (d *doctor) count(level string) int {
	n := 0
	for _, f := range d.findings {
		if f.Level == level {
			n++
		}
	}
	return n
}

// examine makes all checks.
func (d *doctor) examine(ctx context.Context) {
	d.checkConfig()
	d.checkSidecar()
	if d.app == nil {
		return
	}
	d.checkStore(ctx)
	d.checkListeners()
	d.checkProxy()
	for _, o := range d.patients() {
		d.organization = o.name
		d.checkOrganization(ctx, &o)
		d.organization = ""
	}
}

// patient is an organisation to look at.
type patient struct {
	name    string // "" for the default one
	options *Organization
	env     environment
	client  string // id of its OAuth client
	api     *url.URL
	login   *url.URL
}

// patients returns the organisations of the configuration whose options can be
// used. What is wrong with others is a finding.
func (d *doctor) patients() []patient {
	var candidates []patient
	if has, err := d.app.hasDefault(); err == nil && has { // the rehearsal has told an error
		candidates = append(candidates, patient{options: &d.app.Organization, env: defaultEnvironment})
	}
	for _, name := range slices.Sorted(maps.Keys(d.app.Organizations)) {
		if o := d.app.Organizations[name]; o != nil {
			candidates = append(candidates, patient{name: name, options: o})
		}
	}
	var all []patient
	for _, o := range candidates {
		if d.admit(&o) {
			all = append(all, o)
		}
	}
	return all
}

// admit finds out where an organisation is and who calls it, or why that cannot
// be told.
func (d *doctor) admit(o *patient) bool {
	d.organization = o.name
	defer func() { d.organization = "" }()
	var err error
	if o.api, o.login, err = o.options.endpoints(o.env); err != nil {
		d.problem("region", err.Error(), "mend region, api_url or login_url")
		return false
	}
	if o.client, err = orEnv(o.options.ClientID, o.env.clientID); err != nil {
		d.problem(checkCredentials, "reading client_id: "+err.Error(), "let the sidecar's user read it")
		return false
	}
	return true
}

// checkOrganization looks at an organisation.
func (d *doctor) checkOrganization(ctx context.Context, o *patient) {
	e := d.newExchanges(ctx, o)
	defer e.close()
	token := d.checkLogin(ctx, o, e)
	d.checkAPI(ctx, o, e)
	if token != "" {
		d.checkRole(ctx, o, e, token)
	}
	d.checkClock(e)
}

// findConfig finds the configuration and the sidecar that may run with it.
func (d *doctor) findConfig(ctx context.Context, f *adminFlags) error {
	file := f.config
	if file == "" && fileExists(defaultConfig) {
		file = defaultConfig
	}
	if file != "" {
		d.configName = file
		d.config, d.configErr = readConfig(file, f.adapter)
		if d.configErr != nil && exitCode(d.configErr) == exitUsage {
			return d.configErr
		}
	}
	admin, err := newAdminClient(f.address, d.config, d.timeout)
	if err != nil && exitCode(err) == exitUsage {
		return err
	}
	d.admin = admin
	if admin != nil {
		if raw, err := admin.get(ctx, "status", nil); err == nil {
			d.running = new(toldStatus)
			if json.Unmarshal(raw, d.running) != nil {
				d.running = nil
			}
		}
	}
	if file == "" {
		return d.takeRunningConfig(ctx)
	}
	return nil
}

// takeRunningConfig takes the configuration of the sidecar that runs.
func (d *doctor) takeRunningConfig(ctx context.Context) error {
	if d.admin == nil || d.running == nil {
		return errNoConfig
	}
	config, err := d.admin.runningConfig(ctx)
	if err != nil {
		return err
	}
	d.configName = "the configuration of the sidecar that runs"
	d.config = config
	return nil
}
