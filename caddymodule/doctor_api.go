package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"genesys-sidecar/caddymodule/genesys"
)

// subjectsMe tells the roles of whoever asks, for which no permission is needed
// (Genesys' SDKs: AuthorizationApi, getAuthorizationSubjectsMe). Where a client
// is not told, the listing of actions is asked for instead.
const subjectsMe = "/api/v2/authorization/subjects/me?includeFullRoles=true"

// checkAPI looks at whether the API is reached, and whether it is one. It sends
// no token, so that an answer that is not the platform's own says so.
func (d *doctor) checkAPI(ctx context.Context, o *patient, e *exchanges) {
	const check = "API"
	x := e.do(ctx, e.api, http.MethodGet, o.api.String()+subjectsMe, "")
	if x.status == 0 {
		found, advice := withoutAnswer(x.err, o.api, d.timeout, "check region or api_url")
		d.problem(check, found, advice)
		return
	}
	at, way := o.api.Host, ""
	if x.connect > 0 {
		way = fmt.Sprintf(", connected to %s in %s", x.address, x.connect.Round(100*time.Microsecond))
	}
	if e.configured {
		way += ", by the options of transport http"
	}
	body, platform := genesys.ParseErrorBody(x.header.Get("Content-Type"), x.body)
	switch {
	case x.status == http.StatusLoopDetected:
		d.problem(check, o.api.Host+" leads to a sidecar, and not to Genesys Cloud", loopRemedy)
	case x.status >= 300 && x.status < 400:
		d.problem(check, fmt.Sprintf("%s sends on to %q", o.api.Host, x.header.Get("Location")),
			"check region or api_url: the API is api.<domain of the region>, without a path")
	case platform && genesys.PlatformAuthCode(body.Code):
		d.ok(check, at+" is an API of Genesys Cloud"+way)
	case x.status >= 500 || x.status == http.StatusTooManyRequests:
		d.warn(check, fmt.Sprintf("%s answers %d", at, x.status), "wait and try again; a proxy in between may be the one that fails")
	default:
		d.problem(check, fmt.Sprintf("what answers at %s with %d is no API of Genesys Cloud", o.api.Host, x.status),
			"check region or api_url; a proxy in between may answer in its place")
	}
}

// The permissions of which a client needs one to execute actions.
const (
	mayExecute       = "integrations:action:execute"
	mayExecuteBridge = "bridge:actions:execute"
)

// toldSubject is what the platform tells of the roles of a client.
type toldSubject struct {
	Grants []struct {
		Division struct {
			Name string `json:"name"`
		} `json:"division"`
		Role struct {
			Name     string       `json:"name"`
			Policies []rolePolicy `json:"policies"`
		} `json:"role"`
	} `json:"grants"`
}

type rolePolicy struct {
	Domain     string   `json:"domain"`
	EntityName string   `json:"entityName"`
	Actions    []string `json:"actions"`
}

// grants tells whether the policy has permission, a domain, an entity and an
// action.
func (p rolePolicy) grants(permission string) bool {
	parts := strings.Split(permission, ":")
	fits := func(has, want string) bool { return has == "*" || strings.EqualFold(has, want) }
	return fits(p.Domain, parts[0]) && (p.EntityName == "" || fits(p.EntityName, parts[1])) &&
		slices.ContainsFunc(p.Actions, func(a string) bool { return fits(a, parts[2]) })
}

// checkRole looks at what the client may do, as far as that can be known without
// executing an action.
func (d *doctor) checkRole(ctx context.Context, o *patient, e *exchanges, token string) {
	const check = "role"
	const grant = "give the OAuth client a role that has the permission " + mayExecute +
		" (Integrations > OAuth > the client > Roles); it takes effect without a restart"
	x := e.do(ctx, e.api, http.MethodGet, o.api.String()+subjectsMe, token)
	body, _ := genesys.ParseErrorBody(x.header.Get("Content-Type"), x.body)
	var s toldSubject
	switch {
	case x.status == 0:
		return // said of the API already
	case x.status == http.StatusUnauthorized:
		d.problem(check, fmt.Sprintf("%s does not accept the token that %s gave (%s)", o.api.Host, o.login.Host, body.Code),
			"api_url and login_url have to be of the same region: set region alone, or mend them")
		return
	case x.status == http.StatusTooManyRequests:
		d.warn(check, "the platform limits the requests of this client, and does so now", "something else uses it up: a client has 300 requests a minute")
		return
	case x.status != http.StatusOK || json.Unmarshal(x.body, &s) != nil:
		d.checkRoleByListing(ctx, o, e, token)
		return
	}
	if len(s.Grants) == 0 {
		d.problem(check, "the client has no role", grant)
		return
	}
	var names []string
	told := false
	for _, g := range s.Grants {
		names = append(names, fmt.Sprintf("%q", g.Role.Name))
		told = told || len(g.Role.Policies) > 0
		for _, p := range g.Role.Policies {
			for _, permission := range []string{mayExecute, mayExecuteBridge} {
				if p.grants(permission) {
					d.ok(check, fmt.Sprintf("the client may execute actions: its role %q has %s", g.Role.Name, permission))
					return
				}
			}
		}
	}
	roles := strings.Join(names, ", ")
	if !told {
		d.warn(check, "the client has the roles "+roles+"; whether they have "+mayExecute+" is not told, and only executing an action would prove it",
			"look at them under Roles / Permissions")
		return
	}
	d.problem(check, "the client may not execute actions: none of its roles ("+roles+") has "+mayExecute, grant)
}

// checkRoleByListing tells at least whether the token is good for anything.
func (d *doctor) checkRoleByListing(ctx context.Context, o *patient, e *exchanges, token string) {
	const check = "role"
	const unproved = "whether the client may execute actions is not known: only executing one would prove it"
	const look = "look whether one of the client's roles has " + mayExecute
	x := e.do(ctx, e.api, http.MethodGet, o.api.String()+"/api/v2/integrations/actions?pageSize=1", token)
	switch x.status {
	case http.StatusOK:
		d.warn(check, "the token is accepted, and may list actions; "+unproved, look)
	case http.StatusForbidden:
		d.warn(check, "the token is accepted, but may not list actions; "+unproved, look)
	default:
		d.warn(check, fmt.Sprintf("asking for the client's roles is answered with %d; %s", x.status, unproved), look)
	}
}

// skewWarning is how far two clocks may be apart.
const skewWarning = 30 * time.Second

// checkClock compares the clocks of those that answered with this one.
func (d *doctor) checkClock(e *exchanges) {
	const check = "clock"
	var worst time.Duration
	var host string
	for _, x := range e.all {
		date, err := http.ParseTime(x.header.Get("Date"))
		if err != nil {
			continue
		}
		skew := skewOf(date, x.sent, x.ended)
		if host == "" || skew.Abs() > worst.Abs() {
			worst, host = skew, x.host
		}
	}
	switch {
	case host == "":
		return // nobody told the time
	case worst.Abs() > skewWarning:
		by := "behind"
		if worst < 0 {
			by = "ahead of"
		}
		d.warn(check, fmt.Sprintf("this machine's clock is %s %s that of %s", worst.Abs().Round(time.Second), by, host),
			"set it, and keep it with NTP: certificates, tokens and the times on record go by it")
	default:
		d.ok(check, "this machine's clock is that of "+host+", within "+skewWarning.String())
	}
}

// skewOf returns how far the clock that said date is ahead of this one, at the
// least: it has no fractions of seconds and was read between sent and ended.
func skewOf(date, sent, ended time.Time) time.Duration {
	switch {
	case date.After(ended):
		return date.Sub(ended)
	case date.Add(time.Second).Before(sent):
		return date.Add(time.Second).Sub(sent)
	default:
		return 0
	}
}
