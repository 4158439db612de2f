package genesys

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func defaultRoutes(t testing.TB) *Routes {
	t.Helper()
	rs, err := NewRoutes(nil)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func routesOf(t testing.TB, patterns ...Pattern) *Routes {
	t.Helper()
	rs, err := NewRoutes(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestTheFamiliesOfDataActions(t *testing.T) {
	rs := defaultRoutes(t)
	for path, want := range map[string]Match{
		"/api/v2/integrations/actions/a/execute":       {Action: "a"},
		"/api/v2/integrations/actions/a/test":          {Action: "a"},
		"/api/v2/integrations/actions/a/draft/test":    {Action: "a"},
		"/api/v2/dataactions/actions/a/invoke":         {Action: "a", Honored: true},
		"/api/v2/quality/conversations/a/evaluations":  {Action: "a", Honored: true},
		"/api/v2/integrations/actions/execute/execute": {Action: "execute"},
	} {
		if got, ok := rs.Match(http.MethodPost, path); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", path, got, ok, want)
		}
	}
}

func TestIDsAreOpaque(t *testing.T) {
	rs := defaultRoutes(t)
	for id, honored := range map[string]bool{
		"custom_-_6ba7b810-9dad-11d1-80b4-00c04fd430c8": true,
		"static_-_0": true,
		"17":         true,
		"~a!b$c'(d)": true,
		"Custom":     true,
		"a:b@c,d=e":  true,

		// These may mean another path to some server, so the key is not trusted.
		"a%2Fb":   false,
		"a%2e":    false,
		"%C3%A9":  false,
		"a%20b":   false,
		"..%2f..": false,
		"a;v=1":   false,
		"..;x":    false,
		"a.":      false,
		"...":     false,
	} {
		for path, mayHonor := range map[string]bool{
			"/api/v2/integrations/actions/" + id + "/execute": false,
			"/api/v2/dataactions/actions/" + id + "/invoke":   true,
		} {
			want := Match{Action: id, Honored: mayHonor && honored}
			if got, ok := rs.Match(http.MethodPost, path); !ok || got != want {
				t.Errorf("%s: %+v, %v; want %+v", path, got, ok, want)
			}
			if Honors(path) != want.Honored {
				t.Errorf("Honors(%s) = %v", path, Honors(path))
			}
		}
	}
}

func TestDotsAreNoID(t *testing.T) {
	rs := defaultRoutes(t)
	for _, id := range []string{".", "..", ""} {
		if m, ok := rs.Match(http.MethodPost, "/api/v2/dataactions/actions/"+id+"/invoke"); !ok || m != (Match{}) {
			t.Errorf("%q: %+v, %v", id, m, ok)
		}
	}
}

func TestInvokePathOfAnyIDIsAnAction(t *testing.T) {
	rs := defaultRoutes(t)
	for _, id := range []string{"custom_-_1", "a/b", "a b", "50%", "é", "..", ".", "a?b#c", "%2F"} {
		p := InvokePath(id)
		u, err := url.Parse("http://h" + p)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/api/v2/dataactions/actions/"), "/invoke"); got != id {
			t.Errorf("%q became %q", id, got)
		}
		if _, ok := rs.Match(http.MethodPost, u.EscapedPath()); !ok {
			t.Errorf("%s is no action", p)
		}
	}
}

func TestOtherRequestsAreNoActions(t *testing.T) {
	rs := defaultRoutes(t)
	for _, path := range []string{
		"/", "", "*",
		"/api/v2/users/me",
		"/api/v2/integrations/actions",
		"/api/v2/integrations/actions/",
		"/api/v2/integrations/actions/a",
		"/api/v2/integrations/actions/a/draft",
		"/api/v2/integrations/actions/a/draft/publish",
		"/api/v2/integrations/actions/a/draft/validation",
		"/api/v2/integrations/actions/a/executeX",
		"/api/v2/integrations/actions/a/Xexecute",
		"/api/v2/integrations/actions/a/execute/more",
		"/api/v2/integrations/actions/execute",
		"/api/v2/integrations/actions/categories",
		"/api/v2/integrations/a/execute",
		"/x/api/v2/integrations/actions/a/execute",
		"/api/v3/integrations/actions/a/execute",
		"/api/v2/dataactions/actions/a/execute",
		"/api/v2/integrations/actions/a/invoke",
		"/api/v2/quality/conversations/a/evaluations/b",
		"/api/v2/flows/executions",
		"/api/v2/analytics/conversations/details/query/",
		"/api/v2/users/../groups",
	} {
		if m, ok := rs.Match(http.MethodPost, path); ok {
			t.Errorf("%q is an action: %+v", path, m)
		}
	}
}

func TestOnlyPOSTRunsAnAction(t *testing.T) {
	rs := defaultRoutes(t)
	for _, path := range []string{
		"/api/v2/integrations/actions/a/execute", "/api/v2/dataactions/actions/a/invoke",
		"/api/v2//integrations/actions/a/EXECUTE",
	} {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "", "POSTS"} {
			if _, ok := rs.Match(method, path); ok {
				t.Errorf("%s %s is an action", method, path)
			}
		}
	}
}

func TestMethodInOtherCaseIsADisguise(t *testing.T) {
	for _, rs := range []*Routes{
		defaultRoutes(t),
		routesOf(t, Pattern{Method: "post", Path: "/api/v2/dataactions/actions/*/invoke"}),
	} {
		if m, ok := rs.Match("post", "/api/v2/dataactions/actions/a/invoke"); !ok || m.Honored {
			t.Errorf("got %+v, %v", m, ok)
		}
	}
}

func TestCustomPatternsReplaceTheDefaults(t *testing.T) {
	rs := routesOf(t,
		Pattern{Path: "/api/v2/flows/executions"},
		Pattern{Method: "PATCH", Path: "/things/{thing}/parts/*/swap"},
		Pattern{Path: "/bulk/*"},
		Pattern{Path: "/caf%C3%A9/{x}/go"},
		Pattern{Path: "/api/v2/dataactions/actions/{id}/invoke"},
		Pattern{Method: "PUT", Path: "/api/v2/quality/conversations/{id}/evaluations"},
	)
	for request, want := range map[string]Match{
		"POST /api/v2/flows/executions":                   {},
		"POST /API/v2/flows//executions/":                 {},
		"PATCH /things/a/parts/b/swap":                    {Action: "a"},
		"PATCH /things/a%2Fb/parts/b/SWAP":                {},
		"POST /bulk/":                                     {},
		"POST /bulk/a":                                    {},
		"POST /bulk/a/b/c":                                {},
		"POST /BULK/a":                                    {},
		"POST /bulk%2F":                                   {},
		"POST /caf%C3%A9/7/go":                            {Action: "7"},
		"POST /caf%c3%a9/7/go":                            {},
		"POST /CAF%C3%89/7/go":                            {},
		"POST /api/v2/dataactions/actions/a/invoke":       {Action: "a", Honored: true},
		"PUT /api/v2/quality/conversations/a/evaluations": {Action: "a"},
	} {
		method, path, _ := strings.Cut(request, " ")
		if got, ok := rs.Match(method, path); !ok || got != want {
			t.Errorf("%s: %+v, %v; want %+v", request, got, ok, want)
		}
	}
	for _, request := range []string{
		"POST /api/v2/integrations/actions/a/execute",
		"POST /bulk",
		"POST /bulky/a",
		"POST /things/a/parts/b/swap",
		"PATCH /bulk/a",
		"PATCH /things/a/parts/swap",
		"POST /api/v2/quality/conversations/a/evaluations",
	} {
		method, path, _ := strings.Cut(request, " ")
		if m, ok := rs.Match(method, path); ok {
			t.Errorf("%s is an action: %+v", request, m)
		}
	}
}

func TestOddLiteralsInAPatternAreSeenThroughDisguises(t *testing.T) {
	rs := routesOf(t, Pattern{Path: "/a./b;v=1/{x}/c%2Fd/go+"})
	for _, path := range []string{
		"/a./b;v=1/7/c%2Fd/go+", "/A./b;v=1/7/c%2Fd/go+", "/a./b;v=1/7/c/d/GO+", "/a%2e/b/7/c%2fd/go+",
	} {
		if _, ok := rs.Match(http.MethodPost, path); !ok {
			t.Errorf("%s is no action", path)
		}
	}
}

func TestPatternErrors(t *testing.T) {
	for pattern, want := range map[string]string{
		"":          "must start with a slash",
		"a/b":       "must start with a slash",
		"*":         "must start with a slash",
		"/a?b":      "query or fragment",
		"/a#b":      "query or fragment",
		"/":         "empty segment",
		"/a/":       "empty segment",
		"/a//b":     "empty segment",
		"/a/../b":   "empty segment",
		"/a/./b":    "empty segment",
		"/a/%2e%2E": "empty segment",
		"/a/;x/b":   "empty segment",
		"/a*/b":     "whole segment",
		"/a/b*":     "whole segment",
		"/**/b":     "whole segment",
		"/a/{b":     "whole segment",
		"/a/b}":     "whole segment",
		"/a/x{b}":   "whole segment",
	} {
		// A good one does not make up for a bad one.
		rs, err := NewRoutes([]Pattern{{Path: "/good"}, {Path: pattern}})
		if rs != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"`+pattern+`"`) {
			t.Errorf("%q: %v; want it to say %q", pattern, err, want)
		}
	}
}

func TestDefaultPatternsAreNotChangedByUse(t *testing.T) {
	for range 2 {
		if n := len(defaultRoutes(t).routes); n != 5 {
			t.Fatalf("%d routes, want 5", n)
		}
	}
	if len(honoredPatterns) != 2 || len(ignoredPatterns) != 3 {
		t.Errorf("%q, %q", honoredPatterns, ignoredPatterns)
	}
}
