package test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"genesys-sidecar/caddymodule/sandbox"
)

const recipes = "../deploy/recipes"

// newRecipe starts the program with the Caddyfile of deploy/recipes/<name> as it
// stands. What it leaves to the environment is in env.
func newRecipe(t *testing.T, p *platform, name string, env ...string) *sidecar {
	t.Helper()
	s := &sidecar{
		platform: p,
		dir:      t.TempDir(),
		address:  freeAddress(t),
		admin:    freeAddress(t),
		client:   &http.Client{Transport: &http.Transport{DisableCompression: true}},
	}
	s.env = append([]string{"CADDY_ADMIN=" + s.admin, "GENESYS_SIDECAR_PORT=" + port(s.address)}, env...)
	text, err := os.ReadFile(filepath.Join(recipes, name, "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.config(), string(text))
	return s
}

// run starts the recipe, for as long as the test runs.
func (s *sidecar) run(t *testing.T) *sidecar {
	t.Helper()
	s.start(t)
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.stop(t)
		s.checkLog(t)
	})
	return s
}

// TestEveryRecipeIsTested fails for a recipe that was added without a test, and
// for one that is not formatted.
func TestEveryRecipeIsTested(t *testing.T) {
	tested := map[string]bool{
		"no-change": true, "organizations": true, "mtls": true, "basic-auth": true, "gzip": true, "per-action": true,
	}
	dirs, err := os.ReadDir(recipes)
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no recipes: %v", err)
	}
	for _, d := range dirs {
		if !d.IsDir() {
			continue
		}
		if !tested[d.Name()] {
			t.Errorf("%s has no test", d.Name())
		}
		text, err := os.ReadFile(filepath.Join(recipes, d.Name(), "Caddyfile"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(caddyfile.Format(text), text) {
			t.Errorf("%s is not formatted: caddy fmt --overwrite", d.Name())
		}
	}
}

func TestRecipeOrganizations(t *testing.T) {
	// A named organisation takes nothing from the environment by itself, and a
	// sandbox has no domain: this recipe alone is tested with api_url in it.
	acme, beta := newPlatform(t, sandbox.Config{ClientID: "acme"}), newPlatform(t, sandbox.Config{ClientID: "beta"})
	secrets := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secrets, secret)
	s := newRecipe(t, &platform{}, "organizations",
		"ACME_CLIENT_ID=acme", "ACME_SECRET_FILE="+secrets, "BETA_CLIENT_ID=beta", "BETA_SECRET_FILE="+secrets)
	betaAddress := freeAddress(t)
	s.env = append(s.env, "ACME_PORT="+port(s.address), "BETA_PORT="+port(betaAddress))
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("region {$ACME_REGION:mypurecloud.ie}", "api_url "+acme.url, "region {$BETA_REGION:mypurecloud.de}", "api_url "+beta.url).Replace(string(text))
	if strings.Count(changed, "api_url") != 2 {
		t.Fatal("the recipe's regions are not where they were")
	}
	writeFile(t, s.config(), changed)
	s.run(t)

	first := s.send(t, keyed(1))
	s.address = betaAddress
	second := s.send(t, keyed(1))
	if first.status != 200 || second.status != 200 || second.replayed() || second.body == first.body {
		t.Errorf("acme's %+v, beta's %+v", first, second)
	}
	acme.wantEffects(t, 1)
	beta.wantEffects(t, 1)
}

func TestRecipeBasicAuth(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newRecipe(t, p, "basic-auth", "BILLING_PASSWORD_HASH="+hashPassword(t, "b1lling"), "SUPPORT_PASSWORD_HASH="+hashPassword(t, "supp0rt"))
	s.run(t)
	billing, support := keyed(1), keyed(1)
	billing.header = append(billing.header, "Authorization", "Basic YmlsbGluZzpiMWxsaW5n")
	support.header = append(support.header, "Authorization", "Basic c3VwcG9ydDpzdXBwMHJ0")

	wantTwoCallers(t, s, p, billing, support)
	if a := s.send(t, keyed(1)); a.status != 401 {
		t.Errorf("without a password: %+v", a)
	}
	if a := s.send(t, request{path: execute, body: `{}`, header: billing.header[2:]}); a.status != 400 || !strings.Contains(a.body, "key.required") {
		t.Errorf("without a key: %+v", a)
	}
	p.wantEffects(t, 2)
}

// wantTwoCallers checks that the same key of two callers is two calls, each of
// which is told again to its own caller.
func wantTwoCallers(t *testing.T, s *sidecar, p *platform, one, other request) {
	t.Helper()
	a, b := s.send(t, one), s.send(t, other)
	if a.status != 200 || b.status != 200 || b.replayed() || a.body == b.body {
		t.Errorf("the callers got %+v and %+v", a, b)
	}
	for call, want := range map[*request]string{&one: a.body, &other: b.body} {
		if again := s.send(t, *call); !again.replayed() || again.body != want {
			t.Errorf("a repeat: %+v", again)
		}
	}
	p.wantEffects(t, 2)
}

func hashPassword(t *testing.T, password string) string {
	t.Helper()
	cmd := exec.Command(binary, "hash-password", "--bcrypt-cost", "4") // else it takes seconds, as it should
	cmd.Stdin = strings.NewReader(password + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestRecipeGzip(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newRecipe(t, p, "gzip").run(t)
	large := func(accept string) answer {
		call := keyed(1)
		call.header = append(call.header, "Sandbox-Fault", "large=4096")
		if accept != "" {
			call.header = append(call.header, "Accept-Encoding", accept)
		}
		return s.send(t, call)
	}
	first, again, plain := large("gzip"), large("gzip"), large("")
	if plain.header.Get("Content-Encoding") != "" || !plain.replayed() || len(plain.body) < 4096 {
		t.Errorf("the replay for who does not ask: %+v", plain)
	}
	for name, a := range map[string]answer{"the first answer": first, "the replay": again} {
		if a.status != 200 || a.header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s is not compressed: %v", name, a.header)
			continue
		}
		if got := gunzip(t, a.body); got != plain.body {
			t.Errorf("%s is another body: %s", name, got)
		}
	}
	p.wantEffects(t, 1)
}

func gunzip(t *testing.T, body string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestRecipePerAction(t *testing.T) {
	const (
		refund = "/api/v2/integrations/actions/custom_-_refund/execute"
		search = "/api/v2/integrations/actions/custom_-_search/execute"
	)
	p := newPlatform(t, sandbox.Config{})
	s := newRecipe(t, p, "per-action").run(t)
	if a := s.send(t, request{path: refund, body: `{}`}); a.status != 400 || !strings.Contains(a.body, "key.required") {
		t.Errorf("a refund without a key: %+v", a)
	}
	keyed := request{path: refund, body: `{}`, header: []string{"Idempotency-Key", "k"}}
	s.send(t, keyed)
	if a := s.send(t, keyed); !a.replayed() || !strings.Contains(a.header.Get("Cache-Status"), "ttl=2591") { // seconds of 30 days, less a few
		t.Errorf("a refund's repeat: %+v", a)
	}
	s.send(t, request{path: search, body: `{"q":1}`})
	if a := s.send(t, request{path: search, body: `{"q":1}`}); !a.replayed() {
		t.Errorf("the same search: %+v", a)
	}
	for range 2 {
		if a := s.send(t, request{path: execute, body: `{}`}); a.status != 200 || a.replayed() {
			t.Errorf("another action, meant twice: %+v", a)
		}
	}
	p.wantEffects(t, 4)
}

// dialOnly returns a dial function for clients that know a server by other names.
func dialOnly(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
}
