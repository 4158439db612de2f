package caddymodule

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// toldStatus is what the admin API tells of the whole sidecar.
type toldStatus struct {
	Version       string             `json:"version"`
	Caddy         string             `json:"caddy"`
	Now           time.Time          `json:"now"`
	Started       time.Time          `json:"started"`
	Organizations []toldOrganization `json:"organizations"`
	Calls         struct {
		InFlight   int `json:"in_flight"`
		Waiters    int `json:"waiters"`
		Unrecorded int `json:"unrecorded"`
	} `json:"calls"`
	Backlog  *toldBacklog  `json:"backlog"`
	Store    toldStore     `json:"store"`
	Cache    toldCache     `json:"cache"`
	Handlers []toldHandler `json:"handlers"`
	Minutes  []toldMinute  `json:"minutes"`
}

type toldOrganization struct {
	Name     string    `json:"name"`
	APIURL   string    `json:"api_url"`
	ClientID string    `json:"client_id"`
	Token    toldToken `json:"token"`
	Pause    *struct {
		Until time.Time `json:"until"`
	} `json:"pause"`
	Budget *toldBudget `json:"budget"`
}

type toldToken struct {
	State        string    `json:"state"`
	Expires      time.Time `json:"expires"`
	Error        string    `json:"error"`
	FailingSince time.Time `json:"failing_since"`
	RetryAt      time.Time `json:"retry_at"`
}

type toldStore struct {
	Kind       string         `json:"kind"`
	Where      string         `json:"where"`
	Shared     bool           `json:"shared"`
	Survives   []string       `json:"survives"`
	Loses      []string       `json:"loses"`
	Encrypted  bool           `json:"encrypted"`
	Error      string         `json:"error"`
	Unresolved map[string]int `json:"unresolved"`
}

type toldCache struct {
	Size int64 `json:"size"`
}

type toldHandler struct {
	Organization string   `json:"organization"`
	Actions      []string `json:"actions"`
	Keys         []string `json:"keys"`
	Guarantee    string   `json:"guarantee"`
	Why          string   `json:"why"`
	Retention    float64  `json:"retention"`
}

type toldMinute struct {
	Outcomes map[string]int `json:"outcomes"`
	Count    int            `json:"count"`
	P99      float64        `json:"p99"`
}

func newStatusCommand() *cobra.Command {
	var admin adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tells how a running sidecar is: tokens, store, calls, and what it guarantees",
		Long: `Tells how a running sidecar is: its organizations and their tokens, its store and
what that survives, the calls under way and those that wait, what is used of its
budget, and what each handler really guarantees.

It exits with 6 if something is wrong: the store is down, or there is no token to be
had. What it is and what to do is in its output; genesys doctor looks closer.`,
		Example: `  genesys-sidecar genesys status
  genesys-sidecar genesys status --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: coded(func(cmd *cobra.Command, _ []string) error {
			client, err := admin.client()
			if err != nil {
				return err
			}
			raw, err := client.get(cmd.Context(), "status", nil)
			if err != nil {
				return err
			}
			var status toldStatus
			if err := json.Unmarshal(raw, &status); err != nil {
				return fmt.Errorf("reading the sidecar's answer: %w", err)
			}
			p := newPrinter(cmd)
			if asJSON {
				err = p.json(raw)
			} else {
				p.status(&status)
			}
			if err == nil && len(status.wrong()) > 0 {
				err = &codedError{code: exitUnwell}
			}
			return err
		}),
	}
	admin.register(cmd, adminTimeout)
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// wrong returns what keeps calls from being served.
func (s *toldStatus) wrong() []string {
	var wrong []string
	if s.Store.Error != "" {
		wrong = append(wrong, "the store is down: "+s.Store.Error)
	}
	for _, o := range s.Organizations {
		if o.Token.State == "failing" || o.Token.State == "rejected" {
			wrong = append(wrong, fmt.Sprintf("%s has no token: %s", o.title(), o.Token.Error))
		}
	}
	return wrong
}

func (o *toldOrganization) title() string {
	if o.Name == "" {
		return "the default organization"
	}
	return "organization " + o.Name
}

func (p *printer) status(s *toldStatus) {
	p.line("genesys-sidecar %s with Caddy %s, up for %s", s.Version, orDash(firstWord(s.Caddy)), roughly(s.Now.Sub(s.Started)))
	for _, w := range s.wrong() {
		p.line("%s %s", painted(p.paint(colorRed, "wrong:")), w)
	}
	p.line("")
	p.organizations(s)
	p.line("")
	p.storeStatus(s)
	p.line("calls    %d under way, %d waiting for one of them, %d not recorded yet", s.Calls.InFlight, s.Calls.Waiters, s.Calls.Unrecorded)
	p.budgets(s)
	p.backlog(s.Backlog)
	if s.Cache.Size > 0 {
		p.line("cache    up to %s of answers in memory", humanize.IBytes(uint64(s.Cache.Size)))
	} else {
		p.line("cache    off")
	}
	p.lastHour(s.Minutes)
	p.handlers(s)
}

func (p *printer) organizations(s *toldStatus) {
	t := &table{head: []string{"ORGANIZATION", "TOKEN", "UNTIL", "PAUSED", "CLIENT", "API"}}
	for _, o := range s.Organizations {
		name, until, paused := "(default)", "-", "-"
		if o.Name != "" {
			name = o.Name
		}
		switch {
		case o.Token.State == "valid":
			until = ago(s.Now, o.Token.Expires)
		case !o.Token.RetryAt.IsZero():
			until = "tries " + ago(s.Now, o.Token.RetryAt)
		}
		if o.Pause != nil && o.Pause.Until.After(s.Now) {
			paused = "ends " + ago(s.Now, o.Pause.Until)
		}
		t.add(name, o.Token.State, until, paused, o.ClientID, o.APIURL)
	}
	t.paint = func(column int, cell string) string {
		switch {
		case column != 1:
			return colorNone
		case cell == "valid":
			return colorGreen
		case cell == "failing" || cell == "rejected":
			return colorRed
		default:
			return colorNone
		}
	}
	p.table(t)
}

func (p *printer) storeStatus(s *toldStatus) {
	what := strings.TrimSpace(s.Store.Kind + " " + s.Store.Where)
	if s.Store.Shared {
		what += ", shared"
	}
	if s.Store.Encrypted {
		what += ", encrypted"
	}
	p.line("store    %s", what)
	if len(s.Store.Survives) > 0 {
		p.line("         survives %s", strings.Join(s.Store.Survives, ", "))
	}
	if len(s.Store.Loses) > 0 {
		p.line("         does not survive %s", strings.Join(s.Store.Loses, ", "))
	}
	var unresolved []string
	for _, state := range []string{"unknown", "open", "started"} {
		if n := s.Store.Unresolved[state]; n > 0 {
			unresolved = append(unresolved, fmt.Sprintf("%d %s", n, state))
		}
	}
	if len(unresolved) > 0 {
		p.line("         %s", strings.Join(unresolved, ", "))
	}
}

// toldOutcomes are the outcomes of calls, as they are told in an order that makes
// sense.
var toldOutcomes = []string{"executed", "replayed", "shared", "adopted", "accepted", "unknown", "refused", "rejected"}

func (p *printer) lastHour(minutes []toldMinute) {
	sum := make(map[string]int)
	count, worst := 0, 0.0
	for _, m := range minutes {
		for name, n := range m.Outcomes {
			sum[name] += n
		}
		count += m.Count
		worst = max(worst, m.P99)
	}
	if count == 0 {
		p.line("hour     no calls")
		return
	}
	var told []string
	for _, name := range toldOutcomes {
		if sum[name] > 0 {
			told = append(told, fmt.Sprintf("%d %s", sum[name], name))
		}
	}
	p.line("hour     %d calls: %s; 99 of 100 within %s in its slowest minute", count, strings.Join(told, ", "), inSeconds(worst))
}

func (p *printer) handlers(s *toldStatus) {
	named := slices.ContainsFunc(s.Handlers, func(h toldHandler) bool { return h.Organization != "" })
	for _, h := range s.Handlers {
		p.line("")
		title := "handler"
		if named {
			title += " of " + (&toldOrganization{Name: h.Organization}).title()
		}
		p.line("%s: %s", title, h.Guarantee)
		if h.Why != "" {
			p.line("  %s", h.Why)
		}
		for i, a := range h.Actions {
			head := "actions"
			if i > 0 {
				head = ""
			}
			p.line("  %-9s %s", head, a)
		}
		p.line("  keys      %s", strings.Join(h.Keys, ", "))
		p.line("  retention %s", time.Duration(h.Retention*float64(time.Second)))
	}
}
