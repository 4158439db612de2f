package test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// ward is a platform where calls with the header Hold wait at the door until they
// are let in. It remembers what it answered last.
type ward struct {
	*platform
	open chan struct{}
	once sync.Once

	mu   sync.Mutex
	held int    // guarded by mu; how many have come to the door
	last answer // guarded by mu; to an action
}

var hold = []string{"Hold", "yes"}

func newWard(t *testing.T, cfg sandbox.Config) *ward {
	t.Helper()
	cfg.ClientSecret = secret
	s, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &ward{open: make(chan struct{})}
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.Server()
	server.Config.Handler = w.guard(server.Config.Handler)
	server.Start()
	t.Cleanup(func() {
		w.letIn()
		_ = s.Close()
		server.CloseClientConnections()
		server.Close()
	})
	w.platform = &platform{s, server.URL}
	return w
}

func (w *ward) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Hold") != "" {
			w.mu.Lock()
			w.held++
			w.mu.Unlock()
			<-w.open
		}
		if !strings.Contains(r.URL.Path, "/actions/") {
			next.ServeHTTP(rw, r)
			return
		}
		tap := &tap{ResponseWriter: rw}
		next.ServeHTTP(tap, r)
		w.mu.Lock()
		w.last = answer{tap.status, rw.Header().Clone(), tap.body.String()}
		w.mu.Unlock()
	})
}

// letIn opens the door for good.
func (w *ward) letIn() { w.once.Do(func() { close(w.open) }) }

// waits tells whether n calls have come to the door.
func (w *ward) waits(n int) func() bool {
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.held == n
	}
}

func (w *ward) answered() answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// tap remembers what is written.
type tap struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (t *tap) WriteHeader(status int) {
	t.status = status
	t.ResponseWriter.WriteHeader(status)
}

func (t *tap) Write(b []byte) (int, error) {
	t.body.Write(b)
	return t.ResponseWriter.Write(b)
}

func (t *tap) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// with returns r with a longer header.
func (r request) with(header ...string) request {
	r.header = append(slices.Clone(r.header), header...)
	return r
}

func later(r request) request { return r.with("Prefer", "respond-async") }

// handOver hands a call over, and returns where its answer is to be had.
func (s *sidecar) handOver(t testing.TB, r request) (location string) {
	t.Helper()
	a := s.send(t, later(r))
	wantAccepted(t, a)
	return a.header.Get("Location")
}

func wantAccepted(t testing.TB, a answer) {
	t.Helper()
	wait, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != 202 || a.header.Get("Location") == "" || err != nil || wait < 1 || a.header.Get("Idempotency-Key") == "" {
		t.Fatalf("got %+v, want that the call is accepted", a)
	}
}

// asks asks for the answer of a call that was handed over.
func (s *sidecar) asks(t testing.TB, location string, header ...string) answer {
	t.Helper()
	return s.send(t, request{method: http.MethodGet, path: location, header: header})
}

// state is how a call stands of which a is told.
func (a answer) state() string {
	var body struct{ State string }
	_ = json.Unmarshal([]byte(a.body), &body)
	return body.State
}

// outcome waits for the answer of a call that was handed over.
func (s *sidecar) outcome(t testing.TB, location string, header ...string) (a answer) {
	t.Helper()
	waitFor(t, func() bool {
		a = s.asks(t, location, append(header, "Prefer", "wait=5")...)
		return a.status != 202
	})
	return a
}

func (s *sidecar) cancel(t testing.TB, location string, header ...string) answer {
	t.Helper()
	return s.send(t, request{method: http.MethodDelete, path: location, header: header})
}

func wantProblem(t testing.TB, a answer, status int, code string) {
	t.Helper()
	if a.status != status || !strings.Contains(a.body, `"code":"`+code+`"`) {
		t.Errorf("got %+v, want %d %s", a, status, code)
	}
}

func wantStatus(t testing.TB, a answer, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("got %+v, want %d", a, status)
	}
}

// block hands a call over that stands at the platform's door, so that those which
// come after it wait for their turn.
func (s *sidecar) block(t testing.TB, w *ward, header ...string) (location string) {
	t.Helper()
	location = s.handOver(t, request{path: execute, body: `{"blocks":true}`}.with(hold...).with("Idempotency-Key", "block").with(header...))
	waitFor(t, w.waits(1))
	return location
}

func TestACallThatIsHandedOverIsAnsweredLater(t *testing.T) {
	for _, store := range []string{"disk", "memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			w := newWard(t, sandbox.Config{})
			o := options{}
			switch store {
			case "memory":
				o.global = "store memory"
			case "redis":
				o.global = onRedis(newRedis(t).URL())
			}
			s := newSidecar(t, w.platform, o)
			running := s.send(t, later(keyed(1)).with(hold...))
			wantAccepted(t, running)
			if p := running.header.Get("Preference-Applied"); p != "respond-async" {
				t.Errorf("applied %q", p)
			}
			if key := running.header.Get("Idempotency-Key"); key != "key-1" {
				t.Errorf("told the key %q", key)
			}
			waitFor(t, w.waits(1))
			queued := s.send(t, later(keyed(2)))
			wantAccepted(t, queued)
			wantAccepted(t, s.asks(t, running.header.Get("Location")))
			if state := s.asks(t, running.header.Get("Location")).state(); state != "running" {
				t.Errorf("the first is %q", state)
			}
			if state := s.asks(t, queued.header.Get("Location")).state(); state != "queued" || queued.state() != "queued" {
				t.Errorf("the second is %q, and was %q", state, queued.state())
			}
			w.wantEffects(t, 0)

			w.letIn()
			s.outcome(t, running.header.Get("Location"))
			a := s.outcome(t, queued.header.Get("Location"))
			want := w.answered()
			if a.status != 200 || a.status != want.status || a.body != want.body {
				t.Errorf("got %+v, the platform answered %+v", a, want)
			}
			for name, values := range want.header {
				if name != "Date" && !slices.Equal(a.header[name], values) {
					t.Errorf("%s is %q, the platform's was %q", name, a.header[name], values)
				}
			}
			again := s.asks(t, queued.header.Get("Location"))
			for _, name := range []string{"Date", "Cache-Status", "Preference-Applied"} { // of the asking
				again.header.Del(name)
				a.header.Del(name)
			}
			if again.status != a.status || again.body != a.body || !maps.EqualFunc(again.header, a.header, slices.Equal) {
				t.Errorf("first %+v, then %+v", a, again)
			}
			wantReplay(t, s.send(t, keyed(2)), a)
			w.wantEffects(t, 2)
		})
	}
}

func TestACallThatEndsWithinTheWaitIsAnsweredItself(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	a := s.send(t, keyed(1).with("Prefer", "respond-async, wait=50"))
	if a.status != 200 || a.replayed() || a.header.Get("Preference-Applied") != "respond-async, wait=50" || a.header.Get("Location") != "" {
		t.Errorf("got %+v", a)
	}
	wantReplay(t, s.send(t, keyed(1)), a)
	wantAccepted(t, s.send(t, keyed(2).with("Prefer", "respond-async, wait=1").with(hold...)))
	w.wantEffects(t, 1)
	w.letIn()
}

func TestWhoAsksMayWaitForTheAnswer(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	location := s.block(t, w)
	answered := s.begin(t, request{method: http.MethodGet, path: location, header: []string{"Prefer", "wait=50"}})
	wantAccepted(t, s.asks(t, location))
	w.letIn()
	if a := answered(); a.status != 200 || a.header.Get("Preference-Applied") != "wait=50" {
		t.Errorf("got %+v", a)
	}
	if a := s.send(t, request{method: http.MethodHead, path: location}); a.status != 200 || a.body != "" {
		t.Errorf("HEAD got %+v", a)
	}
}

func TestCallsAreHandedOverAsConfigured(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{block: "async off"})
	if a := s.send(t, later(keyed(1))); a.status != 200 || a.header.Get("Preference-Applied") != "" {
		t.Errorf("off: got %+v", a)
	}
	s.configure(t, options{block: "async on"})
	s.reload(t)
	a := s.send(t, keyed(2))
	wantAccepted(t, a)
	wantStatus(t, s.outcome(t, a.header.Get("Location")), 200)
	wantStatus(t, s.send(t, keyed(3).with("Prefer", "wait=50")), 200)
	p.wantEffects(t, 3)
}

func TestTheInvokeEndpointTakesCallsForLater(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	const endpoint = "invoke_endpoint /invoke-action custom_-_6ab1a8ae"
	s := newSidecar(t, w.platform, options{block: endpoint})
	body := func(key string) request {
		return request{path: "/invoke-action", body: `{"idempotency_key":"` + key + `","input_payload":{"n":1}}`}
	}
	s.block(t, w)
	location := s.handOver(t, body("k"))
	if !strings.HasPrefix(location, "/invoke-action/") {
		t.Errorf("its location is %s", location)
	}
	if again := s.handOver(t, body("k")); again != location {
		t.Errorf("first %s, then %s", location, again)
	}
	other := s.handOver(t, body("other"))
	wantAccepted(t, s.asks(t, location))
	wantStatus(t, s.cancel(t, other), 204)

	s.configure(t, options{block: endpoint + "\n\t\tdeadline 50s"})
	s.reload(t)
	w.letIn()
	a := s.outcome(t, location)
	wantReplay(t, s.send(t, body("k")), a)
	if want := w.answered(); a.body != want.body {
		t.Errorf("got %s, the platform answered %s", a.body, want.body)
	}
	w.wantEffects(t, 2)
}

func TestTheLocationLeadsBackThroughAPrefix(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{site: "handle_path /gc/* {\n\t\tgenesys_cloud\n\t}\n\thandle_path /admin/* {\n\t\trewrite * /api/v2{uri}\n\t\tgenesys_cloud\n\t}"})
	for prefix, path := range map[string]string{"/gc/": "/gc" + execute, "/admin/": "/admin" + strings.TrimPrefix(execute, "/api/v2")} {
		call := keyed(1).with("Idempotency-Key-Is", prefix)
		call.path, call.header = path, []string{"Idempotency-Key", prefix}
		location := s.handOver(t, call)
		if !strings.HasPrefix(location, prefix) {
			t.Errorf("its location is %s", location)
		}
		wantReplay(t, s.send(t, call), s.outcome(t, location))
	}
	p.wantEffects(t, 2)
}

func TestACallIsToldToItsOwnScopeAlone(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{block: "scope {header.X-Caller}"})
	mine, other := []string{"X-Caller", "a"}, []string{"X-Caller", "b"}
	s.block(t, w, mine...)
	location := s.handOver(t, keyed(1).with(mine...))
	wantProblem(t, s.asks(t, location, other...), 404, "call.not.found")
	wantProblem(t, s.asks(t, location), 404, "call.not.found")
	wantProblem(t, s.cancel(t, location, other...), 404, "call.not.found")
	wantAccepted(t, s.asks(t, location, mine...))
	theirs := s.handOver(t, keyed(1).with(other...)) // does not wait for the first scope's
	wantStatus(t, s.outcome(t, theirs, other...), 200)
	if theirs == location {
		t.Errorf("both are at %s", location)
	}
	w.letIn()
	wantStatus(t, s.outcome(t, location, mine...), 200)
	wantProblem(t, s.asks(t, location, other...), 404, "call.not.found")
	w.wantEffects(t, 3)
}

func TestACallIsCancelledUntilItsTurnHasCome(t *testing.T) {
	for _, store := range []string{"disk", "memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			w := newWard(t, sandbox.Config{})
			o := options{}
			switch store {
			case "memory":
				o.global = "store memory"
			case "redis":
				o.global = onRedis(newRedis(t).URL())
			}
			s := newSidecar(t, w.platform, o)
			running := s.block(t, w)
			queued := s.handOver(t, keyed(1))
			behind := s.handOver(t, keyed(2))
			if a := s.cancel(t, queued); a.status != 204 || a.body != "" {
				t.Errorf("cancelling: %+v", a)
			}
			wantProblem(t, s.cancel(t, running), 409, "call.started")
			wantProblem(t, s.asks(t, queued), 410, "call.released")
			wantProblem(t, s.cancel(t, queued), 410, "call.released")
			wantProblem(t, s.cancel(t, queued[:len(queued)-64]+strings.Repeat("0", 64)), 404, "call.not.found")
			w.letIn()
			wantStatus(t, s.outcome(t, behind), 200)
			wantProblem(t, s.cancel(t, behind), 409, "call.started")
			wantProblem(t, s.asks(t, queued), 410, "call.released")
			w.wantEffects(t, 2)

			// Its key is free, also for another request.
			other := keyed(1)
			other.body = `{"other":true}`
			if a := s.send(t, other); a.status != 200 || a.replayed() {
				t.Errorf("its key: %+v", a)
			}
			wantStatus(t, s.asks(t, queued), 200)
			w.wantEffects(t, 3)
		})
	}
}

func TestAKeyOfACallThatWaitsIsNotForAnother(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	running := keyed(0).with(hold...)
	s.handOver(t, running)
	waitFor(t, w.waits(1))
	location := s.handOver(t, keyed(1))
	for _, r := range []request{running, keyed(1)} {
		r.body = `{"another":1}`
		wantProblem(t, s.send(t, r), 422, "key.reused")
		wantProblem(t, s.send(t, later(r)), 422, "key.reused")
	}
	w.letIn()
	s.outcome(t, location)
	mismatch := keyed(1)
	mismatch.body = `{"another":1}`
	wantProblem(t, s.send(t, mismatch), 422, "key.reused")
	wantProblem(t, s.send(t, later(mismatch)), 422, "key.reused")
	w.wantEffects(t, 2)
}

func TestARepeatOfACallThatWaits(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	location := s.handOver(t, keyed(1))
	for range 3 {
		a := s.send(t, later(keyed(1)))
		wantAccepted(t, a)
		if a.header.Get("Location") != location || !a.replayed() {
			t.Errorf("got %+v", a)
		}
	}
	synchronous := s.begin(t, keyed(1))
	patient := s.begin(t, request{method: http.MethodGet, path: location, header: []string{"Prefer", "wait=50"}})
	if a := s.send(t, keyed(1).with("Prefer", "respond-async, wait=1")); a.header.Get("Location") != location {
		t.Errorf("got %+v", a)
	}
	w.letIn()
	first := patient()
	wantReplay(t, synchronous(), first)
	wantReplay(t, s.send(t, later(keyed(1))), first) // it needs no other place to be told at
	w.wantEffects(t, 2)
}

func TestAnImpatientRepeatOfACallThatWaits(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{block: "wait off"})
	s.block(t, w)
	location := s.handOver(t, keyed(1))
	wantProblem(t, s.send(t, keyed(1)), 409, "key.in.use")
	w.letIn()
	s.outcome(t, location)
	wantStatus(t, s.send(t, keyed(1)), 200)
	w.wantEffects(t, 2)
}
