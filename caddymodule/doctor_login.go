package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"genesys-sidecar/caddymodule/genesys"
)

const checkCredentials = "credentials"

// checkLogin fetches a token as the sidecar does, and returns it.
func (d *doctor) checkLogin(ctx context.Context, o *patient, e *exchanges) (token string) {
	const check = checkCredentials
	if o.client == "" {
		d.problem(check, "there is no OAuth client", "set client_id and client_secret")
		return ""
	}
	secret, err := orEnv(o.options.ClientSecret, o.env.secret)
	switch {
	case err != nil:
		d.problem(check, "reading client_secret: "+err.Error(), "let the sidecar's user read it")
		return ""
	case secret == "":
		d.problem(check, "the OAuth client's secret is empty", "set client_secret, or "+envSecret+" for the default organisation")
		return ""
	}
	tokens := genesys.NewTokens(genesys.TokenConfig{
		TokenURL: genesys.TokenURL(o.login),
		ClientID: func() (string, error) { return o.client, nil },
		Secret:   func() (string, error) { return secret, nil },
		Client:   &http.Client{Transport: e.recorder(e.login)},
		Timeout:  d.timeout,
	})
	defer tokens.Close()
	got, err := tokens.Token(ctx)
	if err == nil {
		d.ok(check, fmt.Sprintf("%s gives client %s a token, for %s", o.login.Host, o.client, roughly(time.Until(got.Expires()))))
		return got.Value
	}
	var last *exchange
	if len(e.all) > 0 {
		last = e.all[len(e.all)-1]
	}
	found, advice := d.withoutToken(last, o, err)
	d.problem(check, found, advice)
	return ""
}

// withoutToken explains why there is no token.
func (d *doctor) withoutToken(x *exchange, o *patient, err error) (found, advice string) {
	const where = "in Genesys Cloud's admin, under Integrations > OAuth"
	if x == nil {
		return err.Error(), ""
	}
	if x.status == 0 {
		return withoutAnswer(x.err, o.login, d.timeout, "check region, or login_url: its login service does not exist by that name")
	}
	var said struct {
		Error            string `json:"error"`
		Description      string `json:"description"`
		ErrorDescription string `json:"error_description"`
	}
	isJSON := json.Unmarshal(x.body, &said) == nil
	words := strings.ToLower(said.Description + " " + said.ErrorDescription)
	switch {
	case x.status == http.StatusLoopDetected:
		return fmt.Sprintf("%s leads to a sidecar, and not to Genesys Cloud", o.login.Host), loopRemedy
	case x.status >= 300 && x.status < 400:
		return fmt.Sprintf("%s sends on to %q, which is not followed with a secret", o.login.Host, x.header.Get("Location")),
			"check region or login_url: the token endpoint is <login_url>/oauth/token"
	case strings.Contains(strings.ToLower(string(x.body)), "rate limit exceeded"), x.status == http.StatusTooManyRequests:
		return "the login service limits how often tokens are asked for, and does so now: " + err.Error(),
			"wait a minute and try again; find out what else fetches tokens with this client, each sidecar needs one a day"
	case strings.Contains(words, "client not found"):
		return fmt.Sprintf("the login service %s does not know the client %s", o.login.Host, o.client),
			"check client_id, and that this is the organisation's region: a client exists in one region only (" + where + ")"
	case said.Error == "unsupported_grant_type" || said.Error == "unauthorized_client":
		return fmt.Sprintf("the client %s may not log in by client credentials: %v", o.client, err),
			"make an OAuth client with the grant type Client Credentials (" + where + ")"
	case said.Error == "invalid_client" || x.status == http.StatusUnauthorized:
		return fmt.Sprintf("the login service knows the client %s and rejects its secret: %v", o.client, err),
			"check client_secret; if it was lost or replaced, a new one is made " + where
	case x.status >= 500:
		return fmt.Sprintf("the login service fails: %v", err), "wait, and look at status.mypurecloud.com; a proxy in between may be the one that fails"
	case x.status == http.StatusNotFound, !isJSON:
		return fmt.Sprintf("what answers at %s is no login service of Genesys Cloud: %v", o.login.Host, err),
			"check region or login_url: the token endpoint is <login_url>/oauth/token"
	}
	return err.Error(), "check client_id, client_secret and the client's grant type (" + where + ")"
}
