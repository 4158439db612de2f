package sandbox_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func wantOAuthError(t *testing.T, a answer, code, description string) {
	t.Helper()
	var body struct {
		Error            string
		Description      string
		ErrorDescription string `json:"error_description"`
	}
	a.wantStatus(400).decode(&body)
	if body.Error != code || !strings.HasPrefix(body.Description, description) || body.ErrorDescription != body.Description {
		t.Errorf("answered %s, want %s (%s)", a.body, code, description)
	}
}

func TestTokenAnswerIsOAuths(t *testing.T) {
	r := start(t, sandbox.Config{TokenLife: 90 * time.Second})
	var body struct {
		TokenType string `json:"token_type"`
		ExpiresIn int    `json:"expires_in"`
	}
	r.tokenRequest("sandbox", "sandbox", "grant_type=client_credentials").wantStatus(200).decode(&body)
	if body.TokenType != "bearer" || body.ExpiresIn != 90 {
		t.Errorf("answered %+v", body)
	}
}

func TestTokenEndpointRefusesWrongClients(t *testing.T) {
	r := start(t, sandbox.Config{})
	const grant = "grant_type=client_credentials"
	wantOAuthError(t, r.tokenRequest("other", "sandbox", grant), "invalid_client", "client not found")
	wantOAuthError(t, r.tokenRequest("sandbox", "other", grant), "invalid_client", "authentication failed")
	wantOAuthError(t, r.tokenRequest("sandbox", "sandbox", "grant_type=password"), "unsupported_grant_type", "")
}

func TestCredentialsMayBeFormEncoded(t *testing.T) {
	const secret = "s+/= %25"
	r := start(t, sandbox.Config{})
	r.control("PUT", "/sandbox/client", `{"secret":"s+/= %25"}`)
	r.login("sandbox", secret)
	r.login("sandbox", url.QueryEscape(secret))
}

func TestRequestsWithoutValidTokenAreRefused(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post(executePath, "{}", "Authorization", "").wantCode(401, "authentication.required")
	r.post(executePath, "{}", "Authorization", "Basic eDp5").wantCode(401, "authentication.required")
	r.post(executePath, "{}", "Authorization", "Bearer stranger").wantCode(401, "bad.credentials")
	r.get("/api/v2/users/me", "Authorization", "").wantCode(401, "authentication.required")
	r.wantEffects(0)
}

func TestTokensExpire(t *testing.T) {
	c := newClock()
	r := start(t, sandbox.Config{Now: c.now, TokenLife: time.Hour})
	c.advance(time.Hour - time.Second)
	r.post(executePath, "{}").wantStatus(200)
	c.advance(time.Second)
	r.post(executePath, "{}").wantCode(401, "bad.credentials")
}

func TestIdleTokensExpire(t *testing.T) {
	c := newClock()
	r := start(t, sandbox.Config{Now: c.now, TokenIdle: 15 * time.Minute})
	for range 3 {
		c.advance(14 * time.Minute)
		r.post(executePath, "{}").wantStatus(200)
	}
	c.advance(15 * time.Minute)
	r.post(executePath, "{}").wantCode(401, "bad.credentials")
}

func TestTooManyTokensInvalidateTheOldest(t *testing.T) {
	r := start(t, sandbox.Config{MaxTokens: 2})
	second := r.login("sandbox", "sandbox")
	r.login("sandbox", "sandbox")
	r.post(executePath, "{}").wantCode(401, "bad.credentials")
	r.token = second
	r.post(executePath, "{}").wantStatus(200)
}

func TestRevokedTokensAreRefused(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.control("POST", "/sandbox/tokens/revoke", "")
	r.post(executePath, "{}").wantCode(401, "bad.credentials")
	if !r.lastAttempt().TokenIssued {
		t.Error("a revoked token is no longer known as issued")
	}
}

func TestFault401CanRevoke(t *testing.T) {
	r := start(t, sandbox.Config{})
	other := r.login("sandbox", "sandbox")
	r.post(executePath, "{}", "Sandbox-Fault", "401").wantStatus(401)
	r.post(executePath, "{}").wantStatus(200)
	r.post(executePath, "{}", "Sandbox-Fault", "401=revoke").wantStatus(401)
	r.post(executePath, "{}").wantCode(401, "bad.credentials")
	r.token = other
	r.post(executePath, "{}").wantStatus(200)
}

func TestTokenEndpointModes(t *testing.T) {
	r := start(t, sandbox.Config{})
	const grant = "grant_type=client_credentials"
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
	r.tokenRequest("sandbox", "sandbox", grant).wantStatus(503)
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"rate-limited"}`)
	wantOAuthError(t, r.tokenRequest("sandbox", "sandbox", grant), "invalid_request", "rate limit exceeded;")
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"reject"}`)
	wantOAuthError(t, r.tokenRequest("sandbox", "sandbox", grant), "invalid_client", "authentication failed")
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"empty"}`)
	if res := r.tokenRequest("sandbox", "sandbox", grant).wantStatus(200); res.body != "" {
		t.Errorf("answered %q, want nothing", res.body)
	}
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"down","times":1}`)
	r.tokenRequest("sandbox", "sandbox", grant).wantStatus(503)
	r.login("sandbox", "sandbox")
	sum := r.sandbox.Summary()
	if sum.TokenRequests != 7 || sum.TokensIssued != 2 {
		t.Errorf("%d requests and %d tokens, want 7 and 2", sum.TokenRequests, sum.TokensIssued)
	}
}

func TestTokenEndpointCanHang(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.control("PUT", "/sandbox/token-endpoint", `{"mode":"hang"}`)
	done := make(chan error, 1)
	req, err := http.NewRequest("POST", r.url+"/login/oauth/token", strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := r.send(req)
		done <- err
	}()
	for r.sandbox.Summary().TokenRequests < 2 {
		time.Sleep(time.Millisecond)
	}
	_ = r.sandbox.Close()
	if err := <-done; err == nil {
		t.Error("a hanging token request was answered")
	}
}

func TestRotatedSecretLeavesTokensValid(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.control("PUT", "/sandbox/client", `{"secret":"new"}`)
	r.post(executePath, "{}").wantStatus(200)
	wantOAuthError(t, r.tokenRequest("sandbox", "sandbox", "grant_type=client_credentials"), "invalid_client", "authentication failed")
	r.login("sandbox", "new")
}

func TestRateLimitIsPerTokenAndWindow(t *testing.T) {
	c := newClock()
	r := start(t, sandbox.Config{Now: c.now, RateLimit: 2, RateWindow: 10 * time.Second})
	r.post(executePath, "{}").wantStatus(200)
	c.advance(3 * time.Second)
	r.get("/api/v2/users/me").wantStatus(200)
	res := r.post(executePath, "{}").wantCode(429, "too.many.requests.retry.after")
	if got := res.header.Get("Retry-After"); got != "7" {
		t.Errorf("Retry-After %q, want 7", got)
	}
	if !strings.Contains(res.body, "Retry the request in [7] seconds") {
		t.Errorf("answered %s", res.body)
	}
	old := r.token
	r.token = r.login("sandbox", "sandbox")
	r.post(executePath, "{}").wantStatus(200)
	r.token = old
	c.advance(7 * time.Second)
	r.post(executePath, "{}").wantStatus(200)
	if got := r.sandbox.Summary().OverLimit; got != 1 {
		t.Errorf("%d over the limit, want 1", got)
	}
	r.control("PUT", "/sandbox/limits", `{"requests":0}`)
	for range 3 {
		r.post(executePath, "{}").wantStatus(200)
	}
}
