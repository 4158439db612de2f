package caddymodule

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"genesys-sidecar/caddymodule/sandbox"
)

// diagnose examines a Caddyfile, with the global options %s of genesys in it,
// against a sandbox.
func diagnose(t *testing.T, caddyfile string, change func(http.Handler) http.Handler) *doctor {
	t.Helper()
	s, err := sandbox.New(sandbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var handler http.Handler = s
	if change != nil {
		handler = change(s)
	}
	server := httptest.NewServer(handler)
	t.Cleanup(func() {
		_ = s.Close()
		server.Close()
	})
	for name, value := range map[string]string{
		envAPIURL: server.URL, envLoginURL: "", envClientID: "sandbox", envSecret: "sandbox", envRegion: "",
		"HTTPS_PROXY": "", "HTTP_PROXY": "", "NO_PROXY": "", "https_proxy": "", "http_proxy": "", "no_proxy": "",
	} {
		t.Setenv(name, value)
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{timeout: 5 * time.Second, config: config}
	if d.admin, err = newAdminClient("127.0.0.1:1", nil, time.Second); err != nil {
		t.Fatal(err)
	}
	d.examine(context.Background())
	return d
}

// wellCaddyfile is one with which all is well, but that its store is in memory.
const wellCaddyfile = `{
	genesys {
		store memory
	}
}
:8080 {
	bind 127.0.0.1
	genesys_cloud
}`

// has tells whether there is such a finding.
func (d *doctor) has(check, level, text string) bool {
	return slices.ContainsFunc(d.findings, func(f finding) bool {
		return f.Check == check && f.Level == level && strings.Contains(f.Found+" → "+f.Advice, text)
	})
}

func (d *doctor) want(t *testing.T, check, level, text string) {
	t.Helper()
	if !d.has(check, level, text) {
		t.Errorf("no %s of %s with %q: %+v", level, check, text, d.findings)
	}
}

func TestADoctorFindsNothingWhereAllIsWell(t *testing.T) {
	d := diagnose(t, wellCaddyfile, nil)
	for _, check := range []string{"configuration", "credentials", "API", "role", "clock", "listeners", "proxy"} {
		d.want(t, check, levelOK, "")
	}
	if d.count(levelProblem) != 0 || d.count(levelWarning) != 1 {
		t.Errorf("got %+v", d.findings)
	}
	d.want(t, "store", levelWarning, "in memory")
}

// instead answers a path with what another handler does.
func instead(path string, other http.HandlerFunc) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				other(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Location", "https://elsewhere.example/")
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, body)
	}
}

func TestADoctorSaysWhyThereIsNoToken(t *testing.T) {
	const json = "application/json"
	oauth := func(code, description string) http.HandlerFunc {
		return answering(400, json, fmt.Sprintf(`{"error":%q,"description":%[2]q,"error_description":%[2]q}`, code, description))
	}
	for name, test := range map[string]struct {
		login http.HandlerFunc
		want  string
	}{
		"unknown client":  {oauth("invalid_client", "client not found"), "one region only"},
		"wrong secret":    {oauth("invalid_client", "authentication failed"), "check client_secret"},
		"wrong grant":     {oauth("unauthorized_client", "no"), "grant type Client Credentials"},
		"other grant":     {oauth("unsupported_grant_type", "no"), "grant type Client Credentials"},
		"rate limit":      {oauth("invalid_request", "rate limit exceeded; too many"), "wait a minute"},
		"429":             {answering(429, json, `{}`), "wait a minute"},
		"another request": {oauth("invalid_request", "bad"), "check client_id, client_secret"},
		"not found":       {answering(404, json, `{}`), "<login_url>/oauth/token"},
		"a page":          {answering(400, "text/html", `<html>`), "<login_url>/oauth/token"},
		"a redirect":      {answering(302, "text/html", ``), "elsewhere.example"},
		"down":            {answering(503, json, `{}`), "status.mypurecloud.com"},
		"a loop":          {answering(508, json, loginLoop), "leads to a sidecar"},
	} {
		t.Run(name, func(t *testing.T) {
			d := diagnose(t, wellCaddyfile, instead("/oauth/token", test.login))
			d.want(t, "credentials", levelProblem, test.want)
			d.want(t, "API", levelOK, "")
			if d.has("role", levelOK, "") {
				t.Errorf("a role without a token: %+v", d.findings)
			}
		})
	}
}

func TestADoctorSaysWhatTheRoleLacks(t *testing.T) {
	const path = "/api/v2/authorization/subjects/me"
	withToken := func(body string, status int) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return instead(path, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					next.ServeHTTP(w, r)
					return
				}
				answering(status, "application/json", body)(w, r)
			})(next)
		}
	}
	role := func(policies string) string {
		return `{"grants":[{"role":{"name":"R","policies":[` + policies + `]}}]}`
	}
	for _, test := range []struct {
		body        string
		status      int
		level, want string
	}{
		{role(`{"domain":"integrations","entityName":"action","actions":["view","execute"]}`), 200, levelOK, `"R" has integrations:action:execute`},
		{role(`{"domain":"integrations","entityName":"*","actions":["*"]}`), 200, levelOK, "integrations:action:execute"},
		{role(`{"domain":"*","actions":["*"]}`), 200, levelOK, "integrations:action:execute"},
		{role(`{"domain":"bridge","entityName":"actions","actions":["execute"]}`), 200, levelOK, "bridge:actions:execute"},
		{role(`{"domain":"integrations","entityName":"action","actions":["view"]}`), 200, levelProblem, "may not execute"},
		{role(`{"domain":"routing","entityName":"*","actions":["*"]}`), 200, levelProblem, "may not execute"},
		{role(``), 200, levelWarning, "only executing an action would prove it"},
		{`{"grants":[]}`, 200, levelProblem, "has no role"},
		{`{"code":"bad.credentials","status":401}`, 401, levelProblem, "same region"},
		{`{}`, 429, levelWarning, "300 requests"},
		{`{"code":"missing.permissions"}`, 403, levelWarning, "may list actions"},
		{`{}`, 404, levelWarning, "only executing one would prove it"},
	} {
		d := diagnose(t, wellCaddyfile, withToken(test.body, test.status))
		d.want(t, "role", test.level, test.want)
	}
}

func TestADoctorNoticesWhatIsNoAPI(t *testing.T) {
	const path = "/api/v2/authorization/subjects/me"
	for _, test := range []struct {
		answer      http.HandlerFunc
		level, want string
	}{
		{answering(200, "text/html", "<html>"), levelProblem, "no API of Genesys Cloud"},
		{answering(404, "text/html", "<html>"), levelProblem, "no API of Genesys Cloud"},
		{answering(301, "text/html", ""), levelProblem, "elsewhere.example"},
		{answering(502, "text/html", ""), levelWarning, "502"},
		{answering(508, "application/problem+json", "{}"), levelProblem, "leads to a sidecar"},
	} {
		diagnose(t, wellCaddyfile, instead(path, test.answer)).want(t, "API", test.level, test.want)
	}
}

func TestADoctorNoticesAClockThatIsWrong(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		-time.Minute: "ahead of", time.Minute: "behind", 10 * time.Second: "", -10 * time.Second: "",
	} {
		d := diagnose(t, wellCaddyfile, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
				next.ServeHTTP(w, r)
			})
		})
		if want == "" {
			d.want(t, "clock", levelOK, "")
		} else {
			d.want(t, "clock", levelWarning, want)
		}
	}
}

func TestADoctorNoticesWhoCanReachTheSidecar(t *testing.T) {
	const hash = "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG"
	site := func(site string) string { return "{\n\tgenesys {\n\t\tstore memory\n\t}\n}\n" + site }
	for _, test := range []struct{ caddyfile, level, want string }{
		{site(":8080 {\n\tgenesys_cloud\n}"), levelWarning, "bind 127.0.0.1"},
		{site(":8080 {\n\tbind 0.0.0.0\n\tgenesys_cloud\n}"), levelWarning, "bind 127.0.0.1"},
		{site(":8080 {\n\treverse_proxy 127.0.0.1:1 {\n\t\ttransport genesys\n\t}\n}"), levelWarning, "bind 127.0.0.1"},
		{site(":8080 {\n\tbind ::1\n\tgenesys_cloud\n}"), levelOK, "this machine only"},
		{site(":8080 {\n\tbasic_auth {\n\t\tann " + hash + "\n\t}\n\tgenesys_cloud\n}"), levelOK, "asks who calls"},
		{site(":8080 {\n\trespond ok\n}"), levelProblem, "no site has genesys_cloud"},
		{"{\n\tadmin :2019\n\tgenesys {\n\t\tstore memory\n\t}\n}\n:8080 {\n\tbind 127.0.0.1\n\tgenesys_cloud\n}", levelWarning, "admin endpoint"},
	} {
		diagnose(t, test.caddyfile, nil).want(t, "listeners", test.level, test.want)
	}
}

func TestADoctorTakesTheTransportOfTheOrganisationsHandler(t *testing.T) {
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(`{
	genesys {
		organization b {
			region eu-west-1
			client_id b
			client_secret b
		}
	}
}
:8080 {
	genesys_cloud /b/* {
		organization b
		transport http {
			dial_timeout 7s
		}
	}
	genesys_cloud {
		transport http {
			dial_timeout 8s
		}
	}
}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"b": "7000000000", "": "8000000000", "c": ""} {
		got := string(transportOf(config, name))
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%q: %s", name, got)
		}
	}
}

func TestADoctorLeavesNothingInTheStoresDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := writeAndSync(dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
	missing := filepath.Join(dir, "a", "b")
	if existing, is := nearest(missing); existing != dir || !is {
		t.Errorf("nearest is %s", existing)
	}
	d := diagnose(t, strings.Replace(wellCaddyfile, "store memory", "store disk "+missing, 1), nil)
	d.want(t, "store", levelOK, "is made at the first start")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("after an examination: %v, %v", entries, err)
	}
}

func TestADoctorTellsOrganisationsApart(t *testing.T) {
	d := diagnose(t, `{
	genesys {
		store memory
		organization b {
			api_url {env.GENESYSCLOUD_API_URL}
			client_id b
			client_secret {env.GENESYSCLOUD_OAUTHCLIENT_SECRET}
		}
	}
}
:8080 {
	bind 127.0.0.1
	genesys_cloud
}`, nil)
	for _, f := range d.findings {
		if f.Check == "credentials" && (f.Level == levelProblem) != (f.Organization == "b") {
			t.Errorf("got %+v", f)
		}
	}
	d.want(t, "credentials", levelProblem, "does not know the client b")
	d.want(t, "credentials", levelOK, "client sandbox")
}

func TestADoctorHidesPasswords(t *testing.T) {
	d := diagnose(t, strings.Replace(wellCaddyfile, "store memory", "store memory\n\t\tclient_secret sandbox", 1), nil)
	d.want(t, "configuration", levelWarning, "client_secret is written out")
	if got := withoutPassword("http://ann:secret@proxy:3128"); strings.Contains(got, "secret") {
		t.Errorf("got %s", got)
	}
}

func TestADoctorSaysWhatIsWrongBelowHTTP(t *testing.T) {
	target := &url.URL{Scheme: "https", Host: "login.nosuch.example"}
	for want, err := range map[string]error{
		"there is no host login.nosuch.example → check region": &net.OpError{Op: "dial", Err: &net.DNSError{Name: "x", IsNotFound: true}},
		"cannot be resolved":        &net.DNSError{Err: "server misbehaving"},
		"does not answer within 5s": context.DeadlineExceeded,
		"refuses the connection":    &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"there is no way to":        os.NewSyscallError("connect", syscall.ENETUNREACH),
		"not for that name":         &tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}},
		"check the clock":           &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}},
		"tls_trust_pool":            &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"login_transport": &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}, UnverifiedCertificates: []*x509.Certificate{
			{Issuer: pkix.Name{CommonName: "Caddy Local Authority - ECC Intermediate"}}}},
		"cannot be reached": io.ErrUnexpectedEOF,
	} {
		found, advice := withoutAnswer(err, target, 5*time.Second, "check region")
		if !strings.Contains(found+" → "+advice, want) {
			t.Errorf("%v: %s → %s, want %q", err, found, advice, want)
		}
	}
}
