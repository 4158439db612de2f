package sandbox_test

import (
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestControlsNeedNoToken(t *testing.T) {
	r := start(t, sandbox.Config{Seed: 7})
	var state struct {
		Seed        uint64
		KnownFaults []sandbox.FaultInfo `json:"known_faults"`
	}
	r.control("GET", "/sandbox", "").decode(&state)
	if state.Seed != 7 || r.sandbox.Seed() != 7 || len(state.KnownFaults) != len(sandbox.FaultTable()) {
		t.Errorf("state %+v", state)
	}
}

func TestControlsRefuseWhatTheyDoNotKnow(t *testing.T) {
	r := start(t, sandbox.Config{})
	for _, test := range []struct{ method, path, body, want string }{
		{"PUT", "/sandbox/faults", `{"explode":1}`, "unknown fault"},
		{"PUT", "/sandbox/faults", `{"truncate":1.5}`, "no probability"},
		{"PUT", "/sandbox/faults", `[]`, "reading request body"},
		{"POST", "/sandbox/script", `["503; times=2"]`, "takes no times"},
		{"POST", "/sandbox/script", `["explode"]`, "unknown fault"},
		{"PUT", "/sandbox/token-endpoint", `{"mode":"upside-down"}`, "rate-limited"},
		{"PUT", "/sandbox/token-endpoint", `{"modus":"ok"}`, "unknown field"},
		{"PUT", "/sandbox/permissions", `{}`, "granted"},
		{"PUT", "/sandbox/client", `{}`, "missing"},
		{"PUT", "/sandbox/limits", `{"requests":-1}`, "negative"},
		{"PUT", "/sandbox/limits", `{"window":"soon"}`, "duration"},
		{"PUT", "/sandbox/limits", `{"requests":1}{}`, "more than one"},
	} {
		res := r.must(r.send(r.request(test.method, test.path, test.body))).wantCode(400, "sandbox.control.failed")
		if !strings.Contains(res.body, test.want) {
			t.Errorf("%s %s %s answered %s, want %q in it", test.method, test.path, test.body, res.body, test.want)
		}
	}
}

func TestControlsNameTheirMethods(t *testing.T) {
	r := start(t, sandbox.Config{})
	res := r.post("/ledger", "").wantCode(405, "method.not.allowed")
	if got := res.header.Get("Allow"); got != "GET, DELETE" {
		t.Errorf("Allow %q", got)
	}
}

func TestFaultProbabilitiesCanBeChanged(t *testing.T) {
	r := start(t, sandbox.Config{Faults: map[string]float64{"500": 1}})
	r.control("PUT", "/sandbox/faults", `{"503": 1}`)
	r.post(executePath, "{}").wantStatus(503)
	r.control("PUT", "/sandbox/faults", `{}`)
	r.post(executePath, "{}").wantStatus(200)
}

func TestScriptCanBeCleared(t *testing.T) {
	r := start(t, sandbox.Config{})
	var state struct{ Script []string }
	r.control("POST", "/sandbox/script", `["503","truncate, gzip"]`).decode(&state)
	if len(state.Script) != 2 || state.Script[1] != "truncate, gzip" {
		t.Errorf("script %q", state.Script)
	}
	r.control("DELETE", "/sandbox/script", "")
	r.post(executePath, "{}").wantStatus(200)
}

func TestMissingPermissionIsNamed(t *testing.T) {
	r := start(t, sandbox.Config{Forbidden: true})
	for path, permission := range map[string]string{
		executePath: "integrations:action:execute",
		invokePath:  "integrations:action:execute",
		"/api/v2/quality/conversations/c/evaluations": "quality:evaluation:add",
	} {
		res := r.post(path, invokeBody).wantCode(403, "missing.any.permissions")
		if !strings.Contains(res.body, permission) {
			t.Errorf("%s answered %s, want %s in it", path, res.body, permission)
		}
	}
	r.wantEffects(0)
	r.control("PUT", "/sandbox/permissions", `{"granted":true}`)
	r.post(executePath, "{}").wantStatus(200)
	r.control("PUT", "/sandbox/permissions", `{"granted":false}`)
	r.post(executePath, "{}").wantStatus(403)
}

func TestTheClientIsToldItsRole(t *testing.T) {
	r := start(t, sandbox.Config{})
	const path, permission = "/api/v2/authorization/subjects/me", `"execute"`
	r.get(path, "Authorization", "").wantCode(401, "authentication.required")
	if res := r.get(path).wantStatus(200); !strings.Contains(res.body, permission) {
		t.Errorf("without %s: %s", permission, res.body)
	}
	r.control("PUT", "/sandbox/permissions", `{"granted":false}`)
	if res := r.get(path).wantStatus(200); strings.Contains(res.body, permission) {
		t.Errorf("with %s: %s", permission, res.body)
	}
	r.get("/api/v2/integrations/actions?pageSize=1").wantStatus(200)
}
