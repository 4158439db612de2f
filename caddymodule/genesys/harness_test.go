package genesys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The upstreams of the attempt loop's tests: a scripted RoundTripper where time
// matters, real connections (wire_test.go) where bytes do.

// arrival is a request that has reached an upstream.
type arrival struct {
	at     time.Time
	method string
	header http.Header
	key    string
	body   string
	length int64
	token  string // of the request's context
}

// step is what an upstream does about one request. It has been read.
type step func(r *http.Request) (*http.Response, error)

// script is an upstream that takes one step after the other, then the last one
// again and again.
type script struct {
	steps []step

	mu       sync.Mutex
	arrivals []arrival
}

func scripted(steps ...step) *script { return &script{steps: steps} }

func (s *script) RoundTrip(r *http.Request) (*http.Response, error) {
	a := arrival{at: time.Now(), method: r.Method, header: r.Header.Clone(), key: r.Header.Get("Idempotency-Key"), length: r.ContentLength}
	if v := r.Header["idempotency-key"]; v != nil {
		a.key = v[0]
	}
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		a.body = string(b)
	}
	tok, _ := TokenFrom(r.Context())
	a.token = tok.Value
	s.mu.Lock()
	next := s.steps[min(len(s.arrivals), len(s.steps)-1)]
	s.arrivals = append(s.arrivals, a)
	s.mu.Unlock()
	return next(r)
}

func (s *script) seen() []arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]arrival(nil), s.arrivals...)
}

func (s *script) count() int { return len(s.seen()) }

// connected says, as a real transport does, that bytes may leave from now on.
func connected(r *http.Request) {
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.GotConn != nil {
		trace.GotConn(httptrace.GotConnInfo{})
	}
}

// says answers.
func says(status int, body string, header ...string) step {
	return func(r *http.Request) (*http.Response, error) {
		connected(r)
		return answer(status, body, header...), nil
	}
}

// saysCode answers with the platform's ErrorBody.
func saysCode(status int, code string, header ...string) step {
	return says(status, platformBody(status, code), header...)
}

func platformBody(status int, code string) string {
	return fmt.Sprintf(`{"code":%q,"status":%d,"message":"m"}`, code, status)
}

var errReset = errors.New("read: connection reset by peer")

// drops fails after the request was written.
func drops(r *http.Request) (*http.Response, error) {
	connected(r)
	return nil, errReset
}

// noDial fails before anything was written.
func noDial(*http.Request) (*http.Response, error) {
	return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
}

// hangs never answers.
func hangs(r *http.Request) (*http.Response, error) {
	connected(r)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// cut answers with a body that breaks off.
func cut(status int) step {
	return func(r *http.Request) (*http.Response, error) {
		connected(r)
		resp := answer(status, "")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"half":`), failing{io.ErrUnexpectedEOF}))
		return resp, nil
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// trickles answers with a body that never ends.
func trickles(r *http.Request) (*http.Response, error) {
	connected(r)
	resp := answer(200, "")
	resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"half":`), untilDone{r.Context()}))
	return resp, nil
}

type untilDone struct{ ctx context.Context }

func (u untilDone) Read([]byte) (int, error) {
	<-u.ctx.Done()
	return 0, u.ctx.Err()
}

// bench is an Invoker with all that belongs to it.
type bench struct {
	*Invoker
	login *endpoint
	log   *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// benchFor must be called inside the bubble that uses the result.
func benchFor(t *testing.T, transport http.RoundTripper) bench {
	t.Helper()
	login := &endpoint{life: 86400}
	log := new(lockedBuffer)
	return bench{
		Invoker: &Invoker{
			Transport: transport,
			Tokens:    tokensFor(t, login),
			Pause:     new(Pause),
			Log:       slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		},
		login: login,
		log:   log,
	}
}

// call is a data action with key "k-1" for an upstream that ignores it.
func call() Request {
	return Request{
		Method: http.MethodPost,
		URL:    &url.URL{Scheme: "http", Host: "api.example.com", Path: "/api/v2/integrations/actions/a/execute"},
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   []byte(`{"n":9007199254740993}`),
		Key:    "k-1",
	}
}

// honoredCall is one for an upstream that honors it.
func honoredCall() Request {
	r := call()
	r.URL.Path = "/api/v2/dataactions/actions/a/invoke"
	r.Honored = true
	return r
}

// within bounds a call as its caller does.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// outcome is a Reply in short.
type outcome struct {
	fate   Fate
	cause  Cause
	status int
}

func wantOutcome(t *testing.T, got Reply, want outcome) {
	t.Helper()
	if o := (outcome{got.Fate, got.Cause, got.Status}); o != want {
		t.Errorf("reply %+v, want %+v (%v)", o, want, got.Err)
	}
	if (got.Err == nil) != (want.cause == Answered || want.cause == Conflicted) {
		t.Errorf("cause %v with error %v", got.Cause, got.Err)
	}
}

func wantCount(t *testing.T, up interface{ count() int }, want int) {
	t.Helper()
	if n := up.count(); n != want {
		t.Errorf("%d requests reached the upstream, want %d", n, want)
	}
}
