package upstream_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/upstream"
)

func TestARequestArrivesAsFromNetHTTP(t *testing.T) {
	s := newServer(t)
	plain := settings()
	defer plain.CloseIdleConnections()
	ways := map[string]http.RoundTripper{"net/http": plain, "directly": newTransport(t, settings())}
	for what, make := range map[string]func() *http.Request{
		"a POST": func() *http.Request { return post(t.Context(), s.url+"/a/b?c=d&e=%20f", `{"a":1}`) },
		"an empty POST": func() *http.Request {
			r := post(t.Context(), s.url, "")
			r.Body, r.ContentLength = nil, 0
			return r
		},
		"a long body": func() *http.Request { return post(t.Context(), s.url, strings.Repeat("x", 32<<10)) },
		"a GET": func() *http.Request {
			r, _ := http.NewRequest(http.MethodGet, s.url, nil)
			return r
		},
		"a HEAD": func() *http.Request {
			r, _ := http.NewRequest(http.MethodHead, s.url, nil)
			return r
		},
		"another host": func() *http.Request {
			r := post(t.Context(), s.url, "{}")
			r.Host = "api.example.com"
			return r
		},
		"an encoded path": func() *http.Request { return post(t.Context(), s.url+"/a%2Fb/%C3%A4", "{}") },
		"headers of all kinds": func() *http.Request {
			r := post(t.Context(), s.url, "{}")
			r.Header = http.Header{"X-Two": {"1", "2"}, "lower-case": {"l"}, "X-Empty": {""}, "User-Agent": {""}, "X-Space": {" a "}, "Content-Length": {"99"}}
			return r
		},
		"its own encoding": func() *http.Request {
			r := post(t.Context(), s.url, "{}")
			r.Header.Set("Accept-Encoding", "br")
			return r
		},
	} {
		arrived := map[string]string{}
		for name, rt := range ways {
			req := make()
			before := maps.Clone(req.Header)
			got := begin(rt, req)
			c := s.conn(t)
			r, body := c.request()
			c.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			wantAnswer(t, <-got, 204, "")
			arrived[name] = fmt.Sprintln(r.Method, r.RequestURI, r.Host, r.Header, r.ContentLength, r.TransferEncoding, body)
			if !maps.EqualFunc(before, req.Header, slices.Equal) {
				t.Errorf("%s, %s: the header has become %v", what, name, req.Header)
			}
		}
		if arrived["directly"] != arrived["net/http"] {
			t.Errorf("%s arrives as %s, from net/http as %s", what, arrived["directly"], arrived["net/http"])
		}
	}
}

func TestInterimAnswersArePassedOver(t *testing.T) {
	s := newServer(t)
	_, got := exchange(t, newTransport(t, settings()), s, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"+ok)
	wantAnswer(t, got, 200, "{}")
	if got.resp.Header.Get("Link") != "" {
		t.Errorf("the header is %v", got.resp.Header)
	}
}

func TestAnswersThatAreNoneAreErrors(t *testing.T) {
	long := settings()
	long.MaxResponseHeaderBytes = 100
	for what, raw := range map[string]string{
		"nothing":           "",
		"half a header":     "HTTP/1.1 200 OK\r\nContent-Le",
		"an interim one":    "HTTP/1.1 103 Early Hints\r\n\r\n",
		"another protocol":  "SSH-2.0-OpenSSH_9.2\r\n",
		"half a body":       "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
		"half a chunk":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
		"too long a header": "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 100) + "\r\n\r\n",
		"too many interim":  strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 10) + ok,
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t)
			got := begin(newTransport(t, long), post(t.Context(), s.url, "{}"))
			c := s.conn(t)
			c.answer(raw)
			_ = c.CloseWrite()
			if got := <-got; got.err == nil {
				t.Errorf("no error, but %+v", got)
			}
			c.wantEnd()
			s.wantNoConn(t)
		})
	}
}

func TestAnAnswerBeforeTheBodyWasReadIsHeard(t *testing.T) {
	s := newServer(t)
	got := begin(newTransport(t, settings()), post(t.Context(), s.url, strings.Repeat("x", 32<<10)))
	c := s.conn(t)
	if _, err := http.ReadRequest(c.in); err != nil {
		t.Fatal(err)
	}
	c.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	wantAnswer(t, <-got, 413, "")
}

func TestGzipIsUndoneOnlyWhereItWasNotAskedFor(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(gzipped)
	}))
	defer srv.Close()
	rt := newTransport(t, settings())
	got := roundTrip(rt, post(t.Context(), srv.URL, "{}"))
	wantAnswer(t, got, 200, "plain")
	if r := got.resp; !r.Uncompressed || r.ContentLength != -1 || r.Header.Get("Content-Encoding")+r.Header.Get("Content-Length") != "" {
		t.Errorf("the answer is %+v", r)
	}
	req := post(t.Context(), srv.URL, "{}")
	req.Header.Set("Accept-Encoding", "gzip")
	wantAnswer(t, roundTrip(rt, req), 200, string(gzipped))
	off := settings()
	off.DisableCompression = true
	wantAnswer(t, roundTrip(newTransport(t, off), post(t.Context(), srv.URL, "{}")), 200, string(gzipped))
}

var gzipped = func() []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, "plain")
	_ = z.Close()
	return b.Bytes()
}()

// newTLSServer returns a server that answers with its client's address, and the
// settings of a client that trusts it.
func newTLSServer(t *testing.T) (*httptest.Server, *http.Transport) {
	t.Helper()
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.RemoteAddr)
	}))
	t.Cleanup(srv.Close)
	trusting := settings()
	trusting.TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	trusting.TLSClientConfig.NextProtos = nil
	trusting.TLSClientConfig.ServerName = "example.com"
	return srv, trusting
}

func TestOverTLS(t *testing.T) {
	srv, trusting := newTLSServer(t)
	rt := newTransport(t, trusting)
	first := roundTrip(rt, post(t.Context(), srv.URL, "{}"))
	wantAnswer(t, first, 200, first.body)
	wantAnswer(t, roundTrip(rt, post(t.Context(), srv.URL, "{}")), 200, first.body) // by the same connection

	got := roundTrip(newTransport(t, settings()), post(t.Context(), srv.URL, "{}"))
	if unverified := new(tls.CertificateVerificationError); !errors.As(got.err, &unverified) {
		t.Errorf("without trust: %+v", got)
	}
	wrong := trusting.Clone()
	wrong.TLSClientConfig.ServerName = "example.net"
	if got := roundTrip(newTransport(t, wrong), post(t.Context(), srv.URL, "{}")); got.err == nil {
		t.Error("another's certificate was accepted")
	}
}

func TestAHandshakeHasItsTime(t *testing.T) {
	s := newServer(t)
	impatient := settings()
	impatient.TLSHandshakeTimeout = 20 * time.Millisecond
	got := <-begin(newTransport(t, impatient), post(t.Context(), strings.Replace(s.url, "http:", "https:", 1), "{}"))
	if got.err == nil || !strings.Contains(got.err.Error(), "TLS handshake timeout") {
		t.Errorf("%+v", got)
	}
}

// counting counts the calls of GotConn in n.
func counting(ctx context.Context, n *int) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { *n++ }})
}

func TestWithoutAConnectionNothingIsSaidToHaveBeenSent(t *testing.T) {
	refusing := settings()
	refused := errors.New("refused")
	refusing.DialContext = func(context.Context, string, string) (net.Conn, error) { return nil, refused }
	n := 0
	if got := roundTrip(newTransport(t, refusing), post(counting(t.Context(), &n), "http://api.example.com", "{}")); !errors.Is(got.err, refused) || n != 0 {
		t.Errorf("%+v, after %d connections", got, n)
	}

	// Nor is it where the context has ended, though there is a connection.
	s := newServer(t)
	rt := newTransport(t, settings())
	c, _ := exchange(t, rt, s, ok)
	ended, cancel := context.WithCancel(counting(t.Context(), &n))
	cancel()
	if got := roundTrip(rt, post(ended, s.url, "{}")); !errors.Is(got.err, context.Canceled) || n != 0 {
		t.Errorf("%+v, after %d connections", got, n)
	}
	second := begin(rt, post(t.Context(), s.url, "{}"))
	c.answer(ok)
	wantAnswer(t, <-second, 200, "{}")
}

func TestTheDeadlineOfTheContextEndsWhatIsUnderWay(t *testing.T) {
	for what, raw := range map[string]string{
		"before an answer":     "",
		"in a header":          "HTTP/1.1 200 OK\r\nContent-Le",
		"in a body":            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
		"in a body of gzip":    "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\n\x1f",
		"in a chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
		"after interim answer": "HTTP/1.1 103 Early Hints\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			got := begin(newTransport(t, settings()), post(ctx, s.url, "{}"))
			c := s.conn(t)
			c.answer(raw)
			if got := <-got; got.err == nil {
				t.Errorf("no error, but %+v", got)
			}
			c.wantEnd()
		})
	}
}

func TestAHeaderHasItsTimeAndABodyTheContexts(t *testing.T) {
	const header, whole = time.Second, time.Minute
	for what, c := range map[string]struct {
		first, rest time.Duration // until the header has come, and the body
		want        time.Duration // when it ends with an error; 0: it does not
	}{
		"both in time":    {header - 1, whole - header, 0},
		"a late header":   {header + 1, 0, header},
		"a late body":     {header - 1, whole, whole},
		"nothing in time": {whole, whole, header},
	} {
		synctest.Test(t, func(t *testing.T) {
			var all sync.WaitGroup
			defer all.Wait()
			s := &http.Transport{
				MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: header,
				DialContext: func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					all.Go(func() {
						defer server.Close()
						_, _ = http.ReadRequest(bufio.NewReader(server))
						time.Sleep(c.first)
						_, _ = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
						time.Sleep(c.rest)
						_, _ = io.WriteString(server, "{}")
					})
					return client, nil
				},
			}
			ctx, cancel := context.WithTimeout(t.Context(), whole)
			defer cancel()
			began := time.Now()
			got := roundTrip(newTransport(t, s), post(ctx, "http://127.0.0.1", ""))
			if took := time.Since(began); (got.err != nil) != (c.want > 0) || got.err != nil && took != c.want {
				t.Errorf("%s: %+v after %v", what, got, took)
			}
		})
	}
}

func TestWhatItDoesNotDoItLeavesToTheOther(t *testing.T) {
	left := errors.New("left")
	next := roundTripper(func(*http.Request) (*http.Response, error) { return nil, left })
	proxied := settings()
	proxied.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
	noProxy := settings()
	noProxy.Proxy = func(*http.Request) (*url.URL, error) { return nil, errors.New("none") }
	http2 := settings()
	http2.TLSClientConfig = &tls.Config{NextProtos: []string{"h2", "http/1.1"}}
	forced := settings()
	forced.ForceAttemptHTTP2 = true
	for what, c := range map[string]struct {
		settings *http.Transport
		change   func(*http.Request)
	}{
		"a proxy":                     {proxied, func(*http.Request) {}},
		"a proxy that is not found":   {noProxy, func(*http.Request) {}},
		"HTTP/2":                      {http2, func(r *http.Request) { r.URL.Scheme = "https" }},
		"HTTP/2 whatever the dialing": {forced, func(r *http.Request) { r.URL.Scheme = "https" }},
		"a long body":                 {settings(), func(r *http.Request) { r.ContentLength = 32<<10 + 1 }},
		"a body of unknown length":    {settings(), func(r *http.Request) { r.ContentLength = 0 }},
		"a body without end":          {settings(), func(r *http.Request) { r.ContentLength = -1 }},
		"chunks":                      {settings(), func(r *http.Request) { r.TransferEncoding = []string{"chunked"} }},
		"a trailer":                   {settings(), func(r *http.Request) { r.Trailer = http.Header{"X": nil} }},
		"CONNECT":                     {settings(), func(r *http.Request) { r.Method = http.MethodConnect }},
		"a single request":            {settings(), func(r *http.Request) { r.Close = true }},
		"an expectation":              {settings(), func(r *http.Request) { r.Header.Set("Expect", "100-continue") }},
		"an upgrade":                  {settings(), func(r *http.Request) { r.Header.Set("Upgrade", "websocket") }},
		"another scheme":              {settings(), func(r *http.Request) { r.URL.Scheme = "unix" }},
	} {
		rt := upstream.New(c.settings, next)
		if rt == nil {
			t.Skip("not on this system")
		}
		req := post(t.Context(), "http://127.0.0.1:1", "{}")
		c.change(req)
		if _, err := rt.RoundTrip(req); !errors.Is(err, left) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return r(req) }

func TestThereIsNoneForSettingsThatAskForMore(t *testing.T) {
	for what, change := range map[string]func(*http.Transport){
		"net/http's dialing":       func(s *http.Transport) { s.DialContext = nil },
		"dialing TLS":              func(s *http.Transport) { s.DialTLSContext = s.DialContext },
		"connections used once":    func(s *http.Transport) { s.DisableKeepAlives = true },
		"a limit of connections":   func(s *http.Transport) { s.MaxConnsPerHost = 1 },
		"idle ones kept for ever":  func(s *http.Transport) { s.IdleConnTimeout = 0 },
		"as many as net/http says": func(s *http.Transport) { s.MaxIdleConnsPerHost = 0 },
		"HTTP/2 in the clear": func(s *http.Transport) {
			s.Protocols = new(http.Protocols)
			s.Protocols.SetUnencryptedHTTP2(true)
		},
	} {
		s := settings()
		change(s)
		if upstream.New(s, s) != nil {
			t.Errorf("there is one with %s", what)
		}
	}
}

func TestABodyCanBeClosedWhileItIsRead(t *testing.T) {
	s := newServer(t)
	rt := newTransport(t, settings())
	type result struct {
		resp *http.Response
		err  error
	}
	answered := make(chan result, 1)
	go func() {
		resp, err := rt.RoundTrip(post(t.Context(), s.url, "{}"))
		answered <- result{resp, err}
	}()
	c := s.conn(t)
	c.answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
	got := <-answered
	if got.err != nil {
		t.Fatal(got.err)
	}
	read := make(chan error)
	go func() {
		_, err := io.ReadAll(got.resp.Body)
		read <- err
	}()
	if err := got.resp.Body.Close(); err != nil {
		t.Error(err)
	}
	if err := <-read; err == nil {
		t.Error("it was read to its end")
	}
	c.wantEnd()
}
