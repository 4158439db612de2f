package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"genesys-sidecar/caddymodule/genesys"
)

func init() {
	caddy.RegisterModule(App{})
}

// App is a Genesys Cloud organisation: where its API is, who may call it, and
// where the answers of its data actions are kept. All handlers share it, and
// its state survives reloads.
//
// Placeholders in client_id and client_secret are replaced at run time, so that
// `{env.*}` and `{file.*}` keep them out of the configuration. The secret is
// read again whenever a token is fetched.
type App struct {
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

	// How many bytes of finished answers are held in memory in front of the
	// store; 0 for none. Default: 67108864 (64 MiB).
	CacheSize *int64 `json:"cache_size,omitempty"`

	// Where answers are kept. Default: `disk`.
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=http.handlers.genesys_cloud.storage inline_key=backend"`

	api     *url.URL
	org     *org
	backend *backend

	// What Start replaced, to be put back if the configuration fails after all.
	secret, formerSecret     *secretSource
	settings, formerSettings *settings

	orgKey, backendKey string // set once loaded from their pools
}

const (
	defaultRegion    = "us-east-1"
	defaultCacheSize = 64 << 20
)

// The environment variables that Genesys' own Terraform provider and CLI use,
// and two more for those who do not call the platform itself.
const (
	envRegion   = "GENESYSCLOUD_REGION"
	envClientID = "GENESYSCLOUD_OAUTHCLIENT_ID"
	envSecret   = "GENESYSCLOUD_OAUTHCLIENT_SECRET"
	envAPIURL   = "GENESYSCLOUD_API_URL"
	envLoginURL = "GENESYSCLOUD_LOGIN_URL"
)

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "genesys",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	api, login, err := a.endpoints()
	if err != nil {
		return err
	}
	a.api = api

	clientID, err := orEnv(a.ClientID, envClientID)
	if err != nil {
		return fmt.Errorf("reading client_id: %w", err)
	}
	if clientID == "" {
		return fmt.Errorf("no OAuth client: set the environment variables %s and %s, or client_id and client_secret in the global option genesys",
			envClientID, envSecret)
	}
	if err := a.checkSecret(ctx.Logger()); err != nil {
		return err
	}

	// Regions are shared by many organisations, of which only the client tells
	// which one it is.
	id := api.String() + " " + clientID
	a.orgKey = id + " " + login.String()
	if a.org, err = loadOrg(a.orgKey, id, genesys.TokenURL(login), clientID); err != nil {
		a.orgKey = ""
		return err
	}
	a.secret = &secretSource{func() (string, error) { return orEnv(a.ClientSecret, envSecret) }}
	a.org.secret.CompareAndSwap(nil, a.secret)

	if err := a.provisionStore(ctx); err != nil {
		return err
	}
	return a.registerMetrics(ctx)
}

// endpoints returns the base URLs of the API and of the login service.
func (a *App) endpoints() (api, login *url.URL, err error) {
	region, err := orEnv(a.Region, envRegion)
	if err != nil {
		return nil, nil, fmt.Errorf("reading region: %w", err)
	}
	apiURL, err := orEnv(a.APIURL, envAPIURL)
	if err != nil {
		return nil, nil, fmt.Errorf("reading api_url: %w", err)
	}
	loginURL, err := orEnv(a.LoginURL, envLoginURL)
	if err != nil {
		return nil, nil, fmt.Errorf("reading login_url: %w", err)
	}

	if apiURL != "" {
		if api, err = genesys.ParseURL(apiURL); err != nil {
			return nil, nil, fmt.Errorf("reading api_url: %w", err)
		}
		login = genesys.LoginURL(api)
	} else {
		if region == "" {
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
func (a *App) checkSecret(log *zap.Logger) error {
	secret, err := orEnv(a.ClientSecret, envSecret)
	if err != nil {
		return fmt.Errorf("reading client_secret: %w", err)
	}
	if secret == "" {
		return fmt.Errorf("the OAuth client's secret is empty: set the environment variable %s, or client_secret in the global option genesys",
			envSecret)
	}
	if secret == a.ClientSecret {
		log.Warn("client_secret is written out in the configuration, where whoever may read that finds it; use {env.*} or {file.*}")
	}
	return nil
}

func (a *App) provisionStore(ctx caddy.Context) error {
	raw := a.StorageRaw
	if raw == nil {
		raw = json.RawMessage(`{"backend": "disk"}`)
	}
	loaded, err := ctx.LoadModule(&App{StorageRaw: raw}, "StorageRaw")
	if err != nil {
		return fmt.Errorf("loading store: %w", err)
	}
	storage, ok := loaded.(Storage)
	if !ok {
		return fmt.Errorf("loading store: module %T is no store", loaded)
	}
	key := storage.Identity()
	if a.backend, err = loadBackend(key, storage); err != nil {
		return err
	}
	a.backendKey = key

	a.settings = &settings{cacheSize: defaultCacheSize, storage: storage}
	if a.CacheSize != nil {
		a.settings.cacheSize = *a.CacheSize
	}
	return a.backend.init(a.settings)
}

// Validate checks what Provision could not tell.
func (a *App) Validate() error {
	if a.CacheSize != nil && *a.CacheSize < 0 {
		return errors.New("cache_size must not be negative; 0 switches the cache off")
	}
	return nil
}

// Start applies what this configuration changes about state that the one
// before still uses. Provisioned is not yet accepted.
func (a *App) Start() (err error) {
	a.formerSecret = a.org.secret.Swap(a.secret)
	a.formerSettings, err = a.backend.apply(a.settings)
	return err
}

// Stop puts back what Start replaced if no later configuration has replaced it
// again: then this one has failed, or the process exits. Requests may still be
// under way.
func (a *App) Stop() error {
	a.org.secret.CompareAndSwap(a.secret, a.formerSecret)
	err := a.backend.revert(a.settings, a.formerSettings)
	// Else each configuration would keep the one before it in memory, and so
	// every one there ever was.
	a.formerSecret, a.formerSettings = nil, nil
	return err
}

// Cleanup gives back what Provision took. What requests under way still need
// stays until they have ended.
func (a *App) Cleanup() error {
	var errs []error
	if a.backendKey != "" {
		_, err := backends.Delete(a.backendKey)
		errs = append(errs, err)
	}
	if a.orgKey != "" {
		_, err := orgs.Delete(a.orgKey)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// orEnv returns value with its placeholders replaced, or the environment
// variable name if value is empty. It is called at run time too: a {file.*} is
// read anew each time.
func orEnv(value, name string) (string, error) {
	if value == "" {
		return strings.TrimSpace(os.Getenv(name)), nil
	}
	s, err := caddy.NewReplacer().ReplaceOrErr(value, false, true)
	if err != nil {
		return "", err
	}
	return strings.TrimSpace(s), nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
