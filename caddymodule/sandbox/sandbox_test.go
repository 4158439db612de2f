package sandbox_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

const (
	executePath = "/api/v2/integrations/actions/custom_-_1234/execute"
	invokePath  = "/api/v2/dataactions/actions/custom_-_1234/invoke"
	invokeBody  = `{"input":{"order":7}}`
)

// rig is a sandbox behind a loopback server, and a caller with a token.
type rig struct {
	*testing.T
	sandbox *sandbox.Sandbox
	url     string
	client  *http.Client
	token   string
}

func start(t *testing.T, cfg sandbox.Config) *rig {
	t.Helper()
	s, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = s.Server()
	srv.Start()
	t.Cleanup(func() {
		// The sandbox first: the server waits for what hangs.
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	r := &rig{T: t, sandbox: s, url: srv.URL, client: srv.Client()}
	r.token = r.login("sandbox", "sandbox")
	return r
}

func (r *rig) login(id, secret string) string {
	r.Helper()
	res := r.tokenRequest(id, secret, "grant_type=client_credentials")
	var body struct {
		AccessToken string `json:"access_token"`
	}
	res.decode(&body)
	if res.status != 200 || body.AccessToken == "" {
		r.Fatalf("login answered %d %s", res.status, res.body)
	}
	return body.AccessToken
}

func (r *rig) tokenRequest(id, secret, form string) answer {
	r.Helper()
	req, err := http.NewRequestWithContext(r.Context(), "POST", r.url+"/oauth/token", strings.NewReader(form))
	if err != nil {
		r.Fatal(err)
	}
	req.SetBasicAuth(id, secret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r.must(r.send(req))
}

// request builds a request; headers are pairs, an empty value removes one.
func (r *rig) request(method, path, body string, headers ...string) *http.Request {
	r.Helper()
	// The standard library resends a keyed request on its own if it can read
	// the body twice; hiding the reader's type prevents that.
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, io.NopCloser(strings.NewReader(body)))
	if err != nil {
		r.Fatal(err)
	}
	req.ContentLength = int64(len(body))
	req.Header.Set("Authorization", "Bearer "+r.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

type answer struct {
	t      *testing.T
	status int
	header http.Header
	body   string
}

// send returns an error also for an answer that was cut.
func (r *rig) send(req *http.Request) (answer, error) {
	res, err := r.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{r.T, res.StatusCode, res.Header, string(body)}, err
}

func (r *rig) must(a answer, err error) answer {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
	return a
}

func (r *rig) post(path, body string, headers ...string) answer {
	r.Helper()
	return r.must(r.send(r.request("POST", path, body, headers...)))
}

func (r *rig) get(path string, headers ...string) answer {
	r.Helper()
	return r.must(r.send(r.request("GET", path, "", headers...)))
}

// control works without a token, as controls do.
func (r *rig) control(method, path, body string) answer {
	r.Helper()
	res := r.must(r.send(r.request(method, path, body, "Authorization", "")))
	if res.status != 200 {
		r.Fatalf("%s %s answered %d %s", method, path, res.status, res.body)
	}
	return res
}

// postBroken wants the exchange to end without a whole answer.
func (r *rig) postBroken(path, body string, headers ...string) {
	r.Helper()
	if res, err := r.send(r.request("POST", path, body, headers...)); err == nil {
		r.Fatalf("answered %d %s, want a broken connection", res.status, res.body)
	}
}

func (r *rig) wantEffects(n int) {
	r.Helper()
	if got := r.sandbox.Summary().Effects; got != n {
		r.Errorf("%d effects, want %d", got, n)
	}
}

func (r *rig) lastAttempt() sandbox.Attempt {
	r.Helper()
	attempts := r.sandbox.Ledger(sandbox.Filter{}).Attempts
	if len(attempts) == 0 {
		r.Fatal("no attempts in the ledger")
	}
	return attempts[len(attempts)-1]
}

// awaitAttempts returns once n attempts arrived.
func (r *rig) awaitAttempts(n int) {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); r.sandbox.Summary().Attempts < n; {
		if time.Now().After(deadline) {
			r.Fatalf("no %d attempts in 10s", n)
		}
		time.Sleep(time.Millisecond)
	}
}

// awaitOutcome returns once the last attempt has the outcome.
func (r *rig) awaitOutcome(want sandbox.Outcome) {
	r.Helper()
	r.awaitAttempts(1)
	for deadline := time.Now().Add(10 * time.Second); r.lastAttempt().Outcome != want; {
		if time.Now().After(deadline) {
			r.Fatalf("outcome %s after 10s, want %s", r.lastAttempt().Outcome, want)
		}
		time.Sleep(time.Millisecond)
	}
}

func (a answer) decode(v any) {
	a.t.Helper()
	if err := json.Unmarshal([]byte(a.body), v); err != nil {
		a.t.Fatalf("decoding %q: %v", a.body, err)
	}
}

func (a answer) wantStatus(status int) answer {
	a.t.Helper()
	if a.status != status {
		a.t.Fatalf("status %d %s, want %d", a.status, a.body, status)
	}
	return a
}

func (a answer) wantCode(status int, code string) answer {
	a.t.Helper()
	var body struct {
		Code      string
		Status    int
		ContextID string `json:"contextId"`
		Details   []any
		Errors    []any
	}
	a.wantStatus(status).decode(&body)
	if body.Code != code || body.Status != status {
		a.t.Errorf("error %s, want code %q and status %d", a.body, code, status)
	}
	if body.ContextID == "" || body.ContextID != a.header.Get("ININ-Correlation-Id") {
		a.t.Errorf("contextId %q, ININ-Correlation-Id %q: want the same", body.ContextID, a.header.Get("ININ-Correlation-Id"))
	}
	if body.Details == nil || body.Errors == nil {
		a.t.Errorf("error %s, want lists of details and errors", a.body)
	}
	return a
}

func (a answer) executionID() string {
	a.t.Helper()
	var body struct {
		ExecutionID string `json:"executionId"`
	}
	a.wantStatus(200).decode(&body)
	if body.ExecutionID == "" {
		a.t.Fatalf("answer %s has no executionId", a.body)
	}
	return body.ExecutionID
}

// clock is a clock to be turned by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestConfigRejectsUnknownFault(t *testing.T) {
	_, err := sandbox.New(sandbox.Config{Faults: map[string]float64{"explode": 0.5}})
	if err == nil || !strings.Contains(err.Error(), "execute-then-drop") {
		t.Errorf("error %v, want one that lists the known faults", err)
	}
}

func TestConfigRejectsNegativeDurations(t *testing.T) {
	if _, err := sandbox.New(sandbox.Config{Latency: -1}); err == nil {
		t.Error("a negative latency was accepted")
	}
}

func TestUnknownPathsAreNotFound(t *testing.T) {
	r := start(t, sandbox.Config{})
	for _, path := range []string{"/", "/api/v2/nothing", "/sandbox/nothing", "/api/v2/integrations/actions/a/invoke"} {
		r.get(path).wantCode(404, "not.found")
	}
}

func TestEveryAnswerHasItsOwnCorrelationID(t *testing.T) {
	r := start(t, sandbox.Config{})
	first, second := r.get("/api/v2/users/me").wantStatus(200), r.get("/api/v2/users/me")
	a, b := first.header.Get("ININ-Correlation-Id"), second.header.Get("ININ-Correlation-Id")
	if len(a) != 36 || a == b {
		t.Errorf("correlation ids %q and %q, want two UUIDs", a, b)
	}
	if got := first.header.Get("Cache-Control"); got != "no-cache, no-store, must-revalidate" {
		t.Errorf("Cache-Control %q", got)
	}
}

func TestStreamHasTheAskedSize(t *testing.T) {
	r := start(t, sandbox.Config{})
	if got := len(r.get("/api/v2/sandbox/stream?bytes=3MiB").wantStatus(200).body); got != 3<<20 {
		t.Errorf("%d bytes, want 3 MiB", got)
	}
	r.get("/api/v2/sandbox/stream?bytes=-1").wantCode(400, "invalid.value")
}

func TestStreamCanBeTruncated(t *testing.T) {
	r := start(t, sandbox.Config{})
	res, err := r.send(r.request("GET", "/api/v2/sandbox/stream?bytes=1MiB", "", "Sandbox-Fault", "truncate"))
	if err == nil || len(res.body) != 1<<19 {
		t.Errorf("%d bytes and error %v, want half the stream and an error", len(res.body), err)
	}
}

func TestCloseEndsWhatHangs(t *testing.T) {
	r := start(t, sandbox.Config{})
	done := make(chan error, 1)
	req := r.request("POST", executePath, "{}", "Sandbox-Fault", "hang-before")
	go func() {
		_, err := r.send(req)
		done <- err
	}()
	r.awaitAttempts(1)
	if err := r.sandbox.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a hanging request was answered")
	}
	r.wantEffects(0)
}

func TestClosedSandboxExecutesNothing(t *testing.T) {
	r := start(t, sandbox.Config{})
	if err := r.sandbox.Close(); err != nil {
		t.Fatal(err)
	}
	r.postBroken(executePath, "{}")
	r.wantEffects(0)
}

func TestConcurrentRequestsAreCountedOnceEach(t *testing.T) {
	r := start(t, sandbox.Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				res, err := r.send(r.request("POST", executePath, "{}"))
				if err != nil || res.status != 200 {
					t.Errorf("answered %d, %v", res.status, err)
				}
				r.sandbox.Ledger(sandbox.Filter{})
			}
		})
	}
	wg.Wait()
	r.wantEffects(160)
	ids := make(map[string]bool)
	for _, e := range r.sandbox.Ledger(sandbox.Filter{}).Effects {
		ids[e.ID] = true
	}
	if len(ids) != 160 {
		t.Errorf("%d different effects, want 160", len(ids))
	}
}
