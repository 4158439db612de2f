package caddymodule

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"genesys-sidecar/caddymodule/genesys"
)

// orgs holds the state of organisations by API, login service and client.
var orgs = caddy.NewUsagePool()

// org is the state of an organisation that outlives a configuration: its token
// and its pause.
type org struct {
	id     string // tells its records from another organisation's: API and client
	tokens *genesys.Tokens
	pause  genesys.Pause
	access atomic.Pointer[access]

	forbidden rate.Sometimes
}

// loadOrg returns the organisation of key.
func loadOrg(key, id, tokenURL, clientID string) (*org, error) {
	loaded, _, err := orgs.LoadOrNew(key, func() (caddy.Destructor, error) {
		o := &org{id: id, forbidden: rate.Sometimes{Interval: 10 * time.Minute}}
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
			Log:    func(e genesys.TokenEvent) { logToken(id, e) },
		})
		return o, nil
	})
	if err != nil {
		return nil, err
	}
	return loaded.(*org), nil
}

// access is a configuration's way to a token.
type access struct {
	secret    func() (string, error)
	transport http.RoundTripper // to the login service; nil: a plain one
}

// missingRole logs what permission an administrator has to grant. A missing
// one fails every call, but is worth one line.
func (o *org) missingRole(body genesys.ErrorBody) {
	o.forbidden.Do(func() {
		caddy.Log().Named("genesys").Error(
			"the OAuth client lacks a permission; give it a role that has it, which takes effect without a restart",
			zap.String("organization", o.id),
			zap.String("code", body.Code),
			zap.String("message", body.Message))
	})
}

// Destruct ends the background refresh.
func (o *org) Destruct() error {
	o.tokens.Close()
	return nil
}

func logToken(organisation string, e genesys.TokenEvent) {
	log := caddy.Log().Named("genesys.token").With(zap.String("organization", organisation))
	switch e.Kind {
	case genesys.TokenFailed:
		log.Error("fetching token", zap.Error(e.Err), zap.Duration("took", e.Took))
	case genesys.TokenIssued:
		log.Info("token issued", zap.Time("expires", e.Expires), zap.Bool("background", e.Background),
			zap.Duration("took", e.Took))
	case genesys.TokenInvalidated:
		log.Info("the API rejected the token; it is replaced")
	}
}

// Interface guard
var _ caddy.Destructor = (*org)(nil)
