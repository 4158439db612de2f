package genesys

import "testing"

const rateLimitBody = `{"message":"Rate limit exceeded the maximum. Retry the request in [42] seconds",` +
	`"code":"too.many.requests.retry.after","status":429,"contextId":"c-1","details":[],"errors":[]}`

func TestParseErrorBodyReadsThePlatformsFields(t *testing.T) {
	e, ok := ParseErrorBody("application/json; charset=UTF-8", []byte(rateLimitBody))
	if !ok || e.Code != "too.many.requests.retry.after" || e.Status != 429 || e.ContextID != "c-1" {
		t.Errorf("got %+v, %v", e, ok)
	}
	e, ok = ParseErrorBody("", []byte(`{"code":"bad.request","messageParams":{"a":"b"},
		"details":[{"errorCode":"x","fieldName":"y"}],"limit":{"key":"k","namespace":"n","value":"300"},
		"errors":[{"code":"invalid.value"},{"message":"no code"},7]}`))
	if !ok || e.MessageParams["a"] != "b" || len(e.Details) != 1 || e.Details[0].FieldName != "y" ||
		e.Limit == nil || e.Limit.Value != "300" || len(e.Errors) != 1 || e.Errors[0].Code != "invalid.value" {
		t.Errorf("got %+v, %v", e, ok)
	}
}

func TestParseErrorBodyToleratesOddFields(t *testing.T) {
	e, ok := ParseErrorBody("application/problem+json",
		[]byte(`{"code":"not.found","status":"404","message":["?"],"details":{},"errors":"","limit":3,"messageParams":{"n":1}}`))
	if !ok || e.Code != "not.found" || e.Status != 0 || e.Message != "" || e.Limit != nil || e.MessageParams != nil {
		t.Errorf("got %+v, %v", e, ok)
	}
}

func TestParseErrorBodyRefusesWhatIsNotThePlatforms(t *testing.T) {
	for _, tt := range []struct{ contentType, body string }{
		{"application/json", ``},
		{"application/json", `null`},
		{"application/json", `[]`},
		{"application/json", `"code"`},
		{"application/json", `{}`},
		{"application/json", `{"code":""}`},
		{"application/json", `{"code":null}`},
		{"application/json", `{"code":404}`},
		{"application/json", `{"CODE":"not.found"}`},
		{"application/json", `{"code":"not.found"} trailing`},
		{"application/json", `{"code":"not.found"`},
		{"application/json", `{"error":"invalid_client"}`},
		{"text/html", `{"code":"not.found"}`},
		{"nonsense;;", `{"code":"not.found"}`},
	} {
		if e, ok := ParseErrorBody(tt.contentType, []byte(tt.body)); ok {
			t.Errorf("ParseErrorBody(%q, %s) = %+v, true", tt.contentType, tt.body, e)
		}
	}
}

func TestCodesSayWhetherTheActionRan(t *testing.T) {
	for _, tt := range []struct {
		status              int
		code                string
		refused, auth, rate bool
	}{
		{400, "bad.request", true, false, false},
		{400, "invalid.date", true, false, false},
		{400, "invalid.schema", true, false, false},
		{400, "invalid.value", true, false, false},
		{400, "no.results", false, false, false},
		{400, "too.many.results", false, false, false},
		{400, "not.found", false, false, false},
		{400, "", false, false, false},
		{401, "bad.credentials", true, true, false},
		{401, "authentication.required", true, true, false},
		{401, "credentials.expired", true, true, false},
		{401, "invalid.credentials", false, false, false},
		{403, "missing.permissions", true, false, false},
		{403, "missing.any.permissions", true, false, false},
		{403, "not.authorized", true, false, false},
		{403, "somebody.elses", false, false, false},
		{404, "not.found", true, false, false},
		{415, "unsupported.media.type", true, false, false},
		{429, "too.many.requests", false, false, true},
		{429, "too.many.requests.retry.after", false, false, true},
		{429, "too.many.requestsish", false, false, false},
		{500, "bad.request", false, false, false},
		{504, "authentication.request.timeout", false, false, false},
	} {
		if got := RefusedBeforeRunning(tt.status, tt.code); got != tt.refused {
			t.Errorf("RefusedBeforeRunning(%d, %q) = %v", tt.status, tt.code, got)
		}
		if got := PlatformAuthCode(tt.code); got != tt.auth {
			t.Errorf("PlatformAuthCode(%q) = %v", tt.code, got)
		}
		if got := RateLimitCode(tt.code); got != tt.rate {
			t.Errorf("RateLimitCode(%q) = %v", tt.code, got)
		}
	}
}
