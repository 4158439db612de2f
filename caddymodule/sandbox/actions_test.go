package sandbox_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestExecuteIgnoresTheKey(t *testing.T) {
	r := start(t, sandbox.Config{})
	first := r.post(executePath, `{"a":1}`, "Idempotency-Key", "k").executionID()
	second := r.post(executePath, `{"a":1}`, "Idempotency-Key", "k").executionID()
	if first == second {
		t.Error("two executions have one id")
	}
	r.wantEffects(2)
}

func TestExecuteEchoesTheInputAsItWasWritten(t *testing.T) {
	r := start(t, sandbox.Config{})
	const input = `{"html":"<b>&","big":9007199254740993,"null":null}`
	var body struct {
		ActionID string `json:"actionId"`
		Input    json.RawMessage
	}
	r.post(executePath+"?flatten=true", input).wantStatus(200).decode(&body)
	if string(body.Input) != input || body.ActionID != "custom_-_1234" {
		t.Errorf("answered %s for %s", body.Input, body.ActionID)
	}
}

func TestActionIDsAreOpaque(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post("/api/v2/integrations/actions/custom_-_a%2Fb%20c/execute", "{}").wantStatus(200)
	ledger := r.sandbox.Ledger(sandbox.Filter{Action: "custom_-_a/b c"})
	if len(ledger.Effects) != 1 || len(ledger.Attempts) != 1 {
		t.Fatalf("%d effects and %d attempts of the action, want one of each", len(ledger.Effects), len(ledger.Attempts))
	}
	if got := ledger.Effects[0].Path; got != "/api/v2/integrations/actions/custom_-_a%2Fb%20c/execute" {
		t.Errorf("path %s, want it as it was received", got)
	}
}

func TestTestEndpointsExecuteAndTellTheirSteps(t *testing.T) {
	r := start(t, sandbox.Config{})
	for _, operation := range []string{"test", "draft/test"} {
		var body struct {
			Operations  []struct{ Success bool }
			FinalResult struct {
				ExecutionID string `json:"executionId"`
			}
			Success bool
		}
		r.post("/api/v2/integrations/actions/a/"+operation, "{}").wantStatus(200).decode(&body)
		if len(body.Operations) == 0 || !body.Success || body.FinalResult.ExecutionID == "" {
			t.Errorf("%s answered %+v", operation, body)
		}
	}
	r.wantEffects(2)
}

func TestActionsTakeOnlyPOST(t *testing.T) {
	r := start(t, sandbox.Config{})
	res := r.get(executePath).wantCode(405, "method.not.allowed")
	if got := res.header.Get("Allow"); got != "POST" {
		t.Errorf("Allow %q, want POST", got)
	}
}

func TestMalformedRequestsAreRefusedUnexecuted(t *testing.T) {
	r := start(t, sandbox.Config{})
	for name, test := range map[string]struct {
		path, body, mediaType string
		status                int
		code                  string
	}{
		"form":            {executePath, "a=1", "application/x-www-form-urlencoded", 415, "unsupported.media.type"},
		"no media type":   {executePath, "{}", "", 415, "unsupported.media.type"},
		"invalid JSON":    {executePath, "{", "application/json", 400, "bad.request"},
		"empty body":      {executePath, "", "application/json", 400, "bad.request"},
		"two values":      {executePath, "{}{}", "application/json", 400, "bad.request"},
		"array":           {executePath, "[]", "application/json", 400, "invalid.schema"},
		"null":            {executePath, "null", "application/json", 400, "invalid.schema"},
		"no input":        {invokePath, "{}", "application/json", 400, "invalid.schema"},
		"input no object": {invokePath, `{"input":7}`, "application/json", 400, "invalid.schema"},
		"too large":       {executePath, `"` + strings.Repeat("x", 11<<20) + `"`, "application/json", 413, "request.entity.too.large"},
	} {
		t.Run(name, func(t *testing.T) {
			r := *r
			r.T = t
			r.post(test.path, test.body, "Content-Type", test.mediaType).wantCode(test.status, test.code)
		})
	}
	r.wantEffects(0)
}

func TestMediaTypeMayHaveParameters(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post(executePath, "{}", "Content-Type", "application/json; charset=utf-8").wantStatus(200)
}

func TestInvokeReplaysTheSameRequest(t *testing.T) {
	r := start(t, sandbox.Config{})
	first := r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantStatus(200)
	second := r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantStatus(200)
	if first.body != second.body {
		t.Errorf("answers %s and %s, want the same", first.body, second.body)
	}
	if first.header.Get("X-Idempotent-Replay") != "" || second.header.Get("X-Idempotent-Replay") != "true" {
		t.Error("want the replay marked, and only the replay")
	}
	r.wantEffects(1)
	if e := r.sandbox.Ledger(sandbox.Filter{Key: "k"}).Effects[0]; e.Replays != 1 || e.ID != first.executionID() {
		t.Errorf("effect %+v, want one replay of %s", e, first.executionID())
	}
}

func TestInvokeWithoutKeyExecutesEachTime(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post(invokePath, invokeBody).wantStatus(200)
	r.post(invokePath, invokeBody).wantStatus(200)
	r.wantEffects(2)
}

func TestKeyIsBoundToPathAndBody(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantStatus(200)
	r.post(invokePath, `{"input":{}}`, "Idempotency-Key", "k").wantCode(409, "idempotency.conflict")
	r.post("/api/v2/dataactions/actions/other/invoke", invokeBody, "Idempotency-Key", "k").wantCode(409, "idempotency.conflict")
	r.wantEffects(1)
	if got := r.sandbox.Summary().Conflicts; got != 2 {
		t.Errorf("%d conflicts, want 2", got)
	}
}

func TestKeyInFlightConflicts(t *testing.T) {
	r := start(t, sandbox.Config{})
	req := r.request("POST", invokePath, invokeBody, "Idempotency-Key", "k", "Sandbox-Fault", "stall=1h")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.send(req)
	}()
	r.awaitOutcome(sandbox.OutcomeExecuting)
	r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantCode(409, "idempotency.conflict")
	r.wantEffects(0)
	_ = r.sandbox.Close()
	<-done
	r.wantEffects(0)
}

func TestKeyReplaysFor24Hours(t *testing.T) {
	c := newClock()
	r := start(t, sandbox.Config{Now: c.now, TokenLife: 100 * time.Hour})
	first := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID()
	c.advance(24*time.Hour - time.Second)
	if got := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID(); got != first {
		t.Error("executed again within 24 hours")
	}
	c.advance(time.Second)
	if got := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID(); got == first {
		t.Error("replayed after 24 hours")
	}
	r.wantEffects(2)
}

func TestFailedActionBindsItsKey(t *testing.T) {
	r := start(t, sandbox.Config{})
	r.post(invokePath, invokeBody, "Idempotency-Key", "k", "Sandbox-Fault", "fail=422").wantStatus(422)
	r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantCode(409, "idempotency.conflict")
	r.wantEffects(0)
}

func TestFailureBeforeExecutionLeavesTheKeyFree(t *testing.T) {
	for _, fault := range []string{"drop-before", "500-before", "503-retry-after", "429", "401"} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, sandbox.Config{})
			_, _ = r.send(r.request("POST", invokePath, invokeBody, "Idempotency-Key", "k", "Sandbox-Fault", fault))
			r.wantEffects(0)
			if res := r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantStatus(200); res.header.Get("X-Idempotent-Replay") != "" {
				t.Error("replayed what did not execute")
			}
			r.wantEffects(1)
		})
	}
}

func TestFailureAfterExecutionIsReplayedAsSuccess(t *testing.T) {
	for _, fault := range []string{"execute-then-drop", "truncate", "500-after", "slow=1ms", "429-bare", "truncate, large=100KiB"} {
		t.Run(fault, func(t *testing.T) {
			r := start(t, sandbox.Config{})
			_, _ = r.send(r.request("POST", invokePath, invokeBody, "Idempotency-Key", "k", "Sandbox-Fault", fault))
			r.wantEffects(1)
			res := r.post(invokePath, invokeBody, "Idempotency-Key", "k").wantStatus(200)
			if res.header.Get("X-Idempotent-Replay") != "true" {
				t.Error("not marked as replay")
			}
			if got := r.sandbox.Ledger(sandbox.Filter{}).Effects; len(got) != 1 || got[0].ID != res.executionID() {
				t.Errorf("effects %+v, want that of %s alone", got, res.executionID())
			}
			if strings.Contains(fault, "large") && len(res.body) != 100<<10 {
				t.Errorf("replayed %d bytes, want 100 KiB", len(res.body))
			}
		})
	}
}

func TestEvaluationsWantAUUIDForKey(t *testing.T) {
	r := start(t, sandbox.Config{})
	const path = "/api/v2/quality/conversations/c1/evaluations"
	const key = "7b1f8f0a-3c55-4f0e-9a3e-0d3f5b6c7d8e"
	r.post(path, "{}", "Idempotency-Key", "k").wantCode(400, "invalid.value")
	first := r.post(path, "{}", "Idempotency-Key", key).wantStatus(200)
	second := r.post(path, "{}", "Idempotency-Key", key).wantStatus(200)
	if first.body != second.body {
		t.Errorf("answers %s and %s, want the same", first.body, second.body)
	}
	r.post(path, "{}").wantStatus(200)
	r.wantEffects(2)
}

func TestMoreThanOneKeyIsRefused(t *testing.T) {
	r := start(t, sandbox.Config{})
	req := r.request("POST", invokePath, invokeBody)
	req.Header["Idempotency-Key"] = []string{"a", "b"}
	r.must(r.send(req)).wantCode(400, "invalid.value")
}

func TestActionOutlivesItsCaller(t *testing.T) {
	r := start(t, sandbox.Config{Latency: 50 * time.Millisecond})
	ctx, leave := context.WithCancel(t.Context())
	req := r.request("POST", executePath, "{}").WithContext(ctx)
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _ = r.send(req)
	}()
	r.awaitAttempts(1)
	leave()
	<-left
	for deadline := time.Now().Add(10 * time.Second); r.sandbox.Summary().Effects == 0; {
		if time.Now().After(deadline) {
			t.Fatal("no effect in 10s")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestSlowAnswerNotesThatItsCallerLeft(t *testing.T) {
	r := start(t, sandbox.Config{})
	ctx, leave := context.WithCancel(t.Context())
	req := r.request("POST", executePath, "{}", "Sandbox-Fault", "slow=1h").WithContext(ctx)
	go func() {
		for r.sandbox.Summary().Effects == 0 {
			time.Sleep(time.Millisecond)
		}
		leave()
	}()
	if _, err := r.send(req); err == nil {
		t.Fatal("answered within an hour")
	}
	r.awaitOutcome(sandbox.OutcomeCallerLeft)
	if a := r.lastAttempt(); !a.Executed {
		t.Errorf("attempt %+v, want it executed", a)
	}
}
