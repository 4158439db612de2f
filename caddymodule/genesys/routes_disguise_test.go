package genesys

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"testing"
)

// actionPath is the table of section 2 of the design once more, apart from the
// code under test, and in any case.
var actionPath = regexp.MustCompile(`(?is)^/api/v2/(integrations/actions/.+/(execute|test|draft/test)|dataactions/actions/.+/invoke|quality/conversations/.+/evaluations)$`)

func TestDisguisedActionsAreActionsAndNeverHonored(t *testing.T) {
	rs := defaultRoutes(t)
	for what, paths := range map[string][]string{
		"doubled slashes":           {"//api/v2/dataactions/actions/a/invoke", "/api/v2/dataactions//actions/a/invoke", "/api/v2/dataactions/actions/a//invoke"},
		"a trailing slash":          {"/api/v2/dataactions/actions/a/invoke/", "/api/v2/dataactions/actions/a/invoke//"},
		"encoded slashes":           {"/api/v2/dataactions%2Factions/a/invoke", "/api%2fv2%2Fdataactions%2Factions%2Fa%2Finvoke", "/api/v2/dataactions/actions/a/invoke%2F", "/%2Fapi/v2/dataactions/actions/a/invoke"},
		"encoded letters":           {"/api/v2/dataactions/actions/a/%69nvoke", "/api/v2/%64ataactions/actions/a/invoke", "/%61pi/v2/dataactions/actions/a/invoke"},
		"letters encoded twice":     {"/api/v2/dataactions/actions/a/%2569nvoke", "/api/v2/dataactions%252Factions/a/invoke"},
		"letters in another case":   {"/API/v2/dataactions/actions/a/invoke", "/api/V2/DataActions/Actions/a/INVOKE", "/api/v2/dataactions/actions/a/%49NVOKE"},
		"letters that fold":         {"/api/v2/dataaction%C5%BF/actions/a/invoke", "/api/v2/dataactions/actions/a/invo%E2%84%AAe"},
		"dot segments":              {"/./api/v2/dataactions/actions/a/invoke", "/api/v2/dataactions/x/../actions/a/invoke", "/api/v2/dataactions/actions/a/./invoke", "/x/../api/v2/dataactions/actions/a/invoke", "/../api/v2/dataactions/actions/a/invoke", "/api/v2/dataactions/actions/a/invoke/x/..", "/api/v2/dataactions/actions/a/invoke/."},
		"encoded dot segments":      {"/api/v2/dataactions/x/%2e%2E/actions/a/invoke", "/api/v2/dataactions/x/..%2factions/a/invoke", "/api/v2/dataactions/x%2F..%2Factions/a/invoke", "/api/v2/x%252F..%252Fdataactions/actions/a/invoke"},
		"an empty segment undone":   {"/api/v2/dataactions//../actions/a/invoke", "/api/v2/dataactions//%2e%2e/actions/a/invoke"},
		"an encoded slash undone":   {"/api/v2/dataactions/x%2Fy/%2e%2e/actions/a/invoke", "/api/v2/dataactions/x%2Fy/../actions/a/%69nvoke"},
		"dots for an id":            {"/api/v2/dataactions/actions/./invoke", "/api/v2/dataactions/actions/../invoke", "/api/v2/dataactions/actions/.../INVOKE", "/api/v2/dataactions/actions/%2e%2e/invoke"},
		"a slash for an id":         {"/api/v2/dataactions/actions/%2F/%69nvoke", "/api/v2/dataactions/actions//invoke"},
		"a space for an id":         {"/api/v2/dataactions/actions/%20/%69nvoke"},
		"a newline in the id":       {"/api/v2/dataactions/actions/a%0Ab/%69nvoke", "/api/v2/dataactions/actions/%0A/%69nvoke"},
		"no UTF-8 in the id":        {"/api/v2/dataactions/actions/%FF/%69nvoke"},
		"a stray percent sign":      {"/api/v2/dataactions/actions/50%25/%69nvoke", "/api/v2/dataactions/actions/50%25zz/%2569nvoke"},
		"backslashes":               {`/api/v2/dataactions\actions/a/invoke`, "/api/v2/dataactions%5Cactions/a%5cinvoke", `/api/v2/dataactions/x\..\actions/a/invoke`},
		"parameters":                {"/api/v2/dataactions/actions/a/invoke;v=1", "/api;x/v2;y/dataactions/actions;z/a/invoke", "/api/v2/dataactions/x/..;/actions/a/invoke", "/api/v2/dataactions/actions/a/invoke%3Bv", "/api/v2/dataactions/;x/actions/a/invoke", "/api/v2/dataactions/actions/;x/INVOKE"},
		"a trailing dot":            {"/api/v2/dataactions/actions/a/invoke.", "/api/v2/dataactions./actions/a/invoke..", "/api/v2/dataactions/actions/a/invoke%2e"},
		"trailing white space":      {"/api/v2/dataactions/actions/a/invoke%20", "/api/v2/dataactions/actions/a/invoke%09", "/api/v2/dataactions/actions/a/invoke%0d%0a", "/api/v2/dataactions/actions/a/invoke%2520"},
		"a NUL, after which C ends": {"/api/v2/dataactions/actions/a/invoke%00", "/api/v2/dataactions/actions/a/invoke%00.html", "/api/v2/dataactions/actions/a/invoke%00/x"},
		"an encoded query":          {"/api/v2/dataactions/actions/a/invoke%3Fa=b", "/api/v2/dataactions/actions/a/invoke%3Fa=/b", "/api/v2/dataactions/actions/a/invoke%23a"},
		"several at once":           {`//API%2Fv2/x/%2e./dataactions\actions;v=1/a/./%2569NVOKE.%20/`},
	} {
		for _, p := range paths {
			for _, p := range []string{
				p,
				strings.NewReplacer("dataactions", "integrations", "DataActions", "Integrations", "invoke", "execute", "INVOKE", "EXECUTE",
					"%64ataactions", "%69ntegrations",
					"%69nvoke", "%65xecute", "%2569nvoke", "%2565xecute", "%49NVOKE", "%45XECUTE", "%2569NVOKE", "%2565XECUTE",
					"dataaction%C5%BF", "integration%C5%BF").Replace(p),
			} {
				if strings.Contains(p, "%E2%84%AA") && strings.Contains(p, "integrations") {
					continue // there is no K in execute
				}
				m, ok := rs.Match(http.MethodPost, p)
				if !ok {
					t.Errorf("%s: %s slips by", what, p)
				}
				if m.Honored || Honors(p) {
					t.Errorf("%s: %s counts as honored", what, p)
				}
			}
		}
	}
}

// servers are ways in which servers and proxies read a path, each written anew.
var servers = map[string]func(string) string{
	"to the letter":        func(p string) string { return p },
	"net/http path.Clean":  func(p string) string { return path.Clean(unescaped(p)) },
	"http.ServeMux":        asServeMux,
	"nginx merge_slashes":  func(p string) string { return collapsed(unescaped(p)) },
	"double decoding":      func(p string) string { return unescaped(unescaped(p)) },
	"decode, clean, again": func(p string) string { return path.Clean(unescaped(path.Clean(unescaped(p)))) },
	"strip trailing slash": func(p string) string { return strings.TrimRight(unescaped(p), "/") },
	"RFC 3986 5.2.4":       withoutDots,
	"RFC 3986, then decoded": func(p string) string {
		return unescaped(withoutDots(p))
	},
	"decoded, then RFC 3986": func(p string) string { return withoutDots(unescaped(p)) },
	"WHATWG, then decoded": func(p string) string {
		p = encodedDot.ReplaceAllString(strings.ReplaceAll(p, `\`, "/"), ".")
		return unescaped(withoutDots(p))
	},
	"split, then decoded": func(p string) string {
		segments := strings.Split(p, "/")
		for i, s := range segments {
			segments[i] = unescaped(s)
		}
		return strings.Join(segments, "/")
	},
	"Tomcat": func(p string) string { return path.Clean(unescaped(withoutParams(p))) },
	"Tomcat, decoded first": func(p string) string {
		return path.Clean(withoutParams(unescaped(p)))
	},
	"IIS": func(p string) string {
		segments := strings.Split(strings.ReplaceAll(unescaped(p), `\`, "/"), "/")
		for i, s := range segments {
			if strings.Trim(s, ".") != "" {
				segments[i] = strings.TrimRight(s, ". ")
			}
		}
		return path.Clean(strings.Join(segments, "/"))
	},
	"C strings":                  func(p string) string { s, _, _ := strings.Cut(unescaped(p), "\x00"); return s },
	"forwarded as it is decoded": func(p string) string { s, _, _ := strings.Cut(unescaped(p), "?"); return unescaped(s) },
}

var (
	escape     = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	encodedDot = regexp.MustCompile(`(?i)%2e`)
	slashes    = regexp.MustCompile(`/+`)
	params     = regexp.MustCompile(`;[^/]*`)
)

func asServeMux(p string) string {
	u, err := url.Parse("http://h" + p)
	if err != nil {
		return p
	}
	clean := path.Clean("/" + u.Path)
	if strings.HasSuffix(u.Path, "/") && clean != "/" {
		clean += "/"
	}
	return clean
}

// unescaped decodes what can be, as PHP and others do.
func unescaped(p string) string {
	return escape.ReplaceAllStringFunc(p, func(s string) string {
		s, _ = url.PathUnescape(s)
		return s
	})
}

func collapsed(p string) string { return slashes.ReplaceAllString(p, "/") }

func withoutParams(p string) string { return params.ReplaceAllString(p, "") }

// withoutDots is remove_dot_segments of RFC 3986, to which empty segments are
// segments.
func withoutDots(p string) string {
	var out []string
	for s := range strings.SplitSeq(strings.TrimPrefix(p, "/"), "/") {
		switch s {
		case ".":
		case "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

func FuzzNoActionSlipsBy(f *testing.F) {
	for _, p := range []string{
		"/api/v2/integrations/actions/a/execute",
		"/api/v2/integrations//../actions/a/execute",
		"/api/v2/integrations/x%2Fy/%2e%2e/actions/a/test",
		"/api/v2/integrations/actions/a%0Ab/%65xecute",
		"/api/v2/quality/conversations/%2F/%65valuations",
		"/api/v2/dataactions;x/actions/a/invoke%20",
		"/api/v2/dataactions/actions/a%25zz/%2569nvoke",
		`/x/../api\v2\integrations/actions/.../draft/TEST/`,
		"/api/v2/integrations/actions/a/execute%00.html",
		"/api/v2/users/me",
		"/api/v2/integrations/actions/",
	} {
		f.Add(p)
	}
	rs := defaultRoutes(f)
	f.Fuzz(func(t *testing.T, p string) {
		if len(p) > 500 || !strings.HasPrefix(p, "/") {
			t.Skip()
		}
		noneSlipsBy(t, rs, p)
	})
}

// noneSlipsBy fails if p is no action but to some server, or is honored but
// something else to some server.
func noneSlipsBy(t *testing.T, rs *Routes, p string) {
	t.Helper()
	m, ok := rs.Match(http.MethodPost, p)
	if m.Honored != (ok && Honors(p)) {
		t.Errorf("%q: %+v, but Honors = %v", p, m, Honors(p))
	}
	if m.Honored && !actionPath.MatchString(p) {
		t.Errorf("%q is honored and no action to the letter", p)
	}
	for name, read := range servers {
		got := read(p)
		if m.Honored && got != p {
			t.Errorf("%q is honored, and %q to %s", p, got, name)
		}
		if !ok && actionPath.MatchString(got) {
			t.Errorf("%q slips by as %q to %s", p, got, name)
		}
	}
}

// The fuzzer seldom finds its way from one path to another that means the same;
// here every path is an action's with a few pieces put in.
func TestNoActionSlipsByBehindPiecesPutIn(t *testing.T) {
	rs := defaultRoutes(t)
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"/", "//", "%2F", "%2f", "%252F", `\`, "%5C", ".", "..", "/.", "/..", "/../", "/./", "%2e", "%2E%2e", "/%2e%2e/", "/%252e%252e/",
		";", ";x", ";x=/", "/;/", "..;", "%3B", "%20", "%00", "%0A", "%3F", "%23", "%25", "%zz", "x", "/x", "x/", "/x/..", "/x/../", "/x//..",
		"x%2Fy/..", "x%2Fy/%2e%2e/", "execute", "/actions/",
	}
	letters := strings.NewReplacer("x", "%78", "t", "%74", "a", "%61")
	for range 3_000 {
		p := []string{
			"/api/v2/integrations/actions/i/execute", "/api/v2/integrations/actions/i/draft/test",
			"/api/v2/dataactions/actions/i/invoke", "/api/v2/quality/conversations/i/evaluations",
		}[random.IntN(4)]
		for range random.IntN(4) {
			at := 1 + random.IntN(len(p))
			p = p[:at] + pieces[random.IntN(len(pieces))] + p[at:]
		}
		switch random.IntN(6) {
		case 0:
			p = letters.Replace(p)
		case 1:
			p = strings.ReplaceAll(p, "actions", "ACTIONS")
		case 2:
			p = strings.ReplaceAll(p, "%", "%25")
		}
		noneSlipsBy(t, rs, p)
		if t.Failed() {
			return
		}
	}
}
