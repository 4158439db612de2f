package test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestOtherRequestsAreProxiedWithAToken(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	if a := s.send(t, request{method: http.MethodGet, path: "/api/v2/users/me"}); a.status != 200 || a.header.Get("Cache-Status") != "" {
		t.Errorf("got %+v", a)
	}
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	if a := s.send(t, request{method: http.MethodGet, path: "/api/v2/users/me"}); a.status != 200 {
		t.Errorf("after the token was revoked: %+v", a)
	}
	a := s.send(t, request{method: http.MethodGet, path: "/api/v2/sandbox/stream?bytes=20000000"})
	if a.status != 200 || len(a.body) != 20_000_000 {
		t.Errorf("a large answer: %d, %d bytes", a.status, len(a.body))
	}
}

// Whatever some server might take for a data action is treated as one.
func TestNoDisguiseLeadsPastTheGate(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	for i, path := range []string{
		"//api/v2/integrations/actions/x/execute",
		"/api//v2/integrations/actions/x/execute",
		"/api/v2/integrations/actions/x//execute",
		"/api%2Fv2/integrations/actions/x/execute",
		"/api/v2/integrations/actions/x%2Fexecute",
		"/api/v2/integrations/actions/x/%65xecute",
		"/api/v2/integrations/actions/x/%2565xecute",
		"/%61pi/v2/integrations/actions/x/execute",
		"/api/v2/integrations/actions/x/execute/",
		"/API/v2/integrations/actions/x/execute",
		"/api/v2/integrations/actions/x/Execute",
		"/api/v2/./integrations/actions/x/execute",
		"/api/v2/users/../integrations/actions/x/execute",
		"/api/v2/users/%2e%2e/integrations/actions/x/execute",
		"/api/v2/users/..%2fintegrations/actions/x/execute",
		`/api/v2/integrations\actions\x\execute`,
		"/api/v2/integrations/actions/x/execute;v=1",
		"/api/v2/integrations/actions/x/execute%20",
	} {
		call := request{path: path, body: `{"a":1}`, header: []string{"Idempotency-Key", fmt.Sprint("disguise-", i), "Content-Type", "application/json"}}
		first, again := s.sendRaw(t, call), s.sendRaw(t, call)
		gated := first.header.Get("Cache-Status") != "" || first.status == 400
		if !gated {
			t.Errorf("%s went past the gate: %+v", path, first)
		}
		if first.status == 200 && !again.replayed() {
			t.Errorf("%s ran twice", path)
		}
	}
}

// sendRaw sends a request with its path to the letter, which no client of
// net/http does.
func (s *sidecar) sendRaw(t *testing.T, r request) answer {
	t.Helper()
	conn, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", r.path, s.address, len(r.body))
	for i := 0; i < len(r.header); i += 2 {
		fmt.Fprintf(conn, "%s: %s\r\n", r.header[i], r.header[i+1])
	}
	fmt.Fprintf(conn, "\r\n%s", r.body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return answer{resp.StatusCode, resp.Header, readAll(t, resp.Body)}
}

// An upstream that reads a request on a connection that it has answered on
// before, and closes it, is what makes net/http send the request again.
func TestNoTransportSendsACallASecondTime(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	secured := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, "the platform", "localhost")}}
	for way, c := range map[string]struct {
		tls     *tls.Config // nil: none
		options string      // of the transport
	}{
		"the sidecar's own":      {},
		"the sidecar's own, TLS": {secured, "versions 1.1\n tls_trust_pool file " + ca.file},
		"net/http":               {nil, "read_timeout 1m"}, // which the sidecar's own does not have
		"net/http, TLS":          {secured, "tls_trust_pool file " + ca.file},
	} {
		for name, body := range map[string]string{"a body": `{"a":1}`, "no body": ""} {
			t.Run(way+", "+name, func(t *testing.T) {
				p := newPlatform(t, sandbox.Config{})
				var arrived atomic.Int64
				api := closeOnReuse(t, &arrived, c.tls)
				s := newSidecar(t, p, options{
					global: "api_url " + api + "\n login_url " + p.url,
					block:  "transport http {\n" + c.options + "\n}",
				})
				warm := s.send(t, request{path: execute, body: `{"warm":1}`, header: []string{"Idempotency-Key", "warm"}})
				if warm.status != 200 || arrived.Load() != 1 {
					t.Fatalf("got %+v", warm)
				}
				a := s.send(t, request{path: execute, body: body, header: []string{"Idempotency-Key", "k", "X-Idempotency-Key", "k"}})
				if a.status != 502 || !strings.Contains(a.body, `"outcome":"unknown"`) {
					t.Errorf("got %+v", a)
				}
				if n := arrived.Load(); n != 2 {
					t.Errorf("the second call arrived %d times", n-1)
				}
			})
		}
	}
}

// Nor is what is only passed on, and changes something, sent a second time.
func TestNoProxySendsAChangeASecondTime(t *testing.T) {
	for _, header := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		for _, body := range []string{"", `{"a":1}`} {
			p := newPlatform(t, sandbox.Config{})
			var arrived atomic.Int64
			api := closeOnReuse(t, &arrived, nil)
			s := newSidecar(t, p, options{
				global: "api_url " + api + "\n login_url " + p.url,
				site: "handle /plain/* {\n uri strip_prefix /plain\n reverse_proxy " + strings.TrimPrefix(api, "http://") +
					" {\n transport genesys\n }\n}",
			})
			for _, prefix := range []string{"", "/plain"} {
				arrived.Store(0)
				if warm := s.send(t, request{method: http.MethodGet, path: prefix + "/api/v2/users/me"}); warm.status != 200 {
					t.Fatalf("got %+v", warm)
				}
				path := prefix + "/api/v2/conversations/calls/1/disconnect"
				if a := s.send(t, request{path: path, body: body, header: []string{header, "k"}}); a.status != 502 {
					t.Errorf("%s %q %s: got %+v", header, body, path, a)
				}
				if n := arrived.Load(); n != 2 {
					t.Errorf("%s %q %s: it arrived %d times", header, body, path, n-1)
				}
			}
		}
	}
}

// closeOnReuse serves an upstream that answers the first request on each
// connection and closes the connection on the second.
func closeOnReuse(t *testing.T, arrived *atomic.Int64, secured *tls.Config) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url = "http://" + ln.Addr().String()
	if secured != nil {
		ln, url = tls.NewListener(ln, secured), "https://localhost:"+port(ln.Addr().String())
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for first := true; ; first = false {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					arrived.Add(1)
					if !first {
						return
					}
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
				}
			}()
		}
	}()
	return url
}

func TestTheFacadeInvokesItsAction(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "invoke_endpoint /refunds custom_-_refund"})
	call := request{path: "/refunds", body: `{"idempotency_key":"order-17","input_payload":{"amount":5.0}}`}
	first, again := s.send(t, call), s.send(t, call)
	if first.status != 200 || again.body != first.body || !again.replayed() {
		t.Errorf("first %+v, again %+v", first, again)
	}
	effects := p.Ledger(sandbox.Filter{}).Effects
	if len(effects) != 1 || effects[0].Action != "custom_-_refund" || effects[0].Key != "order-17" {
		t.Errorf("effects: %+v", effects)
	}
	direct := s.send(t, request{path: "/api/v2/dataactions/actions/custom_-_refund/invoke", body: `{"input":{"amount":5.0}}`, header: []string{"Idempotency-Key", "order-17"}})
	if direct.body != first.body || !direct.replayed() {
		t.Errorf("the same call, made directly: %+v", direct)
	}
	for body, code := range map[string]string{
		`{"idempotency_key":"k"}`:                    "body.invalid",
		`{"idempotency_key":"k","input_payload":[]}`: "body.invalid",
		`nonsense`: "body.invalid",
		`{"idempotency_key":"a b","input_payload":{}}`: "key.invalid",
		`{"idempotency_key":7,"input_payload":{}}`:     "body.invalid",
	} {
		if a := s.send(t, request{path: "/refunds", body: body}); a.status != 400 || !strings.Contains(a.body, code) {
			t.Errorf("%s: %+v", body, a)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "max_request_body 1KiB"})
	big := `{"a":"` + strings.Repeat("x", 2000) + `"}`
	if a := s.send(t, request{path: execute, body: big}); a.status != 413 || !strings.Contains(a.body, "request.too.large") {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 0)
}

func TestAnswersAreKeptWithoutContentEncodingAndCookies(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "k", "Sandbox-Fault", "gzip, set-cookie", "Accept-Encoding", "gzip"}}
	first, again := s.send(t, call), s.send(t, call)
	for _, a := range []answer{first, again} {
		if a.status != 200 || !strings.HasPrefix(a.body, "{") || a.header.Get("Content-Encoding") != "" || a.header.Get("Set-Cookie") != "" {
			t.Errorf("got %+v", a)
		}
	}
}

func TestScopesKeepCallersApart(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "scope {http.request.header.X-Team}"})
	blue := request{path: execute, body: `{}`, header: []string{"Idempotency-Key", "k", "X-Team", "blue"}}
	red := request{path: execute, body: `{}`, header: []string{"Idempotency-Key", "k", "X-Team", "red"}}
	a, b := s.send(t, blue), s.send(t, red)
	if b.replayed() || b.body == a.body {
		t.Errorf("another caller's key reached the record: %+v", b)
	}
	if !s.send(t, blue).replayed() || !s.send(t, red).replayed() {
		t.Error("a caller's own repeat was no replay")
	}
	effects := p.Ledger(sandbox.Filter{}).Effects
	if len(effects) != 2 || effects[0].Key == effects[1].Key || effects[0].Key == "k" {
		t.Errorf("the upstream's keys: %+v", effects)
	}
}

func TestATokenAttachingProxyNeedsNoGate(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{site: `handle /plain/* {
		reverse_proxy ` + strings.TrimPrefix(p.url, "http://") + ` {
			rewrite /api/v2/users/me
			transport genesys
		}
	}`})
	if a := s.send(t, request{method: http.MethodGet, path: "/plain/x"}); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}
