package sandbox_test

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestParseFaultReadsNameAndProbability(t *testing.T) {
	for in, want := range map[string]string{
		"execute-then-drop=0.1": "execute-then-drop",
		"slow=2s=1":             "slow=2s",
		"507-after=0":           "507-after",
	} {
		if name, p, err := sandbox.ParseFault(in); name != want || err != nil {
			t.Errorf("ParseFault(%q) = %q, %v, %v; want %q", in, name, p, err, want)
		}
	}
	if _, p, _ := sandbox.ParseFault("truncate=0.25"); p != 0.25 {
		t.Errorf("probability %v, want 0.25", p)
	}
}

func TestParseFaultErrorsSayWhatIsWrong(t *testing.T) {
	for in, want := range map[string]string{
		"":               "known are",
		"explode":        "known are",
		"explode=0.1":    "execute-then-drop",
		"truncate":       "truncate=0.1",
		"truncate=2":     `"2" is no probability`,
		"truncate=NaN":   `"NaN" is no probability`,
		"truncate=x=0.1": "takes no argument",
		"slow=x=0.1":     "invalid duration",
		"slow=-1s=0.1":   "negative",
		"fail=200=0.1":   "no status from 400 to 599",
		"399=0.1":        "known are",
		"500-=0.1":       "known are",
		"500-later=0.1":  "known are",
		"large=1TB=0.1":  "no number of bytes",
		"429=x=0.1":      "no number of seconds",
		"401=x=0.1":      "revoke",
	} {
		if _, _, err := sandbox.ParseFault(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFault(%q): %v, want an error with %q", in, err, want)
		}
	}
}

func TestEveryFaultOfTheTableIsKnown(t *testing.T) {
	for _, info := range sandbox.FaultTable() {
		name := strings.ReplaceAll(info.Name, "<status>", "418")
		if _, _, err := sandbox.ParseFault(name + "=0.5"); err != nil {
			t.Error(err)
		}
		if info.Effect == "" {
			t.Errorf("%s has no description", info.Name)
		}
	}
}

func TestFaultsWithAStatus(t *testing.T) {
	for fault, want := range map[string]struct {
		status  int
		code    string
		effects int
	}{
		"500-before":      {500, "internal.server.error", 0},
		"500-after":       {500, "internal.server.error", 1},
		"502-before":      {502, "bad.gateway", 0},
		"502-after":       {502, "bad.gateway", 1},
		"503":             {503, "service.unavailable", 0},
		"503-after":       {503, "service.unavailable", 1},
		"504-after":       {504, "request.timeout", 1},
		"507-before":      {507, "insufficient.storage", 0},
		"503-retry-after": {503, "service.unavailable", 0},
		"400-contract":    {400, "invalid.schema", 0},
		"401":             {401, "bad.credentials", 0},
		"403":             {403, "not.authorized", 0},
		"404":             {404, "not.found", 0},
		"409":             {409, "conflict", 0},
		"429":             {429, "too.many.requests.retry.after", 0},
		"429-date":        {429, "too.many.requests.retry.after", 0},
		"fail":            {500, "internal.server.error", 0},
		"fail=404":        {404, "not.found", 0},
	} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, sandbox.Config{})
			r.post(executePath, "{}", "Sandbox-Fault", fault).wantCode(want.status, want.code)
			r.wantEffects(want.effects)
			if a := r.lastAttempt(); a.Fault != fault || a.Status != want.status || a.Code != want.code || a.Executed != (want.effects > 0) {
				t.Errorf("attempt %+v", a)
			}
		})
	}
}

func TestRemoteFailuresExecuteAndHaveNoPlatformCode(t *testing.T) {
	for fault, status := range map[string]int{
		"400-remote": 400, "401-remote": 401, "422-remote": 422, "500-remote": 500,
		"429-bare": 429, "404-after": 404,
	} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, sandbox.Config{})
			res := r.post(executePath, "{}", "Sandbox-Fault", fault).wantStatus(status)
			if strings.Contains(res.body, `"code"`) || res.header.Get("Retry-After") != "" {
				t.Errorf("answered %s, Retry-After %q", res.body, res.header.Get("Retry-After"))
			}
			r.wantEffects(1)
		})
	}
}

func TestRetryAfterComesInBothForms(t *testing.T) {
	r := start(t, sandbox.Config{})
	for _, fault := range []string{"429=7", "503-retry-after=7"} {
		if got := r.post(executePath, "{}", "Sandbox-Fault", fault).header.Get("Retry-After"); got != "7" {
			t.Errorf("%s: Retry-After %q, want 7", fault, got)
		}
	}
	before := time.Now()
	got := r.post(executePath, "{}", "Sandbox-Fault", "429-date=7").header.Get("Retry-After")
	at, err := http.ParseTime(got)
	if err != nil || at.Before(before.Add(7*time.Second)) {
		t.Errorf("Retry-After %q (%v), want a date at least 7s ahead", got, err)
	}
}

func TestDroppedConnectionsCarryNoByte(t *testing.T) {
	for fault, effects := range map[string]int{"drop-before": 0, "execute-then-drop": 1, "hang-before=1ms": 0} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, sandbox.Config{})
			r.postBroken(executePath, "{}", "Sandbox-Fault", fault)
			r.wantEffects(effects)
			if a := r.lastAttempt(); a.Outcome != sandbox.OutcomeDropped || a.Status != 0 {
				t.Errorf("attempt %+v, want it dropped without status", a)
			}
		})
	}
}

func TestTruncatedAnswerHasWholeLengthAndHalfTheBody(t *testing.T) {
	r := start(t, sandbox.Config{})
	req := r.request("POST", executePath, "{}", "Sandbox-Fault", "truncate, large=100KiB")
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if res.ContentLength != 100<<10 || len(body) != 50<<10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d of %d bytes, error %v", len(body), res.ContentLength, err)
	}
	r.wantEffects(1)
	if got := r.lastAttempt().Outcome; got != sandbox.OutcomeTruncated {
		t.Errorf("outcome %s, want truncated", got)
	}
}

func TestTimesUsesAFaultUpPerCall(t *testing.T) {
	r := start(t, sandbox.Config{})
	const fault = "503; times=1, 504-after; times=1"
	for i, want := range []int{503, 504, 200, 200} {
		if got := r.post(executePath, "{}", "Sandbox-Fault", fault, "Sandbox-Call", "one").status; got != want {
			t.Errorf("arrival %d answered %d, want %d", i+1, got, want)
		}
	}
	r.post(executePath, "{}", "Sandbox-Fault", fault, "Sandbox-Call", "two").wantStatus(503)
	r.post(executePath, "{}", "Sandbox-Fault", fault, "Idempotency-Key", "k").wantStatus(503)
	r.post(executePath, "{}", "Sandbox-Fault", fault).wantStatus(503)
	r.post(executePath, "{}", "Sandbox-Fault", fault).wantStatus(504)
	r.control("DELETE", "/ledger", "")
	r.post(executePath, "{}", "Sandbox-Fault", fault, "Sandbox-Call", "one").wantStatus(503)
}

func TestUnadmittedRequestsUseNoFaultUp(t *testing.T) {
	r := start(t, sandbox.Config{})
	headers := []string{"Sandbox-Fault", "503; times=1", "Sandbox-Call", "c"}
	r.post(executePath, "{", headers...).wantCode(400, "bad.request")
	r.post(executePath, "{}", append(headers, "Authorization", "")...).wantStatus(401)
	r.post(executePath, "{}", headers...).wantStatus(503)
}

func TestUnknownFaultIsRefused(t *testing.T) {
	r := start(t, sandbox.Config{})
	for _, fault := range []string{"explode", "503; times=0", "503; often", "slow=fast"} {
		r.post(executePath, "{}", "Sandbox-Fault", fault).wantCode(400, "sandbox.fault.unknown")
	}
	r.wantEffects(0)
}

func TestGzipOnlyIfAccepted(t *testing.T) {
	r := start(t, sandbox.Config{})
	res := r.post(executePath, "{}", "Sandbox-Fault", "gzip", "Accept-Encoding", "br, gzip;q=0.5").wantStatus(200)
	zip, err := gzip.NewReader(strings.NewReader(res.body))
	if err != nil || res.header.Get("Content-Encoding") != "gzip" {
		t.Fatalf("encoding %q: %v", res.header.Get("Content-Encoding"), err)
	}
	if plain, err := io.ReadAll(zip); err != nil || !strings.Contains(string(plain), "executionId") {
		t.Errorf("unzipped to %q, %v", plain, err)
	}
	for _, accept := range []string{"identity", "gzip;q=0"} {
		res := r.post(executePath, "{}", "Sandbox-Fault", "gzip", "Accept-Encoding", accept)
		if got := res.header.Get("Content-Encoding"); got != "" {
			t.Errorf("encoding %q although %s is accepted", got, accept)
		}
	}
}

func TestSetCookieGoesWithOtherFaults(t *testing.T) {
	r := start(t, sandbox.Config{})
	res := r.post(executePath, "{}", "Sandbox-Fault", "set-cookie, 503")
	if res.wantStatus(503).header.Get("Set-Cookie") == "" {
		t.Error("no cookie")
	}
}

func TestLargeAnswerHasExactlyTheAskedSize(t *testing.T) {
	r := start(t, sandbox.Config{})
	res := r.post(executePath, "{}", "Sandbox-Fault", "large=3MiB")
	if len(res.body) != 3<<20 || res.executionID() == "" {
		t.Errorf("%d bytes, want 3 MiB of JSON", len(res.body))
	}
}

// TestEarlyCloseMakesGoResend shows what the fault is for: the standard
// library resends a POST that carries a key when a reused connection ends.
func TestEarlyCloseMakesGoResend(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.get("/api/v2/users/me").wantStatus(200) // the connection is reused from here on
	req := r.request("POST", executePath, "{}", "Idempotency-Key", "k", "Sandbox-Fault", "early-close")
	req.Body = io.NopCloser(strings.NewReader("{}"))
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("{}")), nil }
	r.must(r.send(req)).wantStatus(200)
	r.wantEffects(2)
}

func TestEarlyCloseWaitsForAReusedConnection(t *testing.T) {
	r := start(t, sandbox.Config{})
	headers := []string{"Sandbox-Fault", "early-close; times=1"}
	r.client.CloseIdleConnections()
	r.post(executePath, "{}", headers...).wantStatus(200)
	r.postBroken(executePath, "{}", headers...)
	r.post(executePath, "{}", headers...).wantStatus(200)
	r.post(executePath, "{}", headers...).wantStatus(200)
	r.wantEffects(4)
}

func TestFaultsStrikeOtherRequestsThatNameThem(t *testing.T) {
	r := start(t, sandbox.Config{Faults: map[string]float64{"500": 1}})
	r.get("/api/v2/users/me").wantStatus(200)
	r.get("/api/v2/users/me", "Sandbox-Fault", "502").wantStatus(502)
	if _, err := r.send(r.request("GET", "/api/v2/users/me", "", "Sandbox-Fault", "drop-before")); err == nil {
		t.Error("answered, want the connection closed")
	}
}

func TestProbabilitiesRepeatWithTheSeed(t *testing.T) {
	run := func() (statuses []int) {
		r := start(t, sandbox.Config{Seed: 42, Faults: map[string]float64{"500-before": 0.3, "503": 0.3}})
		for range 40 {
			statuses = append(statuses, r.post(executePath, "{}").status)
		}
		return statuses
	}
	first, second := run(), run()
	seen := make(map[int]int)
	for i := range first {
		seen[first[i]]++
		if first[i] != second[i] {
			t.Fatalf("request %d answered %d, then %d with the same seed", i, first[i], second[i])
		}
	}
	if len(seen) != 3 {
		t.Errorf("statuses %v, want 200, 500 and 503", seen)
	}
}

func TestOwnFaultGoesBeforeProbability(t *testing.T) {
	r := start(t, sandbox.Config{Faults: map[string]float64{"500": 1}})
	r.post(executePath, "{}").wantStatus(500)
	r.post(executePath, "{}", "Sandbox-Fault", "ok").wantStatus(200)
}

func TestScriptIsConsumedInOrder(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.control("POST", "/sandbox/script", `["503", "", "slow=1ms, 502-after"]`)
	for i, want := range []int{503, 200, 502, 200} {
		if got := r.post(executePath, "{}").status; got != want {
			t.Errorf("request %d answered %d, want %d", i+1, got, want)
		}
	}
}
