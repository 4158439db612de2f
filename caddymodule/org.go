package caddymodule

import (
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

// orgs holds the state of organisations by API, login service and client.
var orgs = caddy.NewUsagePool()

// org is the state of an organisation that outlives a configuration: its token,
// its pause and its budget.
type org struct {
	id     string // tells its records from another organisation's: API and client
	digest idempotency.OrganisationID
	tokens *genesys.Tokens
	pause  genesys.Pause
	pacer  *pacing.Pacer
	access atomic.Pointer[access]

	failures     atomic.Uint64             // fetches of a token
	failingSince atomic.Pointer[time.Time] // nil: the last one did not fail

	forbidden rate.Sometimes
}

// loadOrg returns the organisation of key.
func loadOrg(key, id, tokenURL, clientID string) (*org, error) {
	loaded, _, err := orgs.LoadOrNew(key, func() (caddy.Destructor, error) {
		o := &org{id: id, digest: idempotency.NewOrganisationID(id), forbidden: rate.Sometimes{Interval: 10 * time.Minute}}
		o.pacer = pacing.New(slog.New(liveLog{}).With(slog.String("organization", id)))
		o.tokens = genesys.NewTokens(genesys.TokenConfig{
			TokenURL: tokenURL,
			ClientID: func() (string, error) { return clientID, nil },
			Secret: func() (string, error) {
				if a := o.access.Load(); a != nil {
					return a.secret()
				}
				return "", errors.New("no secret is configured")
			},
			Client: &http.Client{Transport: newLoginTransport(o)},
			Log:    o.tokenEvent,
		})
		return o, nil
	})
	if err != nil {
		return nil, err
	}
	return loaded.(*org), nil
}

// access is a configuration's way to a token, and its budget.
type access struct {
	secret    func() (string, error)
	transport http.RoundTripper // to the login service; nil: a plain one
	budget    pacing.Config
}

// useFirst lets a be what the organisation goes by, unless there is something.
func (o *org) useFirst(a *access) {
	if o.access.CompareAndSwap(nil, a) {
		o.pacer.Configure(a.budget)
	}
}

// use lets a be what the organisation goes by, and returns what that replaces.
func (o *org) use(a *access) (former *access) {
	former = o.access.Swap(a)
	o.pacer.Configure(a.budget)
	return former
}

// restore puts former back in place of a, if that is what it goes by.
func (o *org) restore(a, former *access) {
	if !o.access.CompareAndSwap(a, former) || former == nil {
		return
	}
	o.pacer.Configure(former.budget)
}

// missingRole logs what permission an administrator has to grant. A missing
// one fails every call, but is worth one line.
func (o *org) missingRole(body genesys.ErrorBody) {
	o.forbidden.Do(func() {
		logger().Error(
			"the OAuth client lacks a permission; give it a role that has it, which takes effect without a restart",
			zap.String("organization", o.id),
			zap.String("code", body.Code),
			zap.String("message", body.Message))
	})
}

// isRejected tells whether err says that the login service refuses the client,
// which waiting will not mend.
func isRejected(err error) bool {
	var failed *genesys.TokenError
	return errors.As(err, &failed) && failed.Rejected
}

// Destruct ends the background refresh.
func (o *org) Destruct() error {
	o.tokens.Close()
	return nil
}

// tokenEvent takes down what became of the token.
func (o *org) tokenEvent(e genesys.TokenEvent) {
	log := logger().Named("token").With(zap.String("organization", o.id))
	switch e.Kind {
	case genesys.TokenFailed:
		log.Error("fetching token", zap.Error(e.Err), zap.Duration("took", e.Took))
		o.failures.Add(1)
		now := time.Now()
		if o.failingSince.CompareAndSwap(nil, &now) {
			emit(eventTokenFailing, map[string]any{
				"organization": organizationName(o.digest),
				"rejected":     isRejected(e.Err),
				"error":        e.Err.Error(),
			})
		}
	case genesys.TokenIssued:
		log.Info("token issued", zap.Time("expires", e.Expires), zap.Bool("background", e.Background),
			zap.Duration("took", e.Took))
		o.failingSince.Store(nil)
	case genesys.TokenInvalidated:
		log.Info("the API rejected the token; it is replaced")
	}
}

// Interface guard
var _ caddy.Destructor = (*org)(nil)
