package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// The platform's limits: requests in a window for a token, and executions at once.
const (
	platformStarts = 300
	platformWindow = time.Minute
	platformPlaces = 50

	platformURL = "http://platform.test"
)

// platform is the sandbox with the platform's limit, reached without a socket. It is
// an http.RoundTripper.
//
// The sandbox limits what starts and not what runs at once: how much that was is
// found out afterwards.
type platform struct {
	sandbox *sandbox.Sandbox
	began   time.Time

	mu      sync.Mutex
	refused []time.Duration // when a request was beyond the limit
	spans   []span          // of executions, as far as they were waited for
}

// span is when something began and ended.
type span struct{ from, to time.Duration }

func newPlatform(seed uint64) (*platform, error) {
	s, err := sandbox.New(sandbox.Config{Seed: seed, RateLimit: platformStarts, RateWindow: platformWindow, TokenLife: 48 * time.Hour})
	if err != nil {
		return nil, fmt.Errorf("making the sandbox: %w", err)
	}
	return &platform{sandbox: s, began: time.Now()}, nil
}

// RoundTrip has the sandbox answer r. It returns when r's context ends, whatever the
// sandbox still does.
func (p *platform) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		body, err = io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	ctx := r.Context()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{Reused: true})
	}
	w := newAnswer()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.serve(w, newRequest(ctx, r.Method, r.URL, r.Header.Clone(), body))
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &http.Response{
		Status:        http.StatusText(w.status),
		StatusCode:    w.status,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        w.header,
		Body:          io.NopCloser(&w.body),
		ContentLength: int64(w.body.Len()),
		Request:       r,
	}, nil
}

// serve answers r and takes down what that was.
func (p *platform) serve(w *answer, r *http.Request) {
	from := time.Since(p.began)
	p.sandbox.ServeHTTP(w, r)
	to := time.Since(p.began)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case w.status == http.StatusTooManyRequests:
		p.refused = append(p.refused, from)
	case strings.HasPrefix(r.URL.Path, "/api/"):
		p.spans = append(p.spans, span{from, to})
	}
}

// withToken logs in, and returns the platform for callers that have its token.
func (p *platform) withToken() (http.Handler, error) {
	w := newAnswer()
	u := &url.URL{Path: "/oauth/token"}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	r := newRequest(context.Background(), http.MethodPost, u, header, []byte("grant_type=client_credentials"))
	r.SetBasicAuth("sandbox", "sandbox")
	p.sandbox.ServeHTTP(w, r)
	var token struct {
		Value string `json:"access_token"`
	}
	if err := json.Unmarshal(w.body.Bytes(), &token); err != nil || token.Value == "" {
		return nil, fmt.Errorf("logging in: the sandbox answers %d", w.status)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token.Value)
		p.serve(w.(*answer), r)
	}), nil
}

// newRequest returns a request as a server gets it.
func newRequest(ctx context.Context, method string, u *url.URL, header http.Header, body []byte) *http.Request {
	r := &http.Request{
		Method:        method,
		URL:           u,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(bytes.NewReader(body)),
		ContentLength: int64(len(body)),
		Host:          u.Host,
		RemoteAddr:    "127.0.0.1:1",
		RequestURI:    u.RequestURI(),
	}
	return r.WithContext(ctx)
}

// answer is an http.ResponseWriter that keeps what is written.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newAnswer() *answer { return &answer{header: make(http.Header)} }

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}
