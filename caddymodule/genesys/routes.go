package genesys

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
)

// InvokePath returns the path of the tutorial's API that runs the action id.
func InvokePath(id string) string {
	return "/api/v2/dataactions/actions/" + url.PathEscape(id) + "/invoke"
}

// honoredPatterns are the paths whose documentation says that they honor an
// Idempotency-Key.
var honoredPatterns = []string{
	"/api/v2/dataactions/actions/*/invoke",
	"/api/v2/quality/conversations/*/evaluations",
}

// ignoredPatterns are the other paths that run a data action, or do something
// as good as that: the test endpoints execute the action as well. Their
// documentation knows no Idempotency-Key.
var ignoredPatterns = []string{
	"/api/v2/integrations/actions/*/execute",
	"/api/v2/integrations/actions/*/test",
	"/api/v2/integrations/actions/*/draft/test",
}

// Pattern names requests by method and path.
type Pattern struct {
	Method string // empty: POST

	// Path starts with a slash. A segment that is * or {name} stands for any
	// one segment; as the last one, * stands for everything below.
	Path string
}

// Routes tell data actions from all other requests. They are immutable.
type Routes struct{ routes []route }

// Match is what Routes know of a data action.
type Match struct {
	// Action is the segment that the pattern's first wildcard stands for,
	// still encoded: the action's id, on the platform's own paths.
	Action string

	// Honored says that the path is documented to honor an Idempotency-Key.
	Honored bool
}

type route struct {
	method   string
	segments []string       // "*" for a wildcard
	below    bool           // the last segment stands for everything below
	disguise *regexp.Regexp // matches what some server might take for the path
}

// NewRoutes returns routes for patterns; without patterns, those of the
// platform's and the tutorial's data actions.
func NewRoutes(patterns []Pattern) (*Routes, error) {
	if len(patterns) == 0 {
		for _, p := range append(honoredPatterns[:len(honoredPatterns):len(honoredPatterns)], ignoredPatterns...) {
			patterns = append(patterns, Pattern{Path: p})
		}
	}
	rs := &Routes{}
	for _, p := range patterns {
		r, err := newRoute(p)
		if err != nil {
			return nil, err
		}
		rs.routes = append(rs.routes, r)
	}
	return rs, nil
}

func newRoute(p Pattern) (route, error) {
	if !strings.HasPrefix(p.Path, "/") {
		return route{}, fmt.Errorf("path pattern %q must start with a slash", p.Path)
	}
	if strings.ContainsAny(p.Path, "?#") {
		return route{}, fmt.Errorf("path pattern %q must not contain a query or fragment", p.Path)
	}
	r := route{method: p.Method, segments: strings.Split(p.Path[1:], "/")}
	if r.method == "" {
		r.method = http.MethodPost
	}
	var expr strings.Builder
	for i, s := range r.segments {
		last := i == len(r.segments)-1
		switch {
		case s == "*" && last:
			r.below = true
			expr.WriteString("/.*")
		case s == "*", strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}"):
			r.segments[i] = "*"
			expr.WriteString("/.+") // an id may hold an encoded slash
		case strings.ContainsAny(s, "*{}"):
			return route{}, fmt.Errorf("path pattern %q: a wildcard must be a whole segment", p.Path)
		case s == "":
			return route{}, fmt.Errorf("path pattern %q has an empty segment", p.Path)
		default:
			expr.WriteString("/" + regexp.QuoteMeta(plain(s)))
		}
	}
	r.disguise = regexp.MustCompile("^" + expr.String() + "$")
	return r, nil
}

// Match tells whether a request is a data action. escapedPath is the path as
// it goes to the upstream.
//
// Servers differ in what they take for the same path: doubled slashes, letters
// in the other case or needlessly encoded, dot segments, encoded slashes, path
// parameters. A request that some server might take for a data action is
// matched too, and never counts as honored: it had better be sent once too few
// than once too often.
func (rs *Routes) Match(method, escapedPath string) (Match, bool) {
	for i := range rs.routes {
		r := &rs.routes[i]
		if action, ok := r.match(escapedPath); ok && strings.EqualFold(r.method, method) {
			return Match{Action: action, Honored: r.method == http.MethodPost && Honors(escapedPath)}, true
		}
	}
	var readings []string
	for i := range rs.routes {
		r := &rs.routes[i]
		if !strings.EqualFold(r.method, method) {
			continue
		}
		if readings == nil {
			readings = readingsOf(escapedPath)
		}
		for _, p := range readings {
			if r.disguise.MatchString(p) {
				return Match{}, true
			}
		}
	}
	return Match{}, false
}

// match tells whether escapedPath is the route's path to the letter.
func (r *route) match(escapedPath string) (action string, ok bool) {
	rest, ok := strings.CutPrefix(escapedPath, "/")
	if !ok {
		return "", false
	}
	for i, want := range r.segments {
		if i == len(r.segments)-1 && r.below {
			return action, true
		}
		got, after, more := strings.Cut(rest, "/")
		if more != (i < len(r.segments)-1) || want != "*" && got != want {
			return "", false
		}
		if want == "*" {
			if got == "" || got == "." || got == ".." {
				return "", false
			}
			if action == "" {
				action = got
			}
		}
		rest = after
	}
	return action, true
}

var honored = func() (rs []route) {
	for _, p := range honoredPatterns {
		r, err := newRoute(Pattern{Path: p})
		if err != nil {
			panic(err)
		}
		rs = append(rs, r)
	}
	return rs
}()

// Honors tells whether escapedPath is, to the letter, one that is documented
// to honor an Idempotency-Key.
func Honors(escapedPath string) bool {
	for i := range honored {
		// An encoded slash or dot in the id might lead elsewhere.
		if id, ok := honored[i].match(escapedPath); ok && plain(id) == strings.ToLower(id) {
			return true
		}
	}
	return false
}

// readingsOf returns what servers may make of a path: decoded once, twice or
// not at all, with dot segments resolved or left.
func readingsOf(escapedPath string) []string {
	var readings []string
	p := escapedPath
	for range 3 {
		q := plainPath(p)
		readings = append(readings, q, path.Clean(q))
		decoded, err := url.PathUnescape(p)
		if err != nil || decoded == p {
			break
		}
		p = decoded
	}
	return readings
}

// plainPath returns the plainest form of a path that still has its dot
// segments: no empty segments, no parameters, lower case.
func plainPath(p string) string {
	var b strings.Builder
	for _, s := range strings.Split(strings.ReplaceAll(p, `\`, "/"), "/") {
		s, _, _ = strings.Cut(s, ";")
		if s != "." && s != ".." {
			s = strings.TrimRight(s, ". \t\r\n\x00")
		}
		if s != "" {
			b.WriteString("/" + strings.ToLower(s))
		}
	}
	return b.String()
}

// plain returns a segment decoded and in lower case.
func plain(segment string) string {
	if s, err := url.PathUnescape(segment); err == nil {
		segment = s
	}
	return strings.ToLower(segment)
}
