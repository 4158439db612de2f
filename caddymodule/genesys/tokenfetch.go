package genesys

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// grant is what a token endpoint granted.
type grant struct {
	value string
	asked time.Time // before the request was sent: the token's life begins after it
	life  time.Duration
}

// lease is a token with the times that matter for handing it out.
type lease struct {
	Token
	refreshAt time.Time // from here it is replaced in the background
	usedUntil time.Time // from here it is not handed out any more
	doubted   bool      // it is to be replaced before it is used again, if it can be
}

// newLease says when to use and when to replace what was granted. A token is
// not handed out in the last margin of its life, of which that is at most a
// fifth: one of 30 s can be used for 24 s.
//
// It is replaced at 80 % of its life, but with a tenth of the usable time to
// spare: of a life of 300 s, the platform's shortest, 80 % is just where the
// margin begins. The jitter of ±5 % keeps sidecars apart that began together.
func newLease(got grant, margin time.Duration, generation uint64) lease {
	usable := got.life - min(margin, got.life/5)
	early := min(got.life/5*4, usable/10*9)
	early += time.Duration((rand.Float64() - 0.5) / 10 * float64(early))
	return lease{
		Token:     newToken(got.value, generation, got.asked.Add(got.life)),
		refreshAt: got.asked.Add(early),
		usedUntil: got.asked.Add(usable),
	}
}

// usable reports whether the token may be handed out. Both clocks must agree:
// the monotonic one stands still while the machine is suspended, and the wall
// clock can be set back.
func (l *lease) usable(now time.Time) bool {
	return l.generation != 0 && now.Before(l.usedUntil) && now.Round(0).Before(l.usedUntil)
}

// failure is why a fetch failed. Its error is fit to be shown.
type failure struct {
	err         error
	rejected    bool          // as in TokenError
	credentials bool          // other credentials might be accepted
	retryAfter  time.Duration // asked for by the endpoint; 0 if not
}

// credentials identify the client. They are never to be printed.
type credentials struct{ id, secret string }

// fetch asks for a token, and once more if the client was not accepted and the
// credentials have changed meanwhile: a secret file may be replaced just
// between reading it and the endpoint's verdict.
func (t *Tokens) fetch(ctx context.Context) (grant, *failure) {
	used, fail := t.credentials()
	if fail != nil {
		return grant{}, fail
	}
	got, fail := t.request(ctx, used)
	if fail == nil || !fail.credentials {
		return got, fail
	}
	if again, err := t.credentials(); err == nil && again != used {
		return t.request(ctx, again)
	}
	return grant{}, fail
}

func (t *Tokens) credentials() (credentials, *failure) {
	read := func(what string, from func() (string, error)) (string, *failure) {
		if from == nil {
			return "", &failure{rejected: true, err: fmt.Errorf("no %s is configured", what)}
		}
		v, err := from()
		if err != nil { // a file that is being replaced, perhaps: not a rejection
			return "", &failure{err: errors.New("reading " + what + ": " + err.Error())} // wrapping no context error
		}
		if v == "" {
			return "", &failure{rejected: true, err: fmt.Errorf("the %s is empty", what)}
		}
		return v, nil
	}
	id, fail := read("client id", t.cfg.ClientID)
	if fail != nil {
		return credentials{}, fail
	}
	secret, fail := read("client secret", t.cfg.Secret)
	return credentials{id, secret}, fail
}

// request makes one token request. Genesys wants the credentials in the
// Authorization header and, for this grant, no scope: roles say what the
// client may do.
func (t *Tokens) request(ctx context.Context, c credentials) (grant, *failure) {
	cfg := clientcredentials.Config{
		ClientID:     c.id,
		ClientSecret: c.secret,
		TokenURL:     t.cfg.TokenURL,
		AuthStyle:    oauth2.AuthStyleInHeader, // detecting it sends a failed request twice
	}
	t.requests.Add(1)
	asked := time.Now()
	tok, err := cfg.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client))
	if err == nil {
		life := lifeOf(tok.Extra("expires_in"))
		if life <= 0 {
			life = t.cfg.DefaultLife
		}
		return grant{value: tok.AccessToken, asked: asked, life: life}, nil
	}
	if ctx.Err() == context.DeadlineExceeded {
		return grant{}, &failure{err: fmt.Errorf("no answer within %v", t.cfg.Timeout)}
	}
	return grant{}, classify(err, time.Now(), c.redact)
}

// lifeOf reads expires_in (RFC 6749, section 5.1: seconds, recommended but not
// required) as x/oauth2 hands it over: a number, or a string from endpoints
// that quote it. It returns 0 for what is none. The bound only keeps the
// arithmetic safe: a year is more than any organisation allows.
func lifeOf(v any) time.Duration {
	var seconds float64
	switch v := v.(type) {
	case float64:
		seconds = v
	case int64:
		seconds = float64(v)
	case string:
		seconds, _ = strconv.ParseFloat(v, 64)
	}
	if math.IsNaN(seconds) || seconds <= 0 {
		return 0
	}
	const most = 365 * 24 * time.Hour
	return time.Duration(min(seconds, most.Seconds()) * float64(time.Second))
}

// classify says what a failed token request means. Errors are rebuilt from
// their parts: a RetrieveError prints the body if it has no error code. Words
// from elsewhere go through redact before anything cuts or quotes them.
func classify(err error, now time.Time, redact func(string) string) *failure {
	var refused *oauth2.RetrieveError
	var transport *url.Error
	switch {
	case errors.As(err, &refused):
		return classifyAnswer(refused, now, redact)
	case errors.As(err, &transport):
		return &failure{err: transportError(transport.Err, redact)}
	case strings.HasSuffix(err.Error(), "missing access_token"):
		// Not cached as a success: an empty 200 is an outage like any other.
		return &failure{err: errors.New("the token endpoint's answer has no access_token")}
	case strings.HasPrefix(err.Error(), "oauth2: cannot parse"):
		// The parser's words can quote the answer.
		return &failure{err: errors.New("the token endpoint's answer cannot be read")}
	}
	return &failure{err: transportError(err, redact)}
}

func classifyAnswer(e *oauth2.RetrieveError, now time.Time, redact func(string) string) *failure {
	status := e.Response.StatusCode
	text := fmt.Sprintf("the token endpoint answered %d", status)
	if e.ErrorCode != "" {
		text += fmt.Sprintf(" %.60q", redact(e.ErrorCode))
	}
	if d := description(e); d != "" {
		text += fmt.Sprintf(" %.200q", redact(d))
	}
	fail := &failure{}
	fail.retryAfter, _ = ParseRetryAfter(e.Response.Header.Get("Retry-After"), now)

	switch {
	case e.ErrorCode == "invalid_client" || e.ErrorCode == "unauthorized_client" || status == http.StatusUnauthorized:
		// RFC 6749, section 5.2. Genesys says invalid_client with a 400.
		fail.rejected, fail.credentials = true, true
	case status == http.StatusBadRequest && rateLimited(e):
		// Genesys' token endpoint limits by a 400, not a 429: Terraform's
		// provider looks for "400 - invalid_request (rate limit exceeded;".
	case status >= 500 || status == http.StatusTooManyRequests ||
		status == http.StatusTooEarly || status == http.StatusRequestTimeout:
	case status >= 400:
		fail.rejected = true
	case status >= 300:
		text += ", a redirect, which is not followed"
	default: // an error in a 200, against section 5.2
		switch e.ErrorCode {
		case "invalid_request", "invalid_grant", "unsupported_grant_type", "invalid_scope":
			fail.rejected = !rateLimited(e)
		}
	}
	fail.err = errors.New(text)
	return fail
}

// description returns the endpoint's own words. Genesys sends them twice, as
// error_description and as description; either may be missing.
func description(e *oauth2.RetrieveError) string {
	if e.ErrorDescription != "" {
		return e.ErrorDescription
	}
	if e.ErrorCode == "" {
		return "" // not an OAuth error: somebody else's words
	}
	var body struct{ Description string }
	if json.Unmarshal(e.Body, &body) != nil {
		return ""
	}
	return body.Description
}

// rateLimited looks at the whole body, as the wording's place is not
// documented, and for the code that the rest of the platform uses.
func rateLimited(e *oauth2.RetrieveError) bool {
	if bytes.Contains(bytes.ToLower(e.Body), []byte("rate limit exceeded")) {
		return true
	}
	body, ok := ParseErrorBody(e.Response.Header.Get("Content-Type"), e.Body)
	return ok && RateLimitCode(body.Code)
}

// transportError describes a failure below HTTP. It keeps the words and not the
// error itself, as a timeout of the fetch is not one of the caller's.
func transportError(err error, redact func(string) string) error {
	if errors.Is(err, context.Canceled) {
		return errTokensClosed // nothing else cancels a fetch
	}
	if strings.Contains(err.Error(), "malformed") {
		// net/http and net/textproto quote the offending line.
		return errors.New("the token endpoint does not speak HTTP")
	}
	return fmt.Errorf("the token endpoint cannot be reached: %s", redact(err.Error()))
}

// redact removes the secret in all the forms in which it is sent, should an
// endpoint or a proxy repeat what it was told.
func (c credentials) redact(text string) string {
	id, secret := url.QueryEscape(c.id), url.QueryEscape(c.secret)
	return strings.NewReplacer(
		base64.StdEncoding.EncodeToString([]byte(id+":"+secret)), "[redacted]",
		secret, "[redacted]",
		c.secret, "[redacted]",
	).Replace(text)
}

// tokenClient returns the client to fetch tokens with: a copy of base, or one
// with a transport of its own, that follows no redirect and keeps no cookies.
// A redirect could lead the secret elsewhere, or to the same host in clear.
func tokenClient(base *http.Client) *http.Client {
	c := &http.Client{}
	if base != nil {
		*c = *base
	} else {
		c.Transport = NewTokenTransport()
	}
	c.Jar = nil
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// NewTokenTransport returns the transport that tokens are fetched by where a
// TokenConfig has no Client: with the environment's proxy and the system's
// certificate authorities.
func NewTokenTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ForceAttemptHTTP2:      true,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		// Tokens are hours apart: a kept connection would be dead by then.
		DisableKeepAlives: true,
	}
}
