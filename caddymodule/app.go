package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

func init() {
	caddy.RegisterModule(App{})
}

// App has the organisations of Genesys Cloud that handlers call, and the store
// where the answers of their data actions are kept. All handlers share it, and
// its state survives reloads.
//
// Its own options for an organisation describe the default one.
type App struct {
	Organization

	// Further organisations, by the name that a handler chooses one by. Records
	// of different organisations never meet, whatever their keys.
	Organizations map[string]*Organization `json:"organizations,omitempty"`

	// How many bytes of finished answers are held in memory in front of the
	// store: those that were asked for again, or all where sidecars share the
	// store, which may be away when they are. 0 for none. Default: 67108864 (64 MiB).
	CacheSize *int64 `json:"cache_size,omitempty"`

	// What calls that were handed over may grow to while they wait for their turn.
	// One that would exceed it is refused with a 503.
	Backlog *Backlog `json:"backlog,omitempty"`

	// Where answers are kept. Default: `disk`.
	StorageRaw json.RawMessage `json:"storage,omitempty" caddy:"namespace=http.handlers.genesys_cloud.storage inline_key=backend"`

	// What records are encrypted with where they are kept: the first key
	// encrypts, all decrypt. Each is 32 bytes in base64 or 64 hexadecimal digits
	// (`openssl rand -base64 32` makes one); placeholders are replaced, so that
	// it can stand in a file or the environment. `memory` keeps nothing and has
	// no use for them. Default: none, and records are not encrypted.
	//
	// To change the key, put the new one in front of the old, and take the old
	// one away once `retention` has passed: a key that records still need cannot
	// be taken away. In a fleet, first give all sidecars the new key as the second
	// one: a sidecar cannot read what is encrypted with a key that it does not have.
	EncryptionKeys []string `json:"encryption_keys,omitempty"`

	orgs    map[string]*organization // by name; "" is the default one, if there is one
	backend *backend
	keyring *store.Keyring

	settings *settings

	backendKey string // set once loaded from its pool

	ctx    caddy.Context // of its events
	events *caddyevents.App
	log    *zap.Logger
	calls  *zap.Logger // a line for each call that has ended
	tenure *tenure
}

// Backlog bounds the calls that wait for their turn, in the whole store.
type Backlog struct {
	// How many calls there may be. Default: 10000.
	Calls int `json:"calls,omitempty"`

	// How large their requests may be together, in bytes. Default: 67108864 (64 MiB).
	Size int64 `json:"size,omitempty"`
}

// defaultBacklog has the values that zero fields of a Backlog stand for.
var defaultBacklog = idempotency.Bounds{Calls: 10000, Bytes: 64 << 20}

const (
	defaultRegion    = "us-east-1"
	defaultCacheSize = 64 << 20
)

// The environment variables of the default organisation.
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
	makeRoomForGarbage()
	a.ctx = ctx
	a.log = ctx.Logger()
	a.calls = a.log.Named("calls")
	events, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading events: %w", err)
	}
	a.events = events.(*caddyevents.App)
	a.tenure = newTenure()
	if err := a.events.On("started", a.tenure); err != nil {
		return fmt.Errorf("waiting for the start: %w", err)
	}
	if err := a.provisionOrganizations(ctx); err != nil {
		return err
	}
	if err := a.provisionStore(ctx); err != nil {
		return err
	}
	for _, o := range a.orgs {
		o.init(a.backend.store)
	}
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	a.runFirst()
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
	if err := a.provisionKeys(); err != nil {
		return err
	}
	if a.backend, err = loadBackend(key, storage, a.keyring); err != nil {
		return err
	}
	a.backendKey = key

	a.settings = &settings{cacheSize: defaultCacheSize, backlog: defaultBacklog, storage: storage, keyring: a.keyring}
	if b := a.Backlog; b != nil && b.Calls > 0 {
		a.settings.backlog.Calls = b.Calls
	}
	if b := a.Backlog; b != nil && b.Size > 0 {
		a.settings.backlog.Bytes = b.Size
	}
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
	if b := a.Backlog; b != nil && (b.Calls < 0 || b.Size < 0) {
		return errors.New("backlog: calls and size must not be negative")
	}
	return nil
}

// Start applies what this configuration changes about state that the one
// before still uses. Provisioned is not yet accepted.
func (a *App) Start() (err error) {
	if a.tenure.formerSettings, err = a.backend.apply(a.settings); err != nil {
		return err // which nobody stops
	}
	for _, o := range a.orgs {
		o.start()
	}
	a.run()
	a.backend.gate.Resume(a.backend.resume)
	a.backend.emitLeftBehind()
	return nil
}

// Stop puts back what Start replaced if this configuration has failed. Else
// another is in force already, or none follows: then what is under way ends by what
// this one says, though the servers may be stopped, and wait for it, only after this.
func (a *App) Stop() (err error) {
	failed := !a.tenure.hasBegun()
	a.rest()
	for _, o := range a.orgs {
		o.stop(failed)
	}
	if failed {
		err = a.backend.revert(a.settings, a.tenure.formerSettings)
	}
	// Else each configuration would keep the one before it in memory, and so
	// every one there ever was.
	a.tenure.formerSettings = nil
	callLines.flush() // the configuration's logs are closed next
	return err
}

// Cleanup gives back what Provision took. What requests under way still need
// stays until they have ended.
func (a *App) Cleanup() error {
	if a.tenure != nil {
		a.rest() // it may not have been started, and so nobody stops it
	}
	var errs []error
	if a.backendKey != "" {
		_, err := backends.Delete(a.backendKey)
		errs = append(errs, err)
	}
	for _, o := range a.orgs {
		_, err := orgs.Delete(o.orgKey)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// standsForNothing is what is wrong with an option whose placeholder does.
const standsForNothing = "its placeholder stands for nothing: is the variable set, or the file there?"

// orEnv returns value with its placeholders replaced, or the environment
// variable name, if there is one, where value is empty. It is called at run time too: a {file.*} is
// read anew each time.
func orEnv(value, name string) (string, error) {
	if value == "" {
		if name == "" {
			return "", nil
		}
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
