package caddymodule

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// chain is a sidecar within this process, in front of an upstream that notes
// what it is asked for.
type chain struct {
	http.Handler

	mu   sync.Mutex
	uris []string // guarded by mu; request URIs that came up, but for logins
}

// newChain starts one in front of an API below prefix.
func newChain(tb testing.TB, prefix string) *chain {
	tb.Helper()
	c := new(chain)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI == "/login/oauth/token" {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"access_token":"t","token_type":"bearer","expires_in":86400}`)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.uris = append(c.uris, r.RequestURI)
	}))
	tb.Cleanup(upstream.Close)

	dir := tb.TempDir()
	tb.Setenv("XDG_DATA_HOME", dir)
	tb.Setenv("XDG_CONFIG_HOME", dir)
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https off
	log {
		level error
	}
	genesys {
		api_url %s%s
		login_url %s/login
		client_id id
		client_secret {file.%s}
		store memory
		cache off
	}
}
http:// {
	bind unix/%s/socket
	genesys_cloud
}
`, upstream.URL, prefix, upstream.URL, secretFile(tb, dir), dir)), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		tb.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { caddy.Stop() })
	app, err := caddy.ActiveContext().App("http")
	if err != nil {
		tb.Fatal(err)
	}
	c.Handler = app.(*caddyhttp.App).Servers["srv0"]
	return c
}

func secretFile(tb testing.TB, dir string) string {
	tb.Helper()
	name := dir + "/secret"
	if err := os.WriteFile(name, []byte("secret"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

// post sends a POST for target, which is read as a server reads it, and returns
// what came up for it, and whether the gate has answered.
func (c *chain) post(t *testing.T, target string) (uris []string, gated bool) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(
		"POST " + target + " HTTP/1.1\r\nHost: sidecar\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")))
	if err != nil {
		t.Skip()
	}
	r.RemoteAddr = "127.0.0.1:1"
	c.mu.Lock()
	c.uris = nil
	c.mu.Unlock()
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.uris) == 0 && w.Code == http.StatusBadGateway {
		t.Fatalf("%q did not get up: %s", target, w.Body)
	}
	return c.uris, w.Header().Get("Idempotency-Key") != ""
}

// router is what an upstream may have: Go's own, with the actions of the design
// once more, apart from the code under test.
var router = func() *http.ServeMux {
	mux := http.NewServeMux()
	for _, pattern := range []string{
		"POST /api/v2/integrations/actions/{id}/execute",
		"POST /api/v2/integrations/actions/{id}/test",
		"POST /api/v2/integrations/actions/{id}/draft/test",
		"POST /api/v2/dataactions/actions/{id}/invoke",
		"POST /api/v2/quality/conversations/{id}/evaluations",
	} {
		mux.Handle(pattern, http.NotFoundHandler())
	}
	return mux
}()

// middlewares are what may stand in front of the router and rewrite paths; each
// may be there or not.
var middlewares = []func(string) string{
	func(p string) string { return pathParams.ReplaceAllString(p, "") },
	percentDecoded,
	percentDecoded,
	func(p string) string { return strings.ReplaceAll(p, `\`, "/") },
	func(p string) string { p, _, _ = strings.Cut(p, "\x00"); return p },
	func(p string) string { return pathParams.ReplaceAllString(p, "") },
	func(p string) string { return trailing.ReplaceAllString(p, "$1$2") },
	strings.ToLower,
	func(p string) string { return manySlashes.ReplaceAllString(p, "/") },
	func(p string) string { return path.Clean("/" + p) },
}

var (
	actionWord  = regexp.MustCompile(`execute|test|invoke|evaluations`)
	pathParams  = regexp.MustCompile(`;[^/]*`)
	manySlashes = regexp.MustCompile(`/+`)
	trailing    = regexp.MustCompile(`([^./ ])[. ]+(/|$)`) // as some file systems drop it
	percentPair = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
)

func percentDecoded(p string) string {
	return percentPair.ReplaceAllStringFunc(p, func(s string) string {
		s, _ = url.PathUnescape(s)
		return s
	})
}

// actionOf returns the action that uri is to the router, behind whichever
// middlewares, or "".
func actionOf(uri string) string {
	if u, err := url.ParseRequestURI(uri); err == nil {
		if _, pattern := router.Handler(&http.Request{Method: "POST", URL: u, Host: "h"}); pattern != "" {
			return pattern
		}
	}
	uri, _, _ = strings.Cut(uri, "?")
	if plain := strings.ToLower(percentDecoded(percentDecoded(uri))); !actionWord.MatchString(plain) {
		return "" // no middleware puts letters in
	}
	paths := map[string]bool{uri: true}
	for _, rewrite := range middlewares {
		for p := range maps.Clone(paths) {
			paths[rewrite(p)] = true
		}
	}
	for p := range paths {
		if _, pattern := router.Handler(&http.Request{Method: "POST", URL: &url.URL{Path: p}, Host: "h"}); pattern != "" {
			return pattern
		}
	}
	return ""
}

// FuzzNothingProxiedIsAnAction sends requests through the whole chain, and
// looks at what comes up: what passed the gate by must be no action to any
// router.
func FuzzNothingProxiedIsAnAction(f *testing.F) {
	const execute, invoke = "/api/v2/integrations/actions/a/execute", "/api/v2/dataactions/actions/a/invoke"
	for _, target := range []string{
		execute, invoke, execute + "/", "/" + execute, execute + "?a=b", execute + "%3Fa", execute + "%00", execute + "%20", execute + ".", execute + ";a=b",
		"http://other" + execute, "http://other:1/" + execute, "//other" + execute, "http:" + execute[1:], "http:%2F" + execute[1:], "x:" + execute, "*",
		"/x/.." + execute, "/..;" + execute, "/%2e%2e" + execute, "/x/%2E%2e%2f" + execute[1:], "/./" + execute, "/%2F" + execute[1:], "/%5C" + execute[1:], `\` + execute, `/x\..` + execute,
		"/api/v2/integrations/actions/a/%65xecute", "/api/v2/integrations/actions/a/%2565xecute", "/API/v2/Integrations/actions/a/EXECUTE",
		"/api/v2/integrations/actions/a%2Fb/execute", "/api/v2/integrations/actions/%2e%2e/execute", "/api/v2/integrations/actions//execute", "/api/v2/integrations/actions/a/draft%2Ftest",
		"/api/v2/integrations/actions/a/draft", "/api/v2/integrations/actions", "/api/v2/users/me", "/oauth/token", "/", "/%", "/%zz" + execute, execute + "%", execute + "#x", execute + "%23x",
		"/api/v2/quality/conversations/a/evaluations", "/api/v2/quality/conversations/a/%65valuations//", "/api/v2//integrations/../integrations/actions/a/test",
		"/api/v2/integrations/actions/a/execute/..;/execute", "/api/v2/integrations/actions/a/x/%2e%2e/execute", "/api%00/v2/integrations/actions/a/execute",
		"/api/v2/integrations/actions/a/exec%C5%BFute", "/api/v2/dataactions/actions/a/invo%E2%84%AAe", execute + "%0d%0a", execute + "%09",
	} {
		f.Add(target, []byte(nil))
		f.Add(target, []byte{1, 5, 2, 9})
	}
	chain := newChain(f, "")
	f.Fuzz(func(t *testing.T, target string, pieces []byte) {
		if target = disguised(target, pieces); len(target) > 300 || strings.ContainsAny(target, " \r\n") {
			t.Skip()
		}
		uris, gated := chain.post(t, target)
		if gated {
			return
		}
		for _, uri := range uris {
			if action := actionOf(uri); action != "" {
				t.Fatalf("%q passed the gate by as %q, which is %s", target, uri, action)
			}
		}
	})
}

// disguised puts pieces into target, each by two bytes: where, and which. The
// fuzzer seldom finds them by itself.
func disguised(target string, pieces []byte) string {
	all := []string{
		"/", "//", "%2F", "%2f", "%252F", `\`, "%5C", ".", "..", "/.", "/..", "/../", "/./", "%2e", "%2E%2e", "/%2e%2e/", "/%252e%252e/",
		";", ";x", ";x=/", "/;/", "..;", "/..;/", "%3B", "%20", "%00", "%0A", "%09", "%3F", "?", "%23", "#", "%25", "%zz", "x", "/x", "x/", "/x/..", "/x/../", "/x//..",
		"x%2Fy/..", "x%2Fy/%2e%2e/", "execute", "/actions/", "%C0%AF", "%EF%BC%8F", "%u002f", "+", "http:", "http://h", "*", ":", "@",
	}
	for ; len(pieces) >= 2 && len(target) < 300; pieces = pieces[2:] {
		at, piece := int(pieces[0])%(len(target)+1), int(pieces[1])
		switch {
		case piece < len(all):
			target = target[:at] + all[piece] + target[at:]
		case at == len(target):
		case piece < 128:
			target = target[:at] + fmt.Sprintf("%%%02X", target[at]) + target[at+1:]
		case piece < 192:
			target = target[:at] + string(target[at]^0x20) + target[at+1:]
		default:
			target = target[:at] + target[at+1:]
		}
	}
	return target
}

func TestAnActionBelowAPrefixOfTheAPIIsOne(t *testing.T) {
	for _, c := range []struct {
		prefix, target string
		gated          bool
	}{
		{"/api", "/v2/integrations/actions/a/execute", true},
		{"/api/v2", "/dataactions/actions/a/invoke", true},
		{"/API/v2/", "/integrations//actions/a/%65xecute", true},
		{"/gateway", "/api/v2/integrations/actions/a/execute", true},
		{"/gateway", "/integrations/actions/a/execute", false},
		{"/api", "/v2/integrations/actions", false},
	} {
		t.Run(c.prefix+c.target, func(t *testing.T) {
			uris, gated := newChain(t, c.prefix).post(t, c.target)
			if gated != c.gated || len(uris) != 1 {
				t.Errorf("%s came up as %q, past the gate: %v; want %v", c.target, uris, !gated, !c.gated)
			}
		})
	}
}
