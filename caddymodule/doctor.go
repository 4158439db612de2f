package caddymodule

import (
	"context"
	"encoding/json"
	"net/url"
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
		d.checkOrganization(ctx, o)
	}
	d.organization = ""
}

// patient is an organisation to look at.
type patient struct {
	name     string // "" for the default one
	client   string // id of its OAuth client
	secret   func() (string, error)
	api      *url.URL
	login    *url.URL
	toldWell bool // its options can be used
}

// patients returns the organisations of the configuration. What is wrong with
// their options is a finding.
func (d *doctor) patients() []patient {
	var all []patient
	api, login, err := d.app.endpoints()
	if err != nil {
		d.problem("region", err.Error(), "mend region, api_url or login_url in the global option genesys, or the environment variables "+
			envRegion+", "+envAPIURL+" and "+envLoginURL)
		return nil
	}
	id, err := orEnv(d.app.ClientID, envClientID)
	if err != nil {
		d.problem("credentials", "reading client_id: "+err.Error(), "")
	}
	return append(all, patient{
		client: id,
		secret: func() (string, error) { return orEnv(d.app.ClientSecret, envSecret) },
		api:    api,
		login:  login,
	})
}

// checkOrganization looks at an organisation.
func (d *doctor) checkOrganization(ctx context.Context, o patient) {
	e := d.newExchanges(o)
	defer e.close()
	token := d.checkCredentials(ctx, o, e)
	d.checkAPI(ctx, o, e)
	if token != "" {
		d.checkRole(ctx, o, e, token)
	}
	d.checkClock(e)
}

// findConfig finds the configuration and the sidecar that may run with it.
func (d *doctor) findConfig(ctx context.Context, f *adminFlags) error {
	file := f.config
	if file == "" && exists(defaultConfig) {
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
