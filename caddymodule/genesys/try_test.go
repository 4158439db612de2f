package genesys

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestBodyIsKeptUpToMaxBody(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for n, whole := range map[int]bool{0: true, 1: true, 99: true, 100: true, 101: false, 5000: false, 1 << 20: false} {
			body := strings.Repeat("b", n)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, body) }))
			b := benchFor(t, transport(t))
			b.Policy.MaxBody = 100
			reply := b.Invoke(within(t, time.Minute), callTo(t, srv.URL))
			wantOutcome(t, reply, outcome{Final, Answered, 200})
			if whole {
				if reply.Rest != nil || string(reply.Body) != body {
					t.Errorf("%d bytes: kept %d, rest %v", n, len(reply.Body), reply.Rest)
				}
			} else {
				wantWhole(t, reply, body)
			}
			srv.Close()
		}
	})
}

func TestByDefaultEightMebibytesAreKept(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		body := bytes.Repeat([]byte("b"), 8<<20)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(body) }))
		defer srv.Close()
		if reply := benchFor(t, transport(t)).Invoke(within(t, time.Minute), callTo(t, srv.URL)); reply.Rest != nil || !bytes.Equal(reply.Body, body) {
			t.Errorf("kept %d bytes, rest %v", len(reply.Body), reply.Rest)
		}
	})
}

func TestClosingTheRestEndsTheAttempt(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		ended := make(chan struct{})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.ReadAll(r.Body) // so that the server sees the client leave
			for r.Context().Err() == nil {
				w.Write(make([]byte, 1<<10))
			}
			close(ended)
		}))
		defer srv.Close()
		b := benchFor(t, transport(t))
		b.Policy.MaxBody = 10
		reply := b.Invoke(within(t, time.Minute), callTo(t, srv.URL))
		if reply.Rest == nil {
			t.Fatalf("%+v", reply)
		}
		if _, err := io.ReadFull(reply.Rest, make([]byte, 4096)); err != nil {
			t.Error(err)
		}
		reply.Rest.Close()
		<-ended
		if _, err := reply.Rest.Read(make([]byte, 1)); err == nil {
			t.Error("it can still be read")
		}
	})
}

// contexts answers, and keeps the context of each attempt.
func contexts(into *[]context.Context, body func(context.Context) io.Reader) step {
	return func(r *http.Request) (*http.Response, error) {
		connected(r)
		*into = append(*into, r.Context())
		resp := answer(200, "")
		resp.Body = io.NopCloser(body(r.Context()))
		return resp, nil
	}
}

func TestAttemptsContextLivesAsLongAsTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []context.Context
		b := benchFor(t, scripted(contexts(&seen, func(context.Context) io.Reader { return strings.NewReader("123456") })))
		b.Invoke(within(t, time.Minute), call())
		if seen[0].Err() == nil {
			t.Error("an attempt that is over goes on")
		}
		b.Policy.MaxBody = 3
		reply := b.Invoke(within(t, time.Minute), call())
		if seen[1].Err() != nil {
			t.Error("ended before its rest was read")
		}
		wantWhole(t, reply, "123456")
		if !errors.Is(seen[1].Err(), context.Canceled) {
			t.Error("closing the rest did not end it")
		}
	})
}

func TestRestIsBoundByTheTimeoutToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []context.Context
		b := benchFor(t, scripted(contexts(&seen, func(ctx context.Context) io.Reader {
			return io.MultiReader(strings.NewReader("123456"), untilDone{ctx})
		})))
		b.Policy = Policy{MaxBody: 3, Timeout: 20 * time.Second}
		start := time.Now()
		reply := b.Invoke(within(t, time.Minute), call())
		if _, err := io.ReadAll(reply.Rest); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 20*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		reply.Rest.Close()
	})
}

func TestContentEncodingIsUndoneByTheTransport(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		const body = `{"answer":42}`
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			if r.Header.Get("Accept-Encoding") != "gzip" {
				t.Errorf("Accept-Encoding %q", r.Header["Accept-Encoding"])
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, body)
			z.Close()
		}))
		defer srv.Close()
		b := benchFor(t, transport(t))
		b.Policy.MaxBody = int64(len(body)) // of what was encoded
		reply := b.Invoke(within(t, time.Minute), callTo(t, srv.URL))
		if string(reply.Body) != body || reply.Rest != nil || reply.Header.Get("Content-Encoding") != "" || reply.Header.Get("Content-Length") != "" {
			t.Errorf("%q, %v", reply.Body, reply.Header)
		}
	})
}

func TestAnswerToHEADHasNoBodyThoughALength(t *testing.T) {
	for name, transport := range map[string]http.RoundTripper{"HTTP/1.1": netHTTP(t), "HTTP/1.1, directly": directly(t), "HTTP/2": h2Transport(t)} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5")
		}))
		srv.Config.Protocols = new(http.Protocols)
		srv.Config.Protocols.SetHTTP1(true)
		srv.Config.Protocols.SetUnencryptedHTTP2(true)
		srv.Start()
		r := callTo(t, srv.URL)
		r.Method, r.Body = http.MethodHead, nil
		reply := benchFor(t, transport).Invoke(within(t, time.Minute), r)
		if reply.Fate != Final || reply.Cause != Answered || reply.Status != 200 || len(reply.Body) > 0 {
			t.Errorf("%s: %+v", name, reply)
		}
		srv.Close()
	}
}

func TestAnswersOfAllLengthsAreReadWhole(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for _, length := range []int{0, 1, trustedLength, trustedLength + 1, 3 * trustedLength} {
			for _, told := range []bool{true, false} {
				want := strings.Repeat("x", length)
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !told {
						w.(http.Flusher).Flush()
					}
					io.WriteString(w, want)
				}))
				b := benchFor(t, transport(t))
				for range 2 { // the second over the first one's connection, if that is free
					reply := b.Invoke(within(t, time.Minute), callTo(t, srv.URL))
					if string(reply.Body) != want || reply.Rest != nil || reply.Fate != Final {
						t.Errorf("%d bytes, told %v: %d came, %v", length, told, len(reply.Body), reply.Err)
					}
				}
				srv.Close()
			}
		}
	})
}

func TestAnAnswerThatNoneEndsWithIsNone(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for _, status := range []string{"000 Zero", "099 Less", "101 Switching Protocols"} {
			srv := newWire(t, send("HTTP/1.1 "+status+"\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\n{}"))
			reply := benchFor(t, transport(t)).Invoke(within(t, time.Minute), callTo(t, srv.url))
			if reply.Fate != Unknown || reply.Cause != Broken {
				t.Errorf("%s: got %+v", status, reply)
			}
		}
	})
}

func TestRedirectIsAnAnswer(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}))
		defer srv.Close()
		reply := benchFor(t, transport(t)).Invoke(within(t, time.Minute), callTo(t, srv.URL))
		wantOutcome(t, reply, outcome{Final, Answered, 307})
		if reply.Header.Get("Location") != "/elsewhere" {
			t.Errorf("%v", reply.Header)
		}
	})
}

func TestPlatformsCodeCountsInAnErrorOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, platformBody(401, "bad.credentials")))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), call()), outcome{Final, Answered, 200})
		up = scripted(saysCode(404, "not.found"))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), call()), outcome{NotRun, Answered, 404})
		up = scripted(says(404, platformBody(404, "not.found"), "Content-Type", "text/html"))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), call()), outcome{Final, Answered, 404})
	})
}

func TestRequestHasItsKeyAndNoBodyToGetAgain(t *testing.T) {
	for _, header := range []http.Header{nil, {}} {
		for n := range 2 {
			r := call()
			r.Header = header
			req := newRequest(t.Context(), r, 1+n)
			if req.Header.Get("Idempotency-Key") != "k-1" || req.GetBody != nil || req.Host != "api.example.com" {
				t.Errorf("%+v", req)
			}
		}
	}
}

func TestARepetitionDoesNotChangeTheHeaderOfTheAttemptBefore(t *testing.T) {
	r := call()
	r.Header = http.Header{"X-Trace": {"1"}}
	first := newRequest(t.Context(), r, 1)
	r.Key = "k-2"
	second := newRequest(t.Context(), r, 2)
	second.Header["Authorization"] = []string{"Bearer x"}
	if got := fmt.Sprint(first.Header); got != "map[Idempotency-Key:[k-1] X-Trace:[1]]" {
		t.Errorf("the first has now %s", got)
	}
	if got := fmt.Sprint(second.Header); got != "map[Authorization:[Bearer x] Idempotency-Key:[k-2] X-Trace:[1]]" {
		t.Errorf("the second has %s", got)
	}
}

func TestAttemptsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(drops, says(200, "", "ININ-Correlation-Id", "c-9")))
		b.Invoke(within(t, time.Minute), honoredCall())
		lines := strings.Split(strings.TrimSpace(b.log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], errReset.Error()) || !strings.Contains(lines[0], `"again":true`) ||
			!strings.Contains(lines[1], `"attempt":2,"status":200,"written":true,"again":false`) || !strings.Contains(lines[1], "c-9") {
			t.Errorf("logged %q", lines)
		}
	})
}

// As Caddy's read_timeout makes it, which is no context's.
func TestTimeoutOfAConnectionIsATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(func(r *http.Request) (*http.Response, error) {
			connected(r)
			return nil, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}
		}))
		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{Unknown, TimedOut, 0})
		if !errors.Is(reply.Err, context.DeadlineExceeded) || !errors.Is(reply.Err, os.ErrDeadlineExceeded) {
			t.Errorf("%v", reply.Err)
		}
	})
}
