package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// adminFlags say where a running sidecar is.
type adminFlags struct {
	address string
	config  string
	adapter string
	timeout time.Duration
}

func (f *adminFlags) register(cmd *cobra.Command, timeout time.Duration) {
	flags := cmd.Flags()
	flags.StringVar(&f.address, "address", "", "Address of the sidecar's admin endpoint, or URL of a site with genesys_admin (default: as in --config, else $CADDY_ADMIN, else localhost:2019)")
	flags.StringVarP(&f.config, "config", "c", "", "Configuration that says where the admin endpoint is")
	flags.StringVarP(&f.adapter, "adapter", "a", "", "Config adapter of --config (default: caddyfile for a Caddyfile)")
	flags.DurationVar(&f.timeout, "timeout", timeout, "How long to wait for an answer")
	_ = cmd.RegisterFlagCompletionFunc("adapter", cobra.FixedCompletions(
		[]cobra.Completion{"caddyfile"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"address", "timeout"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

// client returns a client for the sidecar that the flags name.
func (f *adminFlags) client() (*adminClient, error) {
	if f.config == "" {
		return newAdminClient(f.address, nil, f.timeout)
	}
	config, err := readConfig(f.config, f.adapter)
	if err != nil {
		return nil, err
	}
	return newAdminClient(f.address, config, f.timeout)
}

// adminClient talks with a sidecar's admin API.
type adminClient struct {
	address string // as people know it
	base    string // what precedes /genesys/
	origin  string // of Caddy's admin endpoint, which may insist on it
	http    *http.Client
}

// newAdminClient finds the admin endpoint as Caddy's own commands do: address,
// else what config says, else Caddy's default.
func newAdminClient(address string, config []byte, timeout time.Duration) (*adminClient, error) {
	if strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://") {
		u, err := url.Parse(address)
		if err != nil {
			return nil, usagef("reading --address: it is no URL")
		}
		return &adminClient{
			address: u.Redacted(),
			base:    strings.TrimRight(strings.TrimSuffix(strings.TrimRight(address, "/"), "/genesys"), "/"),
			http:    &http.Client{Timeout: timeout, CheckRedirect: noRedirect},
		}, nil
	}
	if address == "" && adminDisabled(config) {
		return nil, &codedError{exitUnreachable, errors.New("the configuration switches the admin endpoint off; " +
			"name a site that has genesys_admin, as in --address http://127.0.0.1:8081")}
	}
	source := "" // of config; without, Caddy's default is taken
	if config != nil {
		source = "configuration"
	}
	address, err := caddycmd.DetermineAdminAPIAddress(address, config, source, "")
	if err != nil {
		return nil, err
	}
	at, err := caddy.ParseNetworkAddressWithDefaults(address, "tcp", defaultAdminPort)
	if err != nil || !at.IsUnixNetwork() && at.PortRangeSize() != 1 {
		return nil, usagef("reading the admin endpoint's address: %q is none", address)
	}
	c := &adminClient{address: address, base: "http://127.0.0.1"}
	if at.IsUnixNetwork() {
		at.Host, _, _ = strings.Cut(at.Host, "|") // the socket's permissions
	} else {
		if at.Host == "" {
			at.Host = "localhost"
		}
		c.base = "http://" + at.JoinHostPort(0)
		c.origin = c.base
	}
	c.http = &http.Client{
		Timeout:       timeout,
		CheckRedirect: noRedirect,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, at.Network, at.JoinHostPort(0))
			},
			DisableKeepAlives: true,
		},
	}
	return c, nil
}

const defaultAdminPort = 2019

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// adminDisabled tells whether config has "admin off".
func adminDisabled(config []byte) bool {
	var c struct {
		Admin struct {
			Disabled bool `json:"disabled"`
		} `json:"admin"`
	}
	return json.Unmarshal(config, &c) == nil && c.Admin.Disabled
}

// maxAdminAnswer bounds what is read of an answer, in bytes. An answer of an
// action has 8 MiB at most by default, and more in JSON.
const maxAdminAnswer = 256 << 20

// get asks for path below /genesys/.
func (c *adminClient) get(ctx context.Context, path string, query url.Values) (json.RawMessage, error) {
	return c.do(ctx, http.MethodGet, path, query, nil)
}

// do makes a request and returns the JSON of its answer. Its errors have exit
// codes.
func (c *adminClient) do(ctx context.Context, method, path string, query url.Values, body any) (json.RawMessage, error) {
	status, contentType, answer, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return nil, err
	}
	if status >= 200 && status < 300 {
		if len(answer) > 0 && !json.Valid(answer) {
			return nil, c.noSidecar(status)
		}
		return answer, nil
	}
	var problem struct {
		Error string `json:"error"`
	}
	if !strings.Contains(contentType, "json") || json.Unmarshal(answer, &problem) != nil || problem.Error == "" {
		return nil, c.noSidecar(status)
	}
	code := exitFailed
	switch status {
	case http.StatusBadRequest:
		code = exitUsage
	case http.StatusNotFound:
		code = exitNoCall
	case http.StatusConflict:
		code = exitRefused
	}
	return nil, &codedError{code, errors.New(problem.Error)}
}

// send makes a request. It fails if there is no answer.
func (c *adminClient) send(ctx context.Context, method, path string, query url.Values, body any) (status int, contentType string, answer []byte, err error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return 0, "", nil, fmt.Errorf("making request: %w", err)
		}
		reader = bytes.NewReader(text)
	}
	target := c.base + "/genesys/" + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	return c.exchange(ctx, method, target, reader)
}

// exchange makes a request to any of the endpoint's URLs.
func (c *adminClient) exchange(ctx context.Context, method, target string, body io.Reader) (status int, contentType string, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return 0, "", nil, fmt.Errorf("making request: %w", err)
	}
	if c.origin != "" {
		req.Header.Set("Origin", c.origin)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer+1))
	switch {
	case err != nil:
		return 0, "", nil, c.unreachable(err)
	case len(answer) > maxAdminAnswer:
		return 0, "", nil, fmt.Errorf("reading answer: it has more than %d bytes", maxAdminAnswer)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), answer, nil
}

func (c *adminClient) unreachable(err error) error {
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // else the URL stands in it
	}
	return &codedError{exitUnreachable, fmt.Errorf("the sidecar cannot be reached at %s: %w; "+
		"is it running, and is this its admin endpoint? (--address or --config says where that is)", c.address, err)}
}

func (c *adminClient) noSidecar(status int) error {
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return &codedError{exitFailed, fmt.Errorf("what answers at %s refuses this (status %d): does it want a user and a password, as in https://user:password@host?", c.address, status)}
	}
	return &codedError{exitUnreachable, fmt.Errorf("what answers at %s (status %d) is not the admin endpoint of a sidecar; "+
		"--address or --config says where that is", c.address, status)}
}
