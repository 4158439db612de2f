package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/upstream"
)

func init() {
	caddy.RegisterModule(Transport{})
}

// Transport is Caddy's HTTP transport with the organisation's access token on
// every request, in place of whatever Authorization the request came with. It
// has all options of the transport `http`.
//
// A token that the platform rejects is replaced; a request without a body is
// then sent once more.
type Transport struct {
	*reverseproxy.HTTPTransport

	// The name of the organisation whose token it is. Default: the default one.
	Organization string `json:"organization,omitempty"`

	org   *organization
	calls http.RoundTripper // for data actions
}

// maxIdleConns is how many idle connections to the upstream are kept, where
// the configuration does not say.
const maxIdleConns = 256

// idleTimeout is how long an idle connection to the upstream is kept, likewise.
// A call on one that the upstream is just closing has an unknown outcome, so
// that the sidecar had better be the first to close it.
const idleTimeout = 30 * time.Second

// CaddyModule returns the Caddy module information.
func (Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport.genesys",
		New: func() caddy.Module { return &Transport{HTTPTransport: new(reverseproxy.HTTPTransport)} },
	}
}

// MarshalJSON encodes the options of the HTTP transport, and the organisation.
func (t *Transport) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(t.HTTPTransport)
	if err != nil {
		return nil, err
	}
	return ofOrganization(b, t.Organization)
}

// UnmarshalJSON decodes what MarshalJSON encodes.
func (t *Transport) UnmarshalJSON(b []byte) error {
	if t.HTTPTransport == nil {
		t.HTTPTransport = new(reverseproxy.HTTPTransport)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil {
		return err
	}
	if name, ok := fields["organization"]; ok {
		if err := json.Unmarshal(name, &t.Organization); err != nil {
			return fmt.Errorf("reading organization: %w", err)
		}
	}
	delete(fields, "organization")
	delete(fields, "protocol") // the module's own name
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields() // Caddy's own strictness does not reach in here
	return dec.Decode(t.HTTPTransport)
}

// ofOrganization returns the object raw with the organisation name, unless it
// names one itself.
func ofOrganization(raw json.RawMessage, name string) (json.RawMessage, error) {
	if name == "" {
		return raw, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, err
	}
	if _, ok := fields["organization"]; ok {
		return raw, nil
	}
	fields["organization"] = caddyconfig.JSON(name, nil)
	return json.Marshal(fields)
}

// Provision sets up the transport.
func (t *Transport) Provision(ctx caddy.Context) error {
	app, err := ctx.App("genesys")
	if err != nil {
		return err
	}
	if t.org, err = app.(*App).organization(t.Organization); err != nil {
		return err
	}
	if slices.Contains(t.Versions, "3") {
		// Caddy closes it with the configuration, which calls outlive.
		return errors.New("versions: HTTP/3 would cut calls off at a reload; use 1.1 and 2")
	}
	if t.KeepAlive == nil {
		t.KeepAlive = &reverseproxy.KeepAlive{
			MaxIdleConnsPerHost: maxIdleConns,
			IdleConnTimeout:     caddy.Duration(idleTimeout),
		}
	}
	if err := t.HTTPTransport.Provision(ctx); err != nil {
		return err
	}
	t.calls = detached{t.HTTPTransport}
	if direct := directTransport(t.HTTPTransport); direct != nil {
		t.calls = direct
	}
	return nil
}

// directTransport returns the transport for data actions where the options allow
// of one, else nil.
func directTransport(h *reverseproxy.HTTPTransport) *upstream.Transport {
	if h.ReadTimeout > 0 || h.WriteTimeout > 0 || h.ProxyProtocol != "" {
		return nil // Caddy sets its connections' deadlines, or writes to them first
	}
	return upstream.New(h.Transport, detached{h})
}

// Cleanup closes the connections that nobody uses.
func (t *Transport) Cleanup() error {
	if direct, ok := t.calls.(*upstream.Transport); ok {
		direct.CloseIdleConnections()
	}
	return t.HTTPTransport.Cleanup()
}

// UnmarshalCaddyfile sets up the transport from Caddyfile tokens. Syntax:
//
//	transport genesys {
//	    organization <name>
//	    # any option of transport http
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if t.HTTPTransport == nil {
		t.HTTPTransport = new(reverseproxy.HTTPTransport)
	}
	d.Next() // consume transport name
	if d.NextArg() {
		return d.ArgErr()
	}
	rest, err := splitBlock(d, func(d *caddyfile.Dispenser) (own bool, err error) {
		if d.Val() != "organization" {
			return false, nil
		}
		return true, parseOrganization(d, &t.Organization)
	})
	if err != nil {
		return err
	}
	return t.HTTPTransport.UnmarshalCaddyfile(rest)
}

// RequestHeaderOps keeps reverse_proxy from setting Host; RoundTrip does.
func (t *Transport) RequestHeaderOps() *headers.HeaderOps {
	if t.org == nil {
		return t.HTTPTransport.RequestHeaderOps()
	}
	return nil
}

// RoundTrip sends req with a token. It may change req, which is no other than
// the copy that reverse_proxy or the handler made for it.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if tok, ok := genesys.TokenFrom(req.Context()); ok {
		// A data action: its token was had before its claim, and what becomes
		// of the answer is judged elsewhere.
		return send(t.calls, req, tok)
	}
	return t.proxy(req)
}

// send sends req with tok by rt.
func send(rt http.RoundTripper, req *http.Request, tok genesys.Token) (*http.Response, error) {
	req.Header["Authorization"] = tok.Authorization()
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return nil, explainLoop(err)
	}
	return resp, nil
}

// proxy sends a request that is no data action.
func (t *Transport) proxy(req *http.Request) (*http.Response, error) {
	if loops(req.Header) {
		return ownAnswer(req, errLoop)
	}
	t.address(req)
	// reverse_proxy may send the same request once more, which must not look as
	// if it had come back.
	req = req.WithContext(req.Context())
	req.Header = maps.Clone(req.Header)
	req.Header["Cdn-Loop"] = marked(req.Header)
	hasBody := req.Body != nil && req.Body != http.NoBody
	if !hasBody {
		// What changes something is sent at most once here as well, whatever its
		// caller's key means to the platform. (A body that a server reads, net/http
		// cannot read again.)
		genesys.DisguiseKeys(req.Header)
	}
	for again := false; ; again = true {
		tok, err := t.org.tokens.Token(req.Context())
		if err != nil {
			return ownAnswer(req, err)
		}
		slot, err := t.start(req)
		if err != nil {
			return ownAnswer(req, err)
		}
		slot.Sending()
		resp, err := send(t.HTTPTransport, req, tok)
		if err != nil {
			var dial reverseproxy.DialError
			if errors.As(err, &dial) {
				slot.Unused() // nothing was sent
			}
			return nil, err
		}
		rejected, err := t.learn(resp, tok)
		if err != nil {
			return nil, err
		}
		if !rejected || again || hasBody {
			return resp, nil
		}
		_ = resp.Body.Close()
	}
}

// address makes req one to the organisation's API, unless the proxy was
// configured with another upstream.
func (t *Transport) address(req *http.Request) {
	api := t.org.api
	if req.URL.Host != upstream.Address(api) && req.URL.Host != api.Host {
		if t.TLS != nil {
			req.Host = req.URL.Host
		}
		return
	}
	to := t.org.upstreamURL(req.URL)
	to.User = req.URL.User
	req.URL = to
	req.Host = api.Host
}

// learn takes from an answer what it says about the token and about the whole
// organisation, and tells whether the token was rejected.
func (t *Transport) learn(resp *http.Response, tok genesys.Token) (rejected bool, err error) {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		if d, ok := genesys.ParseRetryAfter(resp.Header.Get("Retry-After"), time.Now()); ok {
			t.org.pause.Until(time.Now().Add(d))
			t.org.pacer.Hold(d)
		}
	case http.StatusUnauthorized:
		body, ok, err := peekErrorBody(resp)
		if err != nil {
			return false, err
		}
		if ok && genesys.PlatformAuthCode(body.Code) {
			t.org.tokens.Invalidate(tok)
			return true, nil
		}
	}
	return false, nil
}

// maxErrorBody is how much of an error's body is looked at, in bytes.
const maxErrorBody = 64 << 10

// peekErrorBody reads the platform's ErrorBody of resp and puts it back.
func peekErrorBody(resp *http.Response) (genesys.ErrorBody, bool, error) {
	head, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		_ = resp.Body.Close()
		return genesys.ErrorBody{}, false, fmt.Errorf("reading answer: %w", err)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(head), resp.Body), resp.Body}
	body, ok := genesys.ParseErrorBody(resp.Header.Get("Content-Type"), head)
	return body, ok, nil
}

// ownAnswer answers req in the upstream's place where it cannot be sent.
func ownAnswer(req *http.Request, err error) (*http.Response, error) {
	if req.Context().Err() != nil {
		return nil, err
	}
	answer := problemOf(err).answer(idempotency.ID{})
	return &http.Response{
		StatusCode:    answer.Status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        answer.Header.HTTP(),
		Body:          io.NopCloser(bytes.NewReader(answer.Body)),
		ContentLength: int64(len(answer.Body)),
		Request:       req,
	}, nil
}

// detached is Caddy's transport for calls, which belong to no request.
type detached struct{ *reverseproxy.HTTPTransport }

// RoundTrip implements http.RoundTripper.
func (t detached) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.HTTPTransport.RoundTrip(req.WithContext(withReplacer(req.Context())))
}

// noPlaceholders replaces those that stand in a transport's options, for calls,
// which outlive the requests that they would speak of.
var noPlaceholders = caddy.NewReplacer()

// withReplacer gives ctx what Caddy's transport cannot do without.
func withReplacer(ctx context.Context) context.Context {
	return context.WithValue(ctx, caddy.ReplacerCtxKey, noPlaceholders)
}

// Interface guards
var (
	_ caddy.Provisioner         = (*Transport)(nil)
	_ caddy.CleanerUpper        = (*Transport)(nil)
	_ http.RoundTripper         = (*Transport)(nil)
	_ caddyfile.Unmarshaler     = (*Transport)(nil)
	_ reverseproxy.TLSTransport = (*Transport)(nil)
)
