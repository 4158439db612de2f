package caddymodule

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// commandRun is what became of a command.
type commandRun struct {
	out, err string
	code     int
}

// runCommand runs a command of genesys as cobra would, with its output piped.
func runCommand(args ...string) commandRun {
	root := &cobra.Command{Use: "genesys-sidecar", SilenceUsage: true}
	genesys := &cobra.Command{Use: "genesys"}
	genesys.AddCommand(newStatusCommand(), newCallsCommand(), newHealthCommand(), newDoctorCommand())
	genesys.SetFlagErrorFunc(usageFlags)
	genesys.Args = usageArgs(cobra.NoArgs)
	genesys.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.AddCommand(genesys)
	var out, aside bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&aside)
	root.SetIn(strings.NewReader(""))
	root.SetArgs(append([]string{"genesys"}, args...))
	err := root.Execute()
	r := commandRun{out: out.String(), err: aside.String()}
	if err != nil {
		r.code = 1
		_, _ = fmt.Sscanf(err.Error(), "exiting with status %d", &r.code) // Caddy's own error has it unexported
	}
	return r
}

// fakeAPI is a double of the admin API: paths with their queries, and what they
// answer.
type fakeAPI struct {
	url     string
	asked   []string // method, path and query
	body    string   // of the last request that had one
	answers map[string]string
}

// newFakeAPI serves answers, each being a status and a body.
func newFakeAPI(t *testing.T, answers map[string]string) *fakeAPI {
	t.Helper()
	a := &fakeAPI{answers: answers}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := r.Method + " " + r.URL.RequestURI()
	a.asked = append(a.asked, asked)
	if b, _ := io.ReadAll(r.Body); len(b) > 0 {
		a.body = r.Header.Get("Content-Type") + " " + string(b)
	}
	status, body := 404, `{"error":"no such call"}`
	if answer, ok := a.answers[asked]; ok {
		number, rest, _ := strings.Cut(answer, " ")
		_, _ = fmt.Sscan(number, &status)
		body = rest
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (a *fakeAPI) run(args ...string) commandRun {
	return runCommand(append(args, "--address", a.url)...)
}

const (
	unknownCall = `{"id":"3f2a9c0112ab0000000000000000000000000000000000000000000000000000","digest":"3f2a9c0112ab","state":"unknown","action":"POST /api/v2/integrations/actions/custom_-_refund/execute","started":"2026-01-02T03:04:05Z","attempts":[{"started":"2026-01-02T03:04:05Z","took":0.213,"written":true,"status":504,"correlation_id":"c-1","verdict":"unknown"}],"answer":{"status":504,"content_type":"application/json","size":3},"resolvable":true}`
	doneCall    = `{"id":"aaaaaaaaaaaa0000000000000000000000000000000000000000000000000000","digest":"aaaaaaaaaaaa","state":"done","action":"POST /x","started":"2026-01-02T03:04:05Z","resolvable":false}`
)

func TestExitCodesAreThoseOfTheHelp(t *testing.T) {
	a := newFakeAPI(t, map[string]string{
		"GET /genesys/status":                       `200 {"store":{"kind":"disk"},"organizations":[{"token":{"state":"valid"}}]}`,
		"GET /genesys/calls?limit=50":               `200 {"calls":[` + unknownCall + `]}`,
		"GET /genesys/calls?limit=50&state=open":    `200 {"calls":[]}`,
		"GET /genesys/calls?action=x&limit=50":      `400 {"error":"bad"}`,
		"GET /genesys/calls?limit=50&scope=s":       `503 {"error":"the store is down"}`,
		"GET /genesys/calls/3f2a9c0112ab":           "200 " + unknownCall,
		"GET /genesys/calls/aaaaaaaaaaaa":           "200 " + doneCall,
		"DELETE " + callURL(doneCall):               `409 {"error":"it runs"}`,
		"DELETE " + callURL(unknownCall):            `204 `,
		"GET /genesys/health":                       `200 {"status":"ok"}`,
		"GET /genesys/ready":                        `503 {"status":"not ready","reasons":["store: down"]}`,
		"POST " + callURL(unknownCall) + "/resolve": "200 " + doneCall,
	})
	closed := httptest.NewServer(http.NotFoundHandler())
	stranger := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(stranger.Close)
	closed.Close()
	for _, test := range []struct {
		args string
		code int
		err  string // is in what is said aside
	}{
		{"status", 0, ""},
		{"calls list", 0, ""},
		{"calls list --exit-code", 7, ""},
		{"calls list --exit-code --state open", 0, ""},
		{"calls list --state nosuch", 2, "it is one of"},
		{"calls list --since yesterday", 2, "neither a duration"},
		{"calls list --limit 0", 2, "--all"},
		{"calls list --nosuch", 2, "unknown flag"},
		{"calls list more", 2, "more"},
		{"calls list --action x", 2, "bad"},
		{"calls list --scope s", 1, "the store is down"},
		{"calls nosuch", 2, "unknown command"},
		{"nosuch", 2, "unknown command"},
		{"calls show", 2, "accepts 1 arg"},
		{"calls show ffffffffffff", 4, "no such call"},
		{"calls show 3f2a9c0112ab", 0, ""},
		{"calls resolve 3f2a9c0112ab", 2, "--executed or --not-executed"},
		{"calls resolve 3f2a9c0112ab --executed --not-executed", 2, "either"},
		{"calls resolve 3f2a9c0112ab --executed", 2, "--yes"},
		{"calls resolve 3f2a9c0112ab --not-executed --status 200 --yes", 2, "of no use"},
		{"calls resolve 3f2a9c0112ab --executed --status 99 --yes", 2, "no status"},
		{"calls resolve 3f2a9c0112ab --executed --header x --yes", 2, "Name: value"},
		{"calls resolve 3f2a9c0112ab --executed --body-file /nonexistent --yes", 1, "reading"},
		{"calls resolve aaaaaaaaaaaa --executed --yes", 5, "its answer is known"},
		{"calls resolve 3f2a9c0112ab --executed --yes", 0, ""},
		{"calls forget", 2, "either"},
		{"calls forget 3f2a9c0112ab --scope s", 2, "either"},
		{"calls forget 3f2a9c0112ab --organization o --yes", 2, "goes with"},
		{"calls forget 3f2a9c0112ab", 2, "--yes"},
		{"calls forget aaaaaaaaaaaa --yes", 5, "it runs"},
		{"calls forget 3f2a9c0112ab --yes", 0, ""},
		{"health", 0, ""},
		{"health --ready", 1, "store: down"},
		{"health --address " + closed.URL, 3, "cannot be reached"},
		{"health --address " + stranger.URL, 3, "not the admin endpoint"},
		{"status --address " + closed.URL, 3, "cannot be reached"},
		{"calls show x --address " + stranger.URL, 3, "not the admin endpoint"},
		{"status --config /nonexistent", 1, "no such file"},
	} {
		args := strings.Fields(test.args)
		if !slices.Contains(args, "--address") && !slices.Contains(args, "--config") && !strings.HasSuffix(test.err, "command") {
			args = append(args, "--address", a.url)
		}
		r := runCommand(args...)
		if r.code != test.code || !strings.Contains(r.err, test.err) {
			t.Errorf("%s: exit code %d, want %d; said %q", test.args, r.code, test.code, r.err)
		}
	}
}

// callURL returns the API's path of a call.
func callURL(call string) string {
	c, err := readCall(json.RawMessage(call))
	if err != nil {
		panic(err)
	}
	return "/genesys/calls/" + c.ID
}

func TestAStoreOrATokenThatFailsIsAnExitCodeOfStatus(t *testing.T) {
	for _, body := range []string{
		`{"store":{"kind":"disk","error":"disk full"}}`,
		`{"organizations":[{"token":{"state":"failing","error":"disk full"}}]}`,
		`{"organizations":[{"token":{"state":"valid"}},{"name":"b","token":{"state":"rejected","error":"disk full"}}]}`,
	} {
		a := newFakeAPI(t, map[string]string{"GET /genesys/status": "200 " + body})
		if r := a.run("status"); r.code != 6 || !strings.Contains(r.out, "disk full") {
			t.Errorf("%s: exit code %d, %q", body, r.code, r.out)
		}
		if r := a.run("status", "--json"); r.code != 6 || r.out != body+"\n" {
			t.Errorf("--json: exit code %d, %q", r.code, r.out)
		}
	}
}

func TestAListingGoesThroughPages(t *testing.T) {
	a := newFakeAPI(t, map[string]string{
		"GET /genesys/calls?limit=2":            `200 {"calls":[` + doneCall + `],"next":"n1"}`,
		"GET /genesys/calls?cursor=n1&limit=1":  `200 {"calls":[],"next":"n2"}`,
		"GET /genesys/calls?cursor=n2&limit=1":  `200 {"calls":[` + unknownCall + `],"next":"n3"}`,
		"GET /genesys/calls?limit=100":          `200 {"calls":[` + doneCall + `],"next":"m"}`,
		"GET /genesys/calls?cursor=m&limit=100": `200 {"calls":[` + unknownCall + `]}`,
	})
	r := a.run("calls", "list", "--limit", "2")
	if r.code != 0 || strings.Count(r.out, "\n") != 3 || !strings.Contains(r.err, "there are more") {
		t.Errorf("got %+v, asked %q", r, a.asked)
	}
	for _, args := range [][]string{{"--all"}, {"--limit", "2"}} {
		r := a.run(append([]string{"calls", "list", "--json"}, args...)...)
		var told struct {
			Calls []json.RawMessage
			Next  string
		}
		if err := json.Unmarshal([]byte(r.out), &told); err != nil || len(told.Calls) != 2 ||
			string(told.Calls[0]) != doneCall || string(told.Calls[1]) != unknownCall {
			t.Errorf("%q: %v: %s", args, err, r.out)
		}
		if more := args[0] != "--all"; (told.Next != "") != more {
			t.Errorf("%q: next is %q", args, told.Next)
		}
	}
}

func TestAnEmptyListingIsADocumentToo(t *testing.T) {
	a := newFakeAPI(t, map[string]string{"GET /genesys/calls?limit=50": `200 {"calls":[]}`})
	if r := a.run("calls", "list", "--json"); r.out != `{"calls":[]}`+"\n" {
		t.Errorf("got %q", r.out)
	}
	if r := a.run("calls", "list"); r.out != "" || r.err != "no calls\n" {
		t.Errorf("got %+v", r)
	}
}

func TestAListingAsksForWhatTheFlagsSay(t *testing.T) {
	a := newFakeAPI(t, nil)
	a.run("calls", "list", "--state", "unknown,open", "--action", "POST /x", "--scope", "ann", "--organization", "o", "--since", "1h", "--limit", "7")
	want := "GET /genesys/calls?action=POST+%2Fx&limit=7&organization=o&scope=ann&since=1h&state=unknown%2Copen"
	if len(a.asked) != 1 || a.asked[0] != want {
		t.Errorf("asked %q", a.asked)
	}
}

func TestAResolutionIsSentAsItWasGiven(t *testing.T) {
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"--not-executed"}, `{"outcome":"not_executed"}`},
		{[]string{"--executed", "--note", "seen"}, `{"outcome":"executed","note":"seen"}`},
		{[]string{"--executed", "--body", `{"a": 1}`},
			`{"outcome":"executed","answer":{"status":200,"header":{"Content-Type":"application/json"},"body":"{\"a\": 1}"}}`},
		{[]string{"--executed", "--status", "201", "--header", "x-a: b", "--header", "content-type: text/csv", "--body", "a,b"},
			`{"outcome":"executed","answer":{"status":201,"header":{"Content-Type":"text/csv","X-A":"b"},"body":"a,b"}}`},
		{[]string{"--executed", "--body", "words"},
			`{"outcome":"executed","answer":{"status":200,"header":{"Content-Type":"text/plain; charset=utf-8"},"body":"words"}}`},
		{[]string{"--executed", "--status", "204"}, `{"outcome":"executed","answer":{"status":204,"header":{},"body":""}}`},
	} {
		a := newFakeAPI(t, map[string]string{
			"GET /genesys/calls/3f2a9c0112ab":           "200 " + unknownCall,
			"POST " + callURL(unknownCall) + "/resolve": "200 " + doneCall,
		})
		r := a.run(append([]string{"calls", "resolve", "3f2a9c0112ab", "--yes"}, test.flags...)...)
		if r.code != 0 || a.body != "application/json "+test.want {
			t.Errorf("%q: exit code %d, sent %s", test.flags, r.code, a.body)
		}
	}
}

func TestWhatIsPrintedHoldsNoEscapeSequences(t *testing.T) {
	evil := `"\u001b[2J\u0007\u202egpj.exe\u009b31m\nx"`
	call := strings.NewReplacer(`"POST /api/v2/integrations/actions/custom_-_refund/execute"`, evil, `"c-1"`, evil).Replace(unknownCall)
	call = strings.Replace(call, `"size":3`, `"size":3,"header":{"X":[`+evil+`]},"body":`+evil, 1)
	a := newFakeAPI(t, map[string]string{
		"GET /genesys/calls?limit=50":                 `200 {"calls":[` + call + `]}`,
		"GET /genesys/calls/3f2a9c0112ab?answer=full": "200 " + call,
		"GET /genesys/calls/3f2a9c0112ab":             "200 " + strings.Replace(call, `"resolvable":true`, `"resolvable":false,"words":[{"note":`+evil+`}]`, 1),
		"GET /genesys/status":                         `200 {"version":` + evil + `,"store":{"error":` + evil + `},"organizations":[{"name":` + evil + `,"api_url":` + evil + `}],"handlers":[{"actions":[` + evil + `],"why":` + evil + `}]}`,
		"GET /genesys/calls/bad":                      `400 {"error":` + evil + `}`,
	})
	for _, args := range [][]string{
		{"calls", "list"}, {"calls", "show", "3f2a9c0112ab", "--answer"}, {"calls", "show", "3f2a9c0112ab"},
		{"calls", "resolve", "3f2a9c0112ab", "--executed", "--yes"}, {"calls", "show", "bad"}, {"status"},
	} {
		r := a.run(args...)
		if text := r.out + r.err; strings.ContainsFunc(text, func(c rune) bool { return c != '\n' && !printable(c) }) || !strings.Contains(text, `\x1b[2J`) && args[1] != "resolve" {
			t.Errorf("%q: %q", args, text)
		}
	}
}

func TestJSONOnATerminalMeansTheSame(t *testing.T) {
	in := "{\"a\":\"\u009b31m\u202e\U000e0001ü\",\n\t\"b\":1}"
	out := harmlessJSON(in)
	if strings.ContainsFunc(out, func(c rune) bool { return !strings.ContainsRune("\n\t", c) && !printable(c) }) {
		t.Errorf("got %q", out)
	}
	var a, b map[string]any
	if err := errors.Join(json.Unmarshal([]byte(in), &a), json.Unmarshal([]byte(out), &b)); err != nil || fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%v: %v is not %v", err, b, a)
	}
}

func TestATableOnANarrowTerminalKeepsItsFirstColumns(t *testing.T) {
	var b bytes.Buffer
	p := &printer{w: &b, width: 50}
	tab := &table{head: []string{"ID", "ACTION"}}
	tab.add("3f2a9c0112ab", "POST /api/v2/integrations/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/execute")
	p.table(tab)
	for line := range strings.Lines(b.String()) {
		if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > 50 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(b.String(), "\n3f2a9c0112ab  POST") || !strings.Contains(b.String(), "…") || !strings.HasSuffix(b.String(), "execute\n") {
		t.Errorf("got %s", b.String())
	}
}

func TestATerminalHasColorsAndAPipeHasNone(t *testing.T) {
	call, err := readCall(json.RawMessage(unknownCall))
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[bool]string)
	for _, color := range []bool{true, false} {
		var b bytes.Buffer
		(&printer{w: &b, color: color}).calls([]toldCall{call}, time.Now())
		texts[color] = b.String()
	}
	if !strings.Contains(texts[true], "\x1b[31munknown\x1b[0m") || strings.Contains(texts[false], "\x1b") {
		t.Errorf("got %q and %q", texts[true], texts[false])
	}
	if uncolored := strings.NewReplacer("\x1b[31m", "", "\x1b[2m", "", "\x1b[0m", "").Replace(texts[true]); uncolored != texts[false] {
		t.Errorf("without colors %q is not %q", uncolored, texts[false])
	}
}

func TestAges(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		0: "0s ago", 59 * time.Second: "59s ago", 3 * time.Minute: "3m ago", 119 * time.Minute: "1h ago",
		47 * time.Hour: "47h ago", 48 * time.Hour: "2d ago", -90 * time.Second: "in 1m",
	} {
		if got := ago(now, now.Add(-d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if got := ago(now, time.Time{}); got != "-" {
		t.Errorf("never: %q", got)
	}
}

func TestTheAdminEndpointIsFoundAsCaddyFindsIt(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &fakeAPI{answers: map[string]string{"GET /genesys/health": `200 {"status":"ok"}`}}}
	go func() { _ = server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close() })
	for _, permissions := range []string{"", "|0660"} {
		if r := runCommand("health", "--address", "unix/"+socket+permissions); r.code != 0 {
			t.Errorf("a socket%s: %+v", permissions, r)
		}
	}
	for config, want := range map[string]string{
		`{"admin":{"listen":"127.0.0.1:1234"}}`: "http://127.0.0.1:1234",
		`{"admin":{"listen":":1234"}}`:          "http://localhost:1234",
		`{}`:                                    "http://localhost:2019",
	} {
		c, err := newAdminClient("", []byte(config), time.Second)
		if err != nil || c.base != want || c.origin != want {
			t.Errorf("%s: %+v, %v", config, c, err)
		}
	}
	if _, err := newAdminClient("", []byte(`{"admin":{"disabled":true}}`), time.Second); exitCode(err) != 3 {
		t.Errorf("switched off: %v", err)
	}
	if c, err := newAdminClient("http://ann:pass@127.0.0.1:8081/", nil, time.Second); err != nil || strings.Contains(c.address, "pass") || c.base != "http://ann:pass@127.0.0.1:8081" {
		t.Errorf("a site: %+v, %v", c, err)
	}
}

func TestShellsCompleteStatesAndCalls(t *testing.T) {
	a := newFakeAPI(t, map[string]string{
		"GET /genesys/calls?limit=50&state=unknown%2Copen": `200 {"calls":[` + unknownCall + `]}`,
		"GET /genesys/calls?limit=50":                      `200 {"calls":[` + unknownCall + `,` + doneCall + `]}`,
	})
	complete := func(args ...string) []string {
		root := &cobra.Command{Use: "genesys-sidecar"}
		genesys := &cobra.Command{Use: "genesys"}
		genesys.AddCommand(newCallsCommand())
		root.AddCommand(genesys)
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(io.Discard)
		root.SetArgs(append([]string{"__complete", "genesys", "calls"}, args...))
		if err := root.Execute(); err != nil {
			t.Error(err)
		}
		var words []string
		for line := range strings.Lines(out.String()) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			words = append(words, word)
		}
		return words
	}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"list", "--state", "u"}, []string{"unknown", ":4"}},
		{[]string{"list", "--state", "unknown,o"}, []string{"unknown,open", ":4"}},
		{[]string{"resolve", "--address", a.url, ""}, []string{"3f2a9c0112ab", ":36"}},
		{[]string{"show", "--address", a.url, ""}, []string{"3f2a9c0112ab", "aaaaaaaaaaaa", ":36"}},
		{[]string{"forget", "--address", a.url, "a"}, []string{"aaaaaaaaaaaa", ":36"}},
		{[]string{"show", "--address", "127.0.0.1:1", ""}, []string{":4"}},
		{[]string{"show", "--address", a.url, "3f2a9c0112ab", ""}, []string{":4"}},
	} {
		if got := complete(test.args...); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.args, got, test.want)
		}
	}
}
