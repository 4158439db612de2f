package genesys

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
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
type Routes struct {
	patterns []Pattern
	routes   []route
}

// Patterns returns what rs was made of. It must not be changed.
func (rs *Routes) Patterns() []Pattern { return rs.patterns }

// String returns the pattern as it is configured.
func (p Pattern) String() string {
	if p.Method == "" {
		return http.MethodPost + " " + p.Path
	}
	return p.Method + " " + p.Path
}

// Honored tells whether the pattern is that of a path that is documented to honor
// an Idempotency-Key.
func (p Pattern) Honored() bool { return slices.Contains(honoredPatterns, p.Path) }

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
	disguise *regexp.Regexp // matches the plain form of what some server might take for the path
	odd      *regexp.Regexp // likewise, if servers may leave out segments of it
}

// NewRoutes returns routes for patterns; without patterns, those of the
// platform's and the tutorial's data actions.
func NewRoutes(patterns []Pattern) (*Routes, error) {
	if len(patterns) == 0 {
		for _, p := range append(honoredPatterns[:len(honoredPatterns):len(honoredPatterns)], ignoredPatterns...) {
			patterns = append(patterns, Pattern{Path: p})
		}
	}
	rs := &Routes{patterns: patterns}
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
	var expr, odd strings.Builder
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
		default:
			literal := plainPath(decoded(s)).path
			if literal == "" {
				return route{}, fmt.Errorf("path pattern %q has an empty segment", p.Path)
			}
			literal = regexp.QuoteMeta(literal)
			expr.WriteString(literal)
			odd.WriteString("(/.*)?" + literal)
		}
	}
	r.disguise = regexp.MustCompile("(?is)^" + expr.String() + "$")
	r.odd = regexp.MustCompile("(?is)^" + odd.String() + "(/.*)?$")
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
			return Match{Action: action, Honored: method == http.MethodPost && Honors(escapedPath)}, true
		}
	}
	var readings []reading
	for i := range rs.routes {
		r := &rs.routes[i]
		if !strings.EqualFold(r.method, method) {
			continue
		}
		if readings == nil {
			readings = readingsOf(escapedPath)
		}
		for _, p := range readings {
			if r.disguise.MatchString(p.path) || p.odd && r.odd.MatchString(p.path) {
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
		// What is not plain in an id, as an encoded slash, might lead elsewhere.
		if id, ok := honored[i].match(escapedPath); ok && decoded(id) == id && plainPath(id) == (reading{path: "/" + id}) {
			return true
		}
	}
	return false
}

// reading is the plain form of a path.
type reading struct {
	path string

	// odd says that there was more to the path, for which a server may leave
	// out segments: dot segments take others with them, a NUL or a question
	// mark all that follow, and an empty segment, or one that is nothing but
	// blanks or parameters, itself. Whatever the server makes of it, it has
	// some of path's segments in path's order.
	odd bool
}

// readingsOf returns what servers may make of a path: decoded once, twice or
// not at all.
func readingsOf(escapedPath string) []reading {
	var readings []reading
	p := escapedPath
	for range 3 {
		readings = append(readings, plainPath(p))
		d := decoded(p)
		if d == p {
			break
		}
		p = d
	}
	return readings
}

// plainPath returns the plain form of a path: no empty segments, no dot
// segments, no parameters, nothing that a server may cut off a segment's end.
func plainPath(p string) reading {
	var r reading
	var b strings.Builder
	for i, s := range strings.Split(strings.ReplaceAll(p, `\`, "/"), "/") {
		plain := s
		if end := strings.IndexAny(plain, ";?#\x00"); end >= 0 {
			plain = plain[:end]
		}
		plain = strings.TrimRight(plain, ". \t\r\n")
		if plain != "" {
			b.WriteString("/" + plain)
		}
		if plain != s || plain == "" && i > 0 {
			r.odd = true
		}
	}
	r.path = b.String()
	return r
}

// decoded returns p with its escapes decoded. Unlike url.PathUnescape it leaves
// an invalid one as it is, and goes on, as other decoders do.
func decoded(p string) string {
	if !strings.Contains(p, "%") {
		return p
	}
	var b strings.Builder
	for i := 0; i < len(p); i++ {
		if p[i] == '%' && i+2 < len(p) {
			if c, err := strconv.ParseUint(p[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(p[i])
	}
	return b.String()
}
