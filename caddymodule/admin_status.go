package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// status is what GET /genesys/status answers. Durations are in seconds.
type status struct {
	Version       string               `json:"version"`
	Caddy         string               `json:"caddy"`
	Now           time.Time            `json:"now"`
	Started       time.Time            `json:"started"`
	Organizations []organizationStatus `json:"organizations"`
	Calls         callsStatus          `json:"calls"`
	Backlog       *backlogStatus       `json:"backlog"`
	Store         storeStatus          `json:"store"`
	Cache         cacheUse             `json:"cache"`
	Handlers      []handlerStatus      `json:"handlers"`
	Minutes       []minuteStatus       `json:"minutes"`
}

type organizationStatus struct {
	Name     string        `json:"name"`
	APIURL   string        `json:"api_url"`
	ClientID string        `json:"client_id"`
	Token    tokenStatus   `json:"token"`
	Pause    *pauseStatus  `json:"pause"`
	Budget   *budgetStatus `json:"budget"`
}

// tokenStatus is what is known of a token, without it.
type tokenStatus struct {
	State        string    `json:"state"` // none, valid, failing or rejected
	Expires      time.Time `json:"expires,omitzero"`
	Generation   uint64    `json:"generation"`
	Error        string    `json:"error,omitempty"`
	FailingSince time.Time `json:"failing_since,omitzero"`
	RetryAt      time.Time `json:"retry_at,omitzero"`
}

type pauseStatus struct {
	Until time.Time `json:"until"`
}

type callsStatus struct {
	InFlight   int   `json:"in_flight"`
	Waiters    int   `json:"waiters"`
	Unrecorded int64 `json:"unrecorded"`
}

type storeStatus struct {
	Kind         string         `json:"kind"`
	Where        string         `json:"where,omitempty"`
	Shared       bool           `json:"shared"`
	Encrypted    bool           `json:"encrypted"` // what is written from now on
	Survives     []string       `json:"survives"`
	Loses        []string       `json:"loses"`
	Error        string         `json:"error,omitempty"`
	FailingSince time.Time      `json:"failing_since,omitzero"`
	Unresolved   map[string]int `json:"unresolved,omitempty"`
}

type cacheUse struct {
	Size int64 `json:"size"` // in bytes; 0: off
}

type handlerStatus struct {
	Organization string   `json:"organization"`
	Actions      []string `json:"actions"`
	Keys         []string `json:"keys"`
	UpstreamKey  string   `json:"upstream_key"`
	Guarantee    string   `json:"guarantee"`
	Why          string   `json:"why"`
	Retention    float64  `json:"retention"`
	Wait         float64  `json:"wait"`
	Deadline     float64  `json:"deadline"`
}

type minuteStatus struct {
	Start    time.Time         `json:"start"`
	Count    uint32            `json:"count"`
	Outcomes map[string]uint32 `json:"outcomes"`
	P50      float64           `json:"p50"`
	P99      float64           `json:"p99"`
}

// processStarted is about when the process did.
var processStarted = time.Now()

// serveStatus tells what is going on.
func serveStatus(w http.ResponseWriter, _ *http.Request) error {
	a, err := inForce()
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, a.status(time.Now()))
	return nil
}

func (a *App) status(now time.Time) *status {
	version, _ := caddy.Version()
	gate := a.backend.gate
	s := &status{
		Version:       moduleVersion(),
		Caddy:         version,
		Now:           now.UTC(),
		Started:       processStarted.UTC(),
		Organizations: []organizationStatus{},
		Calls:         callsStatus{gate.InFlight(), gate.Waiters(), gate.Unrecorded()},
		Backlog:       a.backlogStatus(now),
		Store:         a.storeStatus(),
		Cache:         cacheUse{a.settings.cacheSize},
		Handlers:      []handlerStatus{},
	}
	for _, o := range a.sortedOrgs() {
		s.Organizations = append(s.Organizations, o.status(now))
	}
	for _, h := range a.tenure.allHandlers() {
		s.Handlers = append(s.Handlers, h.status()...)
	}
	for _, m := range lastHour.last(now) {
		s.Minutes = append(s.Minutes, m.status())
	}
	return s
}

// moduleVersion returns the version of this module as it was built: what the
// program says of itself, if it is the sidecar's own.
func moduleVersion() string {
	if own, ok := strings.CutPrefix(caddy.CustomVersion, "genesys-sidecar "); ok {
		return strings.TrimSuffix(own, ", Caddy")
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	const path = "genesys-sidecar"
	for _, dep := range info.Deps { // built into a Caddy of one's own
		if dep.Path == path {
			return dep.Version
		}
	}
	return info.Main.Version
}

func (o *organization) status(now time.Time) organizationStatus {
	s := organizationStatus{Name: o.name, APIURL: o.api.String(), ClientID: o.clientID, Budget: o.budgetStatus()}
	token := o.tokens.Status()
	s.Token = tokenStatus{State: "none", Generation: token.Generation}
	if token.Usable {
		s.Token.State, s.Token.Expires = "valid", token.Expires.UTC()
	}
	if since := o.failingSince.Load(); since != nil && token.LastErr != nil {
		s.Token.Error, s.Token.FailingSince = token.LastErr.Error(), since.UTC()
		s.Token.RetryAt = token.NotBefore.UTC()
		if !token.Usable { // else it is the next one that cannot be had
			s.Token.State = "failing"
			if isRejected(token.LastErr) {
				s.Token.State = "rejected"
			}
		}
	}
	if left, paused := o.pause.Remaining(now); paused {
		s.Pause = &pauseStatus{now.Add(left).UTC()}
	}
	return s
}

// durability is what a kind of store survives, and what it does not.
var durability = map[string]struct{ survives, loses []string }{
	"memory": {survives: []string{}, loses: []string{"the end of the process"}},
	"disk": {
		survives: []string{"the end of the process, kill -9 too", "loss of power, as far as the disk keeps what it says it has written"},
		loses:    []string{"loss of the disk"},
	},
	"redis": {
		survives: []string{"the end of a sidecar, kill -9 too", "loss of a sidecar's machine", "what Redis survives, as it is set up; its log warns of what weakens that"},
		loses:    []string{"loss of Redis, or of what it had not written yet"},
	},
}

func (a *App) storeStatus() storeStatus {
	kind := kindOf(a.backend.identity)
	_, shared := a.backend.store.(idempotency.SharedStore)
	s := storeStatus{Kind: kind, Shared: shared, Survives: []string{}, Loses: []string{}}
	if d, ok := durability[kind]; ok {
		s.Survives, s.Loses = d.survives, d.loses
	}
	_, encrypts := a.backend.store.(interface{ SetKeyring(*store.Keyring) error })
	s.Encrypted = encrypts && a.keyring != nil
	if located, ok := a.settings.storage.(interface{ where() string }); ok {
		s.Where = located.where()
	}
	if f := a.backend.health.failure.Load(); f != nil {
		s.Error, s.FailingSince = f.err.Error(), f.since.UTC()
	}
	if tally := a.backend.tally(); tally != nil {
		s.Unresolved = make(map[string]int, len(tally))
		for state, n := range tally {
			s.Unresolved[state.String()] = n
		}
	}
	return s
}

// status tells what the handler really guarantees, for each kind of its actions.
func (h *Handler) status() []handlerStatus {
	var honored, ignored []string
	for _, p := range h.routes.Patterns() {
		if h.honored(genesys.Match{Honored: p.Honored()}) {
			honored = append(honored, p.String())
		} else {
			ignored = append(ignored, p.String())
		}
	}
	for _, e := range h.InvokeEndpoints {
		name := http.MethodPost + " " + e.Path
		if h.honored(genesys.Match{Honored: true}) {
			honored = append(honored, name)
		} else {
			ignored = append(ignored, name)
		}
	}
	var all []handlerStatus
	if len(ignored) > 0 {
		all = append(all, h.guarantee(ignored, "at most once",
			"the upstream is not known to honor keys: what may have been sent is never sent again, and where its answer was lost the outcome is unknown"))
	}
	if len(honored) > 0 {
		all = append(all, h.guarantee(honored, "effectively once",
			"the upstream is known to honor keys, for 24 hours: where an answer was lost, the call is sent again under the same key, and the upstream answers from its own record"))
	}
	return all
}

func (h *Handler) guarantee(actions []string, guarantee, why string) handlerStatus {
	if kindOf(h.app.backend.identity) == "memory" {
		guarantee += " while this process lives"
		why += "; the store is in memory, so that a restart forgets every call"
	}
	s := handlerStatus{
		Organization: h.Organization,
		Actions:      actions,
		UpstreamKey:  h.UpstreamKey,
		Guarantee:    guarantee,
		Why:          why,
		Retention:    time.Duration(h.Retention).Seconds(),
		Wait:         time.Duration(*h.Wait).Seconds(),
		Deadline:     time.Duration(h.Deadline).Seconds(),
	}
	for _, k := range h.Keys {
		s.Keys = append(s.Keys, k.String())
		if k.Adopt > 0 {
			s.Why += "; without a key, a repeat is known for one only if its caller had left or was told that the outcome is unknown"
		}
	}
	return s
}

// String returns the source as the Caddyfile has it.
func (k KeySource) String() string {
	switch {
	case k.Header != "":
		return "header " + k.Header
	case k.JSON != "":
		return "json " + k.JSON
	case k.Hash > 0:
		return fmt.Sprintf("hash %v", time.Duration(k.Hash))
	case k.Adopt > 0:
		return fmt.Sprintf("adopt %v", time.Duration(k.Adopt))
	default:
		return "require"
	}
}

func (m *minute) status() minuteStatus {
	s := minuteStatus{
		Start:    time.Unix(m.number*60, 0).UTC(),
		Count:    m.count(),
		Outcomes: make(map[string]uint32, endings),
		P50:      m.percentile(.5).Seconds(),
		P99:      m.percentile(.99).Seconds(),
	}
	for e, n := range m.ended {
		s.Outcomes[ending(e).String()] = n
	}
	return s
}

// sortedOrgs returns the organisations in the order of their names, the default
// one first.
func (a *App) sortedOrgs() []*organization {
	orgs := make([]*organization, 0, len(a.orgs))
	for _, name := range slices.Sorted(maps.Keys(a.orgs)) {
		orgs = append(orgs, a.orgs[name])
	}
	return orgs
}
