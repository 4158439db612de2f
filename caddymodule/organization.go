package caddymodule

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

// Organization tells where an organisation's API is, and who may call it.
//
// Placeholders in client_id and client_secret are replaced at run time, so that
// `{env.*}` and `{file.*}` keep them out of the configuration. The secret is
// read again whenever a token is fetched.
//
// The defaults from the environment are those of the default organisation, that
// of the app itself; one that has a name has no defaults.
type Organization struct {
	// The AWS region of the organisation (`eu-west-1`) or its domain
	// (`mypurecloud.ie`). Default: `{env.GENESYSCLOUD_REGION}`, or `us-east-1`
	// if that is empty.
	Region string `json:"region,omitempty"`

	// The base URL of the API, in place of the region's. Default:
	// `{env.GENESYSCLOUD_API_URL}`, or the region's if that is empty.
	APIURL string `json:"api_url,omitempty"`

	// The base URL of the login service; tokens come from `/oauth/token` below
	// it. Default: `{env.GENESYSCLOUD_LOGIN_URL}`, or what belongs to the
	// region or to api_url if that is empty.
	LoginURL string `json:"login_url,omitempty"`

	// The id of the OAuth client (grant type: client credentials). Default:
	// `{env.GENESYSCLOUD_OAUTHCLIENT_ID}`.
	ClientID string `json:"client_id,omitempty"`

	// The secret of the OAuth client. Default:
	// `{env.GENESYSCLOUD_OAUTHCLIENT_SECRET}`.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the login service is reached: the transport `http`. Default: by the
	// proxy of the environment and the certificate authorities of the system.
	LoginTransportRaw json.RawMessage `json:"login_transport,omitempty" caddy:"namespace=http.reverse_proxy.transport inline_key=protocol"`

	// How many requests may start per period. What is beyond that waits for its
	// turn. Default: as many as come.
	Pace *Pace `json:"pace,omitempty"`

	// How many data actions may be under way at a time. The others wait for their
	// turn. Default: as many as come.
	Concurrency int `json:"concurrency,omitempty"`

	// How many requests may wait for pace and concurrency. One more is refused
	// with a 429, or takes the place of one whose scope has more waiting. Default:
	// 4096.
	Queue int `json:"queue,omitempty"`
}

// environment has the names of the variables that stand in for options that are
// empty. The zero value has none.
type environment struct{ region, apiURL, loginURL, clientID, secret string }

// defaultEnvironment is that of the default organisation: what Genesys' own
// Terraform provider and CLI use, and two more for those who do not call the
// platform itself.
var defaultEnvironment = environment{
	region:   envRegion,
	apiURL:   envAPIURL,
	loginURL: envLoginURL,
	clientID: envClientID,
	secret:   envSecret,
}

// organization is an organisation as one configuration has it. What outlives
// that is in org.
type organization struct {
	*org
	name     string // "" for the default one
	api      *url.URL
	clientID string

	orgKey string // in orgs
	access *access
	former *access // what start replaced, to be put back if the configuration fails after all
}

// provisionOrganizations loads the default organisation, if it has a client, and
// all others.
func (a *App) provisionOrganizations(ctx caddy.Context) error {
	a.orgs = make(map[string]*organization, 1+len(a.Organizations))
	if exists, err := a.hasDefault(); err != nil {
		return err
	} else if exists {
		if err := a.provisionOrganization(ctx, "", &a.Organization, defaultEnvironment); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.Organizations)) {
		o := a.Organizations[name]
		if name == "" || o == nil {
			return errors.New("an organization needs a name and options")
		}
		if err := a.provisionOrganization(ctx, name, o, environment{}); err != nil {
			return fmt.Errorf("organization %s: %w", name, err)
		}
	}
	return nil
}

// hasDefault tells whether the block itself describes an organisation. One that
// only has others needs no client of its own.
func (a *App) hasDefault() (bool, error) {
	id, err := orEnv(a.ClientID, envClientID)
	if err != nil {
		return false, fmt.Errorf("reading client_id: %w", err)
	}
	switch {
	case id != "":
		return true, nil
	case len(a.Organizations) == 0:
		return false, fmt.Errorf("no OAuth client: set the environment variables %s and %s, or client_id and client_secret in the global option genesys",
			envClientID, envSecret)
	case !reflect.ValueOf(a.Organization).IsZero():
		return false, errors.New("the global option genesys describes an organisation of its own, but the client_id of that is empty; give it one, or move its options into the organizations that it has")
	}
	return false, nil
}

func (a *App) provisionOrganization(ctx caddy.Context, name string, o *Organization, env environment) error {
	api, login, err := o.endpoints(env)
	if err != nil {
		return err
	}
	clientID, err := orEnv(o.ClientID, env.clientID)
	if err != nil {
		return fmt.Errorf("reading client_id: %w", err)
	}
	if clientID == "" {
		return errors.New("its client_id is empty")
	}
	if err := o.checkSecret(ctx.Logger(), name, env); err != nil {
		return err
	}

	if err := o.checkBudget(); err != nil {
		return err
	}
	transport, err := o.loginTransport(ctx)
	if err != nil {
		return fmt.Errorf("loading login_transport: %w", err)
	}

	// Regions are shared by many organisations, of which only the client tells
	// which one it is.
	id := api.String() + " " + clientID
	for _, other := range a.orgs {
		if other.id == id {
			return fmt.Errorf("it has the same API and the same client as %s", other)
		}
	}
	key := id + " " + login.String()
	state, err := loadOrg(key, id, genesys.TokenURL(login), clientID)
	if err != nil {
		return err
	}
	loaded := &organization{
		org:      state,
		name:     name,
		api:      api,
		clientID: clientID,
		orgKey:   key,
		access: &access{
			secret:    func() (string, error) { return orEnv(o.ClientSecret, env.secret) },
			transport: transport,
			budget:    o.budget(),
		},
	}
	a.orgs[name] = loaded
	return nil
}

// endpoints returns the base URLs of the API and of the login service.
func (o *Organization) endpoints(env environment) (api, login *url.URL, err error) {
	var region, apiURL, loginURL string
	for _, option := range []struct {
		name, written, variable string
		value                   *string
	}{
		{"region", o.Region, env.region, &region},
		{"api_url", o.APIURL, env.apiURL, &apiURL},
		{"login_url", o.LoginURL, env.loginURL, &loginURL},
	} {
		if *option.value, err = orEnv(option.written, option.variable); err != nil {
			return nil, nil, fmt.Errorf("reading %s: %w", option.name, err)
		}
		// The default may be written out; it then is what it would be else.
		if option.written != "" && *option.value == "" && option.written != "{env."+option.variable+"}" {
			return nil, nil, fmt.Errorf("reading %s: %s", option.name, standsForNothing)
		}
	}

	if apiURL != "" {
		if api, err = genesys.ParseURL(apiURL); err != nil {
			return nil, nil, fmt.Errorf("reading api_url: %w", err)
		}
		login = genesys.LoginURL(api)
	} else {
		if region == "" {
			if env == (environment{}) {
				return nil, nil, errors.New("it has neither a region nor an api_url")
			}
			region = defaultRegion
		}
		if api, login, err = genesys.Endpoints(region); err != nil {
			return nil, nil, fmt.Errorf("reading region: %w", err)
		}
	}
	if loginURL != "" {
		if login, err = genesys.ParseURL(loginURL); err != nil {
			return nil, nil, fmt.Errorf("reading login_url: %w", err)
		}
	}
	return api, login, nil
}

// checkSecret finds out at start what would else fail the first call.
func (o *Organization) checkSecret(log *zap.Logger, name string, env environment) error {
	secret, err := orEnv(o.ClientSecret, env.secret)
	if err != nil {
		return fmt.Errorf("reading client_secret: %w", err)
	}
	if secret == "" {
		if env.secret == "" {
			return errors.New("the OAuth client's secret is empty: set client_secret")
		}
		return fmt.Errorf("the OAuth client's secret is empty: set the environment variable %s, or client_secret in the global option genesys",
			env.secret)
	}
	if secret == o.ClientSecret {
		log.Warn("client_secret is written out in the configuration, where whoever may read that finds it; use {env.*} or {file.*}",
			zap.String("organization", name))
	}
	return nil
}

// loginTransport returns the configured way to the login service, nil if none is.
func (o *Organization) loginTransport(ctx caddy.Context) (http.RoundTripper, error) {
	if o.LoginTransportRaw == nil {
		return nil, nil
	}
	loaded, err := ctx.LoadModule(&Organization{LoginTransportRaw: o.LoginTransportRaw}, "LoginTransportRaw")
	if err != nil {
		return nil, err
	}
	transport, ok := loaded.(*reverseproxy.HTTPTransport)
	if !ok {
		return nil, fmt.Errorf("%T is not the transport http", loaded)
	}
	if slices.Contains(transport.Versions, "3") {
		return nil, errors.New("versions: HTTP/3 would end with the configuration; use 1.1 and 2")
	}
	return transport, nil
}

// organization returns the organisation of name; "" is the default one.
func (a *App) organization(name string) (*organization, error) {
	if o, ok := a.orgs[name]; ok {
		return o, nil
	}
	return nil, errors.New(noOrganization(name, slices.Sorted(maps.Keys(a.orgs))))
}

// noOrganization says that none has that name. names are sorted.
func noOrganization(name string, names []string) string {
	if name == "" {
		return "the global option genesys has no organisation of its own, so that organization must name one of: " + strings.Join(names, ", ")
	}
	if len(names) > 0 && names[0] == "" {
		names = names[1:]
	}
	if len(names) == 0 {
		return fmt.Sprintf("there is no organization %q: the global option genesys has none with a name", name)
	}
	return fmt.Sprintf("there is no organization %q in the global option genesys; it has %s", name, strings.Join(names, ", "))
}

// init lets the organisation's state use what this configuration says, if it has
// used nothing yet: the servers of a process may have started, and be called,
// before start is. Its budget is spent together with whoever else uses the store,
// if that can do so.
func (o *organization) init(store idempotency.Store) {
	if shared, ok := store.(pacing.Shared); ok {
		o.access.budget.Shared, o.access.budget.Name = shared, hex.EncodeToString(o.digest[:])
	}
	o.useFirst(o.access)
}

// start lets the organisation's state use what this configuration says.
func (o *organization) start() { o.former = o.use(o.access) }

// stop takes that back where the configuration has failed.
func (o *organization) stop(failed bool) {
	if failed {
		o.restore(o.access, o.former)
	}
	o.former = nil // else each configuration would keep the one before it in memory
}

// label returns the organisation's name as metrics have it.
func (o *organization) label() string {
	if o.name == "" {
		return "default"
	}
	return o.name
}

// organizationName returns the name by which the configuration in force knows
// the organisation with this digest; "" is that of the default one, and "?" that
// of one it does not have any more.
func organizationName(digest idempotency.OrganisationID) string {
	if a := running.Load(); a != nil {
		for name, o := range a.orgs {
			if o.digest == digest {
				return name
			}
		}
	}
	return "?"
}

func (o *organization) String() string {
	if o.name == "" {
		return "the default organisation"
	}
	return "organization " + o.name
}
