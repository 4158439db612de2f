package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func keyed(i int) request {
	return request{path: execute, body: `{}`, header: []string{"Idempotency-Key", fmt.Sprint("key-", i)}}
}

func TestAHundredFirstCallsFetchOneToken(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok","latency":"300ms"}`)
	s := newSidecar(t, p, options{})
	each(100, func(i int) {
		if a := s.send(t, keyed(i)); a.status != 200 {
			t.Errorf("got %+v", a)
		}
	})
	if n := p.Summary().TokenRequests; n != 1 {
		t.Errorf("%d token requests", n)
	}
	p.wantEffects(t, 100)
}

func TestARevokedTokenCostsOneFetchAndNoExecution(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyed(0))
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	each(50, func(i int) {
		if a := s.send(t, keyed(i+1)); a.status != 200 {
			t.Errorf("got %+v", a)
		}
	})
	if n := p.Summary().TokenRequests; n != 2 {
		t.Errorf("%d token requests", n)
	}
	p.wantEffects(t, 51)
}

func TestATokenOutageIsToldQuicklyAndEndsByItself(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
	s := newSidecar(t, p, options{})
	each(100, func(i int) {
		a := s.send(t, keyed(i))
		if a.status != 503 || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, `"code":"token.unavailable"`) {
			t.Errorf("got %+v", a)
		}
	})
	if n := p.Summary().TokenRequests; n > 5 {
		t.Errorf("a herd of %d token requests", n)
	}
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
	waitFor(t, func() bool { return s.send(t, keyed(0)).status == 200 })
	p.wantEffects(t, 1)
}

func TestAReplayNeedsNoToken(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	first := s.send(t, keyed(0))
	s.stop(t)
	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"hang"}`)
	s.start(t)
	if a := s.send(t, keyed(0)); a.body != first.body {
		t.Errorf("got %+v", a)
	}
	_ = p.Close()
}

func TestRejectedCredentialsAreToldAsSuch(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	p.control(t, "PUT", "/sandbox/client", `{"secret":"another"}`)
	s := newSidecar(t, p, options{})
	if a := s.send(t, keyed(0)); a.status != 502 || !strings.Contains(a.body, `"code":"credentials.rejected"`) {
		t.Errorf("got %+v", a)
	}
}

func TestASecretInAFileIsReadAgainAfterItsRotation(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSidecar(t, p, options{global: "client_secret {file." + file + "}"})
	if a := s.send(t, keyed(0)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	p.control(t, "PUT", "/sandbox/client", `{"secret":"rotated"}`)
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	if err := os.WriteFile(file, []byte("rotated\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Errorf("after the rotation: %+v", a)
	}
}

func TestAGrantedRoleNeedsNoRestart(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Forbidden: true})
	s := newSidecar(t, p, options{})
	for range 3 {
		if a := s.send(t, keyed(0)); a.status != 403 || !strings.Contains(a.body, "integrations:action:execute") {
			t.Fatalf("got %+v", a)
		}
	}
	if n := strings.Count(s.log(t), "lacks a permission"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
	before := p.Summary().TokensIssued
	p.control(t, "PUT", "/sandbox/permissions", `{"granted":true}`)
	if a := s.send(t, keyed(0)); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	if p.Summary().TokensIssued != before+1 {
		t.Error("the refused token was used again")
	}
}

func TestTheCallersAuthorizationNeverGoesUp(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	for _, r := range []request{
		{path: execute, body: `{}`, header: []string{"Authorization", "Bearer mine"}},
		{method: http.MethodGet, path: "/api/v2/users/me", header: []string{"Authorization", "Basic bWluZQ=="}},
	} {
		if a := s.send(t, r); a.status != 200 {
			t.Errorf("%s: %+v", r.path, a)
		}
	}
	for _, a := range p.Ledger(sandbox.Filter{}).Attempts {
		if !a.TokenIssued {
			t.Errorf("attempt %d carried a token that is not the sandbox's", a.Number)
		}
	}
}

func TestSDKsLogInWithoutTheSecret(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	for _, path := range []string{"/oauth/token", "/login/oauth/token"} {
		a := s.send(t, request{path: path, body: "grant_type=client_credentials", header: []string{"Authorization", "Basic eDp5"}})
		if a.status != 200 || !strings.Contains(a.body, `"access_token":"genesys-sidecar"`) {
			t.Errorf("got %+v", a)
		}
	}
	if n := p.Summary().TokenRequests; n != 0 {
		t.Errorf("%d logins went up", n)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyed(0))
	resp, err := http.Get("http://" + s.admin + "/config/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, readAll(t, resp.Body)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), secret) {
		t.Error("the secret is in /config/")
	}
	err = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if strings.Contains(string(content), secret) {
			t.Errorf("the secret is in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// The log is looked at when the sidecar has ended.
}

func TestTheTokenIsRefreshedBeforeItExpires(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{TokenLife: 4 * time.Second})
	s := newSidecar(t, p, options{})
	i := 0
	waitFor(t, func() bool {
		i++
		if a := s.send(t, keyed(i)); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
		return p.Summary().TokensIssued >= 3
	})
	for _, a := range p.Ledger(sandbox.Filter{}).Attempts {
		if a.Status == 401 {
			t.Fatal("an expired token was sent")
		}
	}
}

func TestAnActionThatIsForbiddenKeepsNoOtherFromRunning(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	for i := range 20 {
		bad := keyed(i)
		bad.header = append(bad.header, "Sandbox-Fault", "403")
		if a := s.send(t, bad); a.status != 403 {
			t.Fatalf("got %+v", a)
		}
		if a := s.send(t, keyed(100+i)); a.status != 200 {
			t.Fatalf("another action got %+v", a)
		}
	}
	if n := p.Summary().TokensIssued; n > 8 {
		t.Errorf("%d tokens", n)
	}
}
