package caddymodule

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func servedPage(t *testing.T, method string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "/genesys/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	if err := servePage(w, r); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestThePageIsAskedForAgainAndSentOnlyWhereItHasChanged(t *testing.T) {
	first := servedPage(t, http.MethodGet)
	if first.Code != http.StatusOK || first.Header().Get("Cache-Control") != "no-cache" || first.Header().Get("ETag") == "" {
		t.Fatalf("got %d with %v", first.Code, first.Header())
	}
	if again := servedPage(t, http.MethodGet, "If-None-Match", first.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
		t.Errorf("asked again: %d with %d bytes", again.Code, again.Body.Len())
	}
	if head := servedPage(t, http.MethodHead); head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("ETag") != first.Header().Get("ETag") {
		t.Errorf("HEAD: %d with %d bytes, %v", head.Code, head.Body.Len(), head.Header())
	}
}

func TestThePolicyAllowsNothingByAWildcardOrUnsafely(t *testing.T) {
	policy := servedPage(t, http.MethodGet).Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("%q is missing in %q", want, policy)
		}
	}
	for _, bad := range []string{"unsafe", "*", "http"} {
		if strings.Contains(policy, bad) {
			t.Errorf("%q is in %q", bad, policy)
		}
	}
}

func TestThePolicyIsTheSameForAPageWithTheLineEndsOfWindows(t *testing.T) {
	const html = "<style>\na\n</style>\n<script>\nb\n</script>\n"
	unix, windows := newPage(html), newPage(strings.ReplaceAll(html, "\n", "\r\n"))
	if unix != windows {
		t.Errorf("%+v and %+v", unix, windows)
	}
}
