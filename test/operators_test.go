package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// call is what the admin API tells of a call, as far as tests ask.
type call struct {
	ID, Digest, State, Action, Scope, Key, Organization string
	Keyless, Honored, Resolvable                        bool
	Answer                                              *struct {
		Status int
		Body   string
	}
	Attempts []struct {
		Written       bool
		Status        int
		CorrelationID string `json:"correlation_id"`
		Verdict       string
		Error         string
		Waited, Paced float64
	}
	Words []struct{ Outcome, Note string }
}

// ask sends a request to the admin endpoint and decodes what it answers into v.
func (s *sidecar) ask(t *testing.T, method, path, body string, v any) (status int) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+s.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", method, path, err, s.log(t))
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if v != nil {
		if err := json.NewDecoder(bytes.NewReader(raw)).Decode(v); err != nil {
			t.Fatalf("%s %s: %s: %v\n%s", method, path, resp.Status, err, raw)
		}
	}
	return resp.StatusCode
}

// calls lists calls by a query.
func (s *sidecar) calls(t *testing.T, query string) []call {
	t.Helper()
	var page struct {
		Calls []call
		Next  string
		Error string
	}
	if status := s.ask(t, "GET", "/genesys/calls?"+query, "", &page); status != http.StatusOK {
		t.Fatalf("listing %s: %d %s", query, status, page.Error)
	}
	return page.Calls
}

// theCall returns the only call in a state.
func (s *sidecar) theCall(t *testing.T, state string) call {
	t.Helper()
	calls := s.calls(t, "state="+state)
	if len(calls) != 1 {
		t.Fatalf("there are %d calls that are %s: %+v", len(calls), state, calls)
	}
	return calls[0]
}

// stores are those that keep calls beyond the process, and one that does not.
var stores = map[string]options{"disk": {}, "memory": {global: "store memory"}}

// withStores runs test with a sidecar on each store, Redis included.
func withStores(t *testing.T, o options, test func(t *testing.T, p *platform, s *sidecar)) {
	t.Helper()
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			with := o
			with.global += "\n" + store.global
			test(t, p, newSidecar(t, p, with))
		})
	}
	t.Run("redis", func(t *testing.T) {
		p := newPlatform(t, sandbox.Config{})
		with := o
		with.global += "\nstore redis " + newRedis(t).URL()
		test(t, p, newSidecar(t, p, with))
	})
}

func lost(key string) request {
	return request{path: execute, body: `{"order":17}`, header: []string{"Idempotency-Key", key, "Sandbox-Fault", "execute-then-drop"}}
}

func ordered(key string) request {
	return request{path: execute, body: `{"order":17}`, header: []string{"Idempotency-Key", key}}
}

func TestAnUnknownOutcomeIsResolvedAsExecutedAndReplayed(t *testing.T) {
	withStores(t, options{}, func(t *testing.T, p *platform, s *sidecar) {
		s.send(t, lost("order-17"))
		c := s.theCall(t, "unknown")
		if !c.Resolvable || len(c.Attempts) != 1 || !c.Attempts[0].Written || c.Attempts[0].Verdict != "unknown" || c.Attempts[0].Error == "" {
			t.Errorf("the call is %+v", c)
		}
		var resolved call
		status := s.ask(t, "POST", "/genesys/calls/"+c.ID+"/resolve",
			`{"outcome":"executed","answer":{"status":201,"header":{"X-Ticket":"T-9"},"body":{"ticket":"T-9"}},"note":"seen in the ERP"}`, &resolved)
		if status != http.StatusOK || resolved.State != "done" || len(resolved.Words) != 1 || resolved.Words[0].Note != "seen in the ERP" {
			t.Fatalf("resolving: %d %+v", status, resolved)
		}
		for range 2 {
			a := s.send(t, ordered("order-17"))
			if a.status != 201 || a.body != `{"ticket":"T-9"}` || a.header.Get("X-Ticket") != "T-9" || !a.replayed() ||
				a.header.Get("Content-Type") != "application/json" {
				t.Errorf("the repeat got %d %v %s", a.status, a.header, a.body)
			}
		}
		p.wantEffects(t, 1)
		if status := s.ask(t, "POST", "/genesys/calls/"+c.ID+"/resolve", `{"outcome":"not_executed"}`, nil); status != http.StatusConflict {
			t.Errorf("resolving it again: %d", status)
		}
	})
}

func TestAnUnknownOutcomeIsResolvedAsNotExecutedAndRunsAgain(t *testing.T) {
	withStores(t, options{}, func(t *testing.T, p *platform, s *sidecar) {
		s.send(t, lost("order-17"))
		p.wantEffects(t, 1)
		c := s.theCall(t, "unknown")
		if status := s.ask(t, "POST", "/genesys/calls/"+c.Digest+"/resolve", `{"outcome":"not_executed","note":"not in the ERP"}`, nil); status != http.StatusOK {
			t.Fatalf("resolving: %d", status)
		}
		if got := s.theCall(t, "released"); got.ID != c.ID || got.Words[0].Note != "not in the ERP" {
			t.Errorf("it is on record as %+v", got)
		}
		if a := s.send(t, ordered("order-17")); a.status != 200 || a.replayed() {
			t.Errorf("the repeat got %d %v", a.status, a.header)
		}
		p.wantEffects(t, 2)
		var again call
		s.ask(t, "GET", "/genesys/calls/"+c.ID, "", &again)
		if again.State != "done" || len(again.Words) != 1 || len(again.Attempts) != 2 || again.Key != "order-17" {
			t.Errorf("it is on record as %+v", again)
		}
		s.send(t, ordered("order-17"))
		p.wantEffects(t, 2)
	})
}

func TestWhatACrashLeftIsListedAsUnknownAndResolved(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	r := ordered("order-17")
	r.header = append(r.header, "Sandbox-Fault", "slow=1h; times=1")
	s.crashDuring(t, r)
	c := s.theCall(t, "unknown")
	if calls := s.calls(t, "state=started"); len(calls) != 0 {
		t.Errorf("it is also said to run: %+v", calls)
	}
	// It was sent, though nothing on record says so.
	if list := s.cli(t, "calls", "list", "--state", "unknown"); !regexp.MustCompile(`\sunknown\s.*\s\?\s`).MatchString(list.out) {
		t.Errorf("it is listed as:\n%s", list.out)
	}
	if show := s.cli(t, "calls", "show", c.Digest); !strings.Contains(show.out, "It may have been sent.") {
		t.Errorf("it is shown as:\n%s", show.out)
	}
	if status := s.ask(t, "POST", "/genesys/calls/"+c.ID+"/resolve", `{"outcome":"executed"}`, nil); status != http.StatusOK {
		t.Fatalf("resolving: %d", status)
	}
	before := p.Summary().Effects
	if a := s.send(t, ordered("order-17")); a.status != http.StatusConflict || !strings.Contains(a.body, "result-unavailable") {
		t.Errorf("the repeat got %d %s", a.status, a.body)
	}
	p.wantEffects(t, before)
}

func TestACallThatRunsIsNeitherResolvedNorForgotten(t *testing.T) {
	t.Parallel()
	withStores(t, options{}, func(t *testing.T, p *platform, s *sidecar) {
		r := ordered("order-17")
		r.header = append(r.header, "Sandbox-Fault", "slow=6s; times=1")
		answered := s.begin(t, r)
		waitFor(t, func() bool { return len(s.calls(t, "state=started")) == 1 })
		c := s.theCall(t, "started")
		if status := s.ask(t, "DELETE", "/genesys/calls/"+c.ID, "", nil); status != http.StatusConflict {
			t.Errorf("forgetting it: %d", status)
		}
		if status := s.ask(t, "POST", "/genesys/calls/"+c.ID+"/resolve", `{"outcome":"not_executed"}`, nil); status != http.StatusConflict {
			t.Errorf("resolving it: %d", status)
		}
		if a := answered(); a.status != 200 {
			t.Errorf("its caller got %d", a.status)
		}
		p.wantEffects(t, 1)
	})
}

func TestAForgottenCallRunsAgainOnEachStore(t *testing.T) {
	withStores(t, options{}, func(t *testing.T, p *platform, s *sidecar) {
		s.send(t, ordered("order-17"))
		s.send(t, ordered("order-17")) // it is in memory, too
		c := s.theCall(t, "done")
		if status := s.ask(t, "DELETE", "/genesys/calls/"+c.ID, "", nil); status != http.StatusNoContent {
			t.Fatalf("forgetting: %d", status)
		}
		if status := s.ask(t, "GET", "/genesys/calls/"+c.ID, "", nil); status != http.StatusNotFound {
			t.Errorf("asking for it: %d", status)
		}
		s.send(t, ordered("order-17"))
		p.wantEffects(t, 2)
	})
}

func TestAScopeIsErasedAndStillRunsNothingTwice(t *testing.T) {
	o := options{block: "scope {http.request.header.X-User}"}
	withStores(t, o, func(t *testing.T, p *platform, s *sidecar) {
		as := func(user string) request {
			r := ordered("order-17")
			r.header = append(r.header, "X-User", user)
			return r
		}
		s.send(t, as("alice"))
		s.send(t, as("bob"))
		var erased struct{ Erased, Running int }
		if status := s.ask(t, "DELETE", "/genesys/calls?scope=alice", "", &erased); status != http.StatusOK || erased.Erased != 1 {
			t.Fatalf("erasing: %d %+v", status, erased)
		}
		if a := s.send(t, as("alice")); a.status != http.StatusConflict || strings.Contains(a.body, "executionId") {
			t.Errorf("alice's repeat got %d %s", a.status, a.body)
		}
		if a := s.send(t, as("bob")); a.status != 200 || !a.replayed() {
			t.Errorf("bob's repeat got %d %v", a.status, a.header)
		}
		p.wantEffects(t, 2)
		if status := s.ask(t, "DELETE", "/genesys/calls", "", nil); status != http.StatusBadRequest {
			t.Errorf("erasing nobody's: %d", status)
		}
	})
}

func TestAListingHasPages(t *testing.T) {
	withStores(t, options{}, func(t *testing.T, _ *platform, s *sidecar) {
		for i := range 7 {
			s.send(t, ordered(fmt.Sprintf("order-%d", i)))
		}
		seen := make(map[string]bool)
		query := "limit=3"
		for pages := 0; ; pages++ {
			var page struct {
				Calls []call
				Next  string
			}
			s.ask(t, "GET", "/genesys/calls?"+query, "", &page)
			for _, c := range page.Calls {
				if seen[c.ID] {
					t.Errorf("%s is on two pages", c.Digest)
				}
				seen[c.ID] = true
			}
			if page.Next == "" {
				break
			}
			if pages > 10 {
				t.Fatal("there is no end")
			}
			query = "limit=3&cursor=" + page.Next
		}
		if len(seen) != 7 {
			t.Errorf("%d calls are listed, want 7", len(seen))
		}
	})
}

func TestBadInputToTheAdminAPIIsExplained(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	id := strings.Repeat("0", 64)
	for _, c := range []struct {
		method, path, body string
		status             int
		say                string
	}{
		{"GET", "/genesys/calls?state=lost", "", 400, "there is no state"},
		{"GET", "/genesys/calls?limit=0", "", 400, "limit"},
		{"GET", "/genesys/calls?cursor=x", "", 400, "cursor"},
		{"GET", "/genesys/calls?since=yesterday", "", 400, "since"},
		{"GET", "/genesys/calls?page=2", "", 400, "there is no parameter"},
		{"GET", "/genesys/calls?organization=acme", "", 400, "acme"},
		{"GET", "/genesys/calls/xyz", "", 400, "id"},
		{"GET", "/genesys/calls/" + id, "", 404, "no such call"},
		{"DELETE", "/genesys/calls/" + id, "", 404, "no such call"},
		{"PUT", "/genesys/calls/" + id, "", 405, "method"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"executed"}`, 404, "no such call"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"maybe"}`, 400, "outcome"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"executed","anwser":{}}`, 400, "anwser"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"not_executed","answer":{}}`, 400, "answer"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"executed","answer":{"status":99}}`, 400, "status"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{`, 400, "resolution"},
		{"POST", "/genesys/calls/" + id + "/resolve", `{"outcome":"executed","outcome":"not_executed"}`, 400, "duplicate"},
		{"POST", "/genesys/calls/" + id + "/resolve", "", 415, "JSON"},
		{"GET", "/genesys/nothing", "", 404, "nothing"},
	} {
		var said struct{ Error string }
		status := s.ask(t, c.method, c.path, c.body, &said)
		if status != c.status || !strings.Contains(said.Error, c.say) {
			t.Errorf("%s %s %s: %d %q; want %d and %q", c.method, c.path, c.body, status, said.Error, c.status, c.say)
		}
	}
}

func TestProbesTellWhetherACallWouldBeTaken(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{site: "genesys_probes"})
	for _, get := range []func(path string) int{
		func(path string) int { return s.ask(t, "GET", path, "", nil) },
		func(path string) int { return s.send(t, request{method: "GET", path: path}).status },
	} {
		if status := get("/genesys/health"); status != 200 {
			t.Errorf("health: %d", status)
		}
		if status := get("/genesys/ready"); status != 200 {
			t.Errorf("ready: %d", status)
		}
	}
	if a := s.send(t, request{method: "GET", path: "/genesys/calls"}); strings.Contains(a.body, `"calls"`) {
		t.Errorf("the probes' handler tells calls: %s", a.body)
	}

	q := newPlatform(t, sandbox.Config{})
	q.control(t, "PUT", "/sandbox/client", `{"secret": "another"}`)
	s = newSidecar(t, q, options{})
	var ready struct{ Reasons []string }
	if status := s.ask(t, "GET", "/genesys/ready", "", &ready); status != 503 || len(ready.Reasons) != 1 || !strings.Contains(ready.Reasons[0], "token") {
		t.Errorf("without a token: %d %q", status, ready.Reasons)
	}
	if status := s.ask(t, "GET", "/genesys/health", "", nil); status != 200 {
		t.Errorf("without a token: health %d", status)
	}
}

func TestTheHandlerRefusesWhatAPageOfAnotherSiteSends(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{site: "genesys_admin {\n hosts ops.example \n}"})
	s.send(t, lost("order-17"))
	c := s.theCall(t, "unknown")
	resolve := func(host string, header ...string) int {
		req, err := http.NewRequest("POST", "http://"+s.address+"/genesys/calls/"+c.ID+"/resolve", strings.NewReader(`{"outcome":"not_executed"}`))
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := s.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	for what, status := range map[string]int{
		"another origin":     resolve("", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"),
		"a name of its own":  resolve("evil.example"),
		"text instead":       resolve("", "Content-Type", "text/plain"),
		"an old browser's":   resolve("", "Origin", "https://evil.example"),
		"a name of its own2": resolve("evil.example:80", "Origin", "http://evil.example:80", "Sec-Fetch-Site", "same-origin"),
	} {
		if status != http.StatusForbidden && status != http.StatusUnsupportedMediaType {
			t.Errorf("%s: %d", what, status)
		}
	}
	s.theCall(t, "unknown")
	if status := resolve("ops.example", "Origin", "http://ops.example", "Sec-Fetch-Site", "same-origin"); status != http.StatusOK {
		t.Errorf("its own page: %d", status)
	}
}

func TestEachFinishedCallIsALineInTheLog(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, ordered("order-17"))
	s.send(t, ordered("order-17"))
	s.send(t, lost("order-18"))
	s.send(t, request{path: execute, body: `{"other":1}`, header: []string{"Idempotency-Key", "order-17"}})
	waitFor(t, func() bool { return len(callLines(t, s.logFile())) == 4 })
	lines := callLines(t, s.logFile())
	for i, want := range []struct {
		outcome, problem string
		status, attempts float64
	}{
		{"executed", "", 200, 1}, {"replayed", "", 200, 1}, {"unknown", "", 502, 1}, {"rejected", "key-reused", 422, 0},
	} {
		l := lines[i]
		if l["outcome"] != want.outcome || l["status"] != want.status || l["attempts"] != want.attempts || want.problem != "" && l["problem"] != want.problem {
			t.Errorf("line %d is %v", i+1, l)
		}
		if l["action"] == "" || l["call"] == nil || l["duration"] == nil {
			t.Errorf("line %d is %v", i+1, l)
		}
	}
	if ids, ok := lines[0]["correlation_ids"].([]any); !ok || len(ids) != 1 {
		t.Errorf("the first has correlation ids %v", lines[0]["correlation_ids"])
	}
	if c := s.theCall(t, "unknown"); c.Digest != lines[2]["call"] {
		t.Errorf("the log has the call as %v, the API as %s", lines[2]["call"], c.Digest)
	}
	if strings.Contains(s.log(t), "order-17") {
		t.Error("the log has a key")
	}
}

// callLines returns the lines in the file of the logger genesys.calls.
func callLines(t *testing.T, file string) (lines []map[string]any) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		t.Fatal(err)
	}
	for text := range strings.Lines(string(raw)) {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil && line["logger"] == "genesys.calls" {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestTheLogOfCallsGoesWhereCaddysOptionsHaveItAcrossReloads(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	own := s.dir + "/calls.log"
	s.rewrite(t, "\tlog {", "\tlog calls {\n\t\toutput file "+own+"\n\t\tinclude genesys.calls\n\t}\n\tlog {\n\t\texclude genesys.calls")
	s.reload(t)
	s.send(t, ordered("order-17"))
	s.reload(t)
	s.send(t, ordered("order-17"))
	waitFor(t, func() bool { return len(callLines(t, own)) == 2 })
	if lines := callLines(t, s.logFile()); len(lines) != 0 {
		t.Errorf("the default log has %v", lines)
	}
}

func TestMetricsCountOnAcrossReloads(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, ordered("order-17"))
	s.send(t, ordered("order-17"))
	s.reload(t)
	s.send(t, ordered("order-17"))
	s.send(t, lost("order-18"))
	for metric, want := range map[string]string{
		`genesys_calls_total{outcome="executed",problem=""}`:    "1",
		`genesys_calls_total{outcome="replayed",problem=""}`:    "2",
		`genesys_calls_total{outcome="unknown",problem=""}`:     "1",
		`genesys_attempts_total{verdict="final"}`:               "1",
		`genesys_duplicates_suppressed_total`:                   "2",
		`genesys_token_refreshes_total{organization="default"}`: "1",
		`genesys_store_up`: "1",
		`genesys_store_duration_seconds_count{operation="finish"}`:     "2",
		`genesys_call_duration_seconds_count{outcome="replayed"}`:      "2",
		`genesys_upstream_duration_seconds_count{verdict="final"}`:     "1",
		`genesys_calls_total{outcome="rejected",problem="key-reused"}`: "0",
		`genesys_unresolved_calls{state="unknown"}`:                    "1",
	} {
		waitFor(t, func() bool { return s.metric(t, metric) == want })
	}
}

// metric returns the value of a metric, as Caddy tells it.
func (s *sidecar) metric(t *testing.T, name string) string {
	t.Helper()
	resp, err := http.Get("http://" + s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// newAlarms returns the URL of somebody who takes events, and what they are told.
func newAlarms(t *testing.T) (url string, told chan map[string]any) {
	told = make(chan map[string]any, 16)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e map[string]any
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			t.Error(err)
		}
		told <- e
	}))
	t.Cleanup(server.Close)
	return server.URL, told
}

func TestEventsReachTheirSubscribers(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	alarms, told := newAlarms(t)
	wantEvent := func(name string) map[string]any {
		t.Helper()
		select {
		case e := <-told:
			if e["event"] != name {
				t.Fatalf("told %v, want %s", e, name)
			}
			return e["data"].(map[string]any)
		case <-time.After(time.Minute):
			t.Fatalf("no event %s", name)
		}
		return nil
	}
	server := newRedis(t)
	s := newSidecar(t, p, options{global: "store redis " + server.URL()})
	s.rewrite(t, "\tlog {", "\tevents {\n"+
		"\t\ton unknown_outcome genesys_webhook "+alarms+"\n"+
		"\t\ton token_failing genesys_webhook "+alarms+"\n"+
		"\t\ton store_unavailable genesys_webhook "+alarms+"\n\t}\n\tlog {")
	s.reload(t)

	s.send(t, lost("order-17"))
	data := wantEvent("unknown_outcome")
	if c := s.theCall(t, "unknown"); data["call"] != c.ID || data["digest"] != c.Digest || data["action"] != c.Action || data["state"] != "unknown" {
		t.Errorf("told %v of %+v", data, c)
	}

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.send(t, ordered("order-18"))
	}
	if data := wantEvent("store_unavailable"); data["store"] != "redis" || data["error"] == "" {
		t.Errorf("told %v", data)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}

	p.control(t, "PUT", "/sandbox/client", `{"secret": "another"}`)
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	waitFor(t, func() bool { return s.send(t, ordered("order-19")).status != http.StatusServiceUnavailable })
	if data := wantEvent("token_failing"); data["rejected"] != true {
		t.Errorf("told %v", data)
	}
	select {
	case e := <-told:
		t.Errorf("told %v as well", e)
	default:
	}
}

func TestWhatACrashLeftIsAnEvent(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	alarms, told := newAlarms(t)
	s := newSidecar(t, p, options{})
	s.rewrite(t, "\tlog {", "\tevents {\n\t\ton unknown_outcome genesys_webhook "+alarms+"\n\t}\n\tlog {")
	r := ordered("order-17")
	r.header = append(r.header, "Sandbox-Fault", "slow=1h; times=1")
	s.crashDuring(t, r)
	select {
	case e := <-told:
		if data := e["data"].(map[string]any); data["call"] != s.theCall(t, "unknown").ID || data["state"] != "unknown" {
			t.Errorf("told %v", e)
		}
	case <-time.After(time.Minute):
		t.Fatal("no event")
	}
}

// rewrite replaces text in the sidecar's Caddyfile.
func (s *sidecar) rewrite(t *testing.T, old, text string) {
	t.Helper()
	config, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(config), old) {
		t.Fatalf("%q is not in %s", old, config)
	}
	if err := os.WriteFile(s.config(), []byte(strings.Replace(string(config), old, text, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWhatWasErasedIsInNoFileOfADiskStore(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "scope {http.request.header.X-User}"})
	for _, user := range []string{"alice", "bob"} {
		s.send(t, request{path: execute, body: `{"iban":"of-` + user + `"}`, header: []string{"Idempotency-Key", "key-of-" + user, "X-User", user}})
	}
	files := func(text string) (n int) {
		t.Helper()
		for _, name := range s.stored(t, "*") {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(raw, []byte(text)) {
				n++
			}
		}
		return n
	}
	if files("of-alice") == 0 {
		t.Fatal("what alice said is not in the store")
	}
	if status := s.ask(t, "DELETE", "/genesys/calls?scope=alice", "", nil); status != http.StatusOK {
		t.Fatalf("erasing: %d", status)
	}
	if n := files("of-alice"); n != 0 {
		t.Errorf("what alice said is still in %d files", n)
	}
	if files("of-bob") == 0 {
		t.Error("what bob said is gone as well")
	}
}
