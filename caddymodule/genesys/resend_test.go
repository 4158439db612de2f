package genesys

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"

// dropsTheSecond answers the first request and keeps the connection, so that it
// is reused; it reads the second whole, and closes. All further are answered.
func dropsTheSecond(n int, conn net.Conn) bool {
	if n == 2 {
		return false
	}
	return send(okAnswer)(n, conn)
}

// The hazard: net/http sends a POST again by itself if it carries an
// Idempotency-Key. Should this test fail one day, the next one proves nothing.
func TestNetHTTPSendsTwiceByItself(t *testing.T) {
	for what, c := range map[string]struct {
		body   io.Reader
		header string
	}{
		"a body":                         {bytes.NewReader([]byte("{}")), "Idempotency-Key"},
		"no body":                        {http.NoBody, "Idempotency-Key"},
		"a body, with the other header":  {strings.NewReader("{}"), "X-Idempotency-Key"},
		"no body, with the other header": {nil, "X-Idempotency-Key"},
	} {
		srv := newWire(t, dropsTheSecond)
		client := &http.Client{Transport: netHTTP(t)}
		warm(t, client.Transport, srv)
		req, err := http.NewRequest(http.MethodPost, srv.url, c.body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(c.header, "k")
		resp, err := client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		resp.Body.Close()
		if n := srv.count() - 1; n != 2 || resp.StatusCode != 200 {
			t.Errorf("%s: arrived %d times, status %d; the hazard has changed", what, n, resp.StatusCode)
		}
	}
}

// warm has the transport keep a connection to srv.
func warm(t *testing.T, transport http.RoundTripper, srv *wire) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, srv.url, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func TestNothingIsSentTwiceBehindTheInvokersBack(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS"} {
			for _, body := range []string{"", `{"a":1}`} {
				for _, header := range []string{"", "X-Idempotency-Key", "Idempotency-Key"} {
					t.Run(method+" "+body+" "+header, func(t *testing.T) {
						srv := newWire(t, dropsTheSecond)
						b := benchFor(t, transport(t))
						warm(t, b.Transport, srv)
						r := callTo(t, srv.url)
						r.Method, r.Body = method, []byte(body)
						if header != "" {
							r.Header.Set(header, "the caller's")
						}
						wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Unknown, Broken, 0})
						wantCount(t, srv, 1+1)
						a := srv.seen()[1]
						if a.method != method || a.body != body || a.length != int64(len(body)) || a.key != "k-1" || len(a.header["Idempotency-Key"]) != 1 {
							t.Errorf("arrived as %+v", a)
						}
						if header == "X-Idempotency-Key" && a.header.Get(header) != "the caller's" {
							t.Errorf("header %v", a.header)
						}
					})
				}
			}
		}
	})
}

func TestHonoredIsResentByTheInvokerAlone(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for _, body := range []string{"", "{}"} {
			srv := newWire(t, dropsTheSecond)
			b := benchFor(t, transport(t))
			warm(t, b.Transport, srv)
			r := callTo(t, srv.url)
			r.Honored, r.Body = true, []byte(body)
			b.Policy.Backoff = time.Millisecond
			reply := b.Invoke(within(t, time.Minute), r)
			wantOutcome(t, reply, outcome{Final, Answered, 200})
			if reply.Attempts != 2 {
				t.Errorf("%d attempts told", reply.Attempts)
			}
			wantCount(t, srv, 1+2)
			if s := srv.seen(); s[1].key != "k-1" || s[2].key != "k-1" || s[1].body != s[2].body {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestEmptyBodyHasALengthAndIsNotChunked(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for _, body := range [][]byte{nil, {}} {
			srv := newWire(t, send(okAnswer))
			r := callTo(t, srv.url)
			r.Body = body
			wantOutcome(t, benchFor(t, transport(t)).Invoke(within(t, time.Minute), r), outcome{Final, Answered, 200})
			if a := srv.seen()[0]; a.header.Get("Content-Length") != "0" || a.length != 0 || srv.chunked {
				t.Errorf("arrived as %+v, chunked %v", a, srv.chunked)
			}
		}
	})
}

func TestBodyHasItsLength(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		srv := newWire(t, send(okAnswer))
		r := callTo(t, srv.url)
		r.Body = bytes.Repeat([]byte("x"), 100_000)
		benchFor(t, transport(t)).Invoke(within(t, time.Minute), r)
		if a := srv.seen()[0]; a.length != 100_000 || srv.chunked || a.body != string(r.Body) {
			t.Errorf("%d bytes, length %d, chunked %v", len(a.body), a.length, srv.chunked)
		}
	})
}

// What a real upstream can do to a request that it has read.
var wireFailures = map[string]struct {
	then   func(int, net.Conn) bool
	status int
}{
	"executed, then closed":  {sendAndClose(""), 0},
	"executed, then reset":   {reset(""), 0},
	"reset amid the header":  {reset("HTTP/1.1 200 OK\r\nContent-Le"), 0},
	"closed amid the header": {sendAndClose("HTTP/1.1 200 OK\r\nContent-Le"), 0},
	"not HTTP":               {sendAndClose("SSH-2.0-OpenSSH_9.2\r\n"), 0},
	"closed amid the body":   {sendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), 200},
	"cut chunk":              {sendAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), 200},
	"no last chunk":          {sendAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"), 200},
	"bad chunk":              {sendAndClose("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), 200},
	"cut gzip":               {sendAndClose("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"), 200},
	"an interim answer only": {sendAndClose("HTTP/1.1 103 Early Hints\r\n\r\n"), 0},
}

func TestRealFailuresAreSentOnceIfIgnoredAndToTheAnswerIfHonored(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for what, c := range wireFailures {
			t.Run(what, func(t *testing.T) {
				srv := newWire(t, func(n int, conn net.Conn) bool {
					if n == 1 || n == 2 {
						return c.then(n, conn)
					}
					return send(okAnswer)(n, conn)
				})
				b := benchFor(t, transport(t))
				b.Policy.Backoff = time.Millisecond
				wantOutcome(t, b.Invoke(within(t, time.Minute), callTo(t, srv.url)), outcome{Unknown, Broken, c.status})
				wantCount(t, srv, 1)
				r := callTo(t, srv.url)
				r.Honored = true
				wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Final, Answered, 200})
				wantCount(t, srv, 3)
			})
		}
	})
}

func TestHalfARequestIsNotSentAgain(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		conns := make(chan int, 100)
		go func() {
			for {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				conns <- 1
				io.ReadFull(conn, make([]byte, 1000))
				conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		}()
		r := callTo(t, "http://"+ln.Addr().String())
		r.Body = make([]byte, 16<<20)
		wantOutcome(t, benchFor(t, transport(t)).Invoke(within(t, time.Minute), r), outcome{Unknown, Broken, 0})
		if len(conns) != 1 {
			t.Errorf("%d connections", len(conns))
		}
	})
}

func TestRealTimeoutIsToldAsOne(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		for what, raw := range map[string]string{"no answer": "", "half an answer": "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"} {
			srv := newWire(t, send(raw))
			b := benchFor(t, transport(t))
			b.Policy.Timeout = 50 * time.Millisecond
			if reply := b.Invoke(within(t, time.Minute), callTo(t, srv.url)); reply.Cause != TimedOut || reply.Fate != Unknown {
				t.Errorf("%s: %+v", what, reply)
			}
			wantCount(t, srv, 1)
		}
	})
}

func TestTimeoutOfATransportsOwnIsToldAsOne(t *testing.T) {
	srv := newWire(t, send(""))
	transport := &http.Transport{ResponseHeaderTimeout: 50 * time.Millisecond}
	defer transport.CloseIdleConnections()
	reply := benchFor(t, authorizing{transport}).Invoke(within(t, time.Minute), callTo(t, srv.url))
	wantOutcome(t, reply, outcome{Unknown, TimedOut, 0})
}

func TestRealDialAndTLSFailuresSendNothing(t *testing.T) {
	overEach(t, func(t *testing.T, transport func(*testing.T) http.RoundTripper) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		b := benchFor(t, transport(t))
		b.Policy.Backoff = time.Millisecond
		reply := b.Invoke(within(t, time.Minute), callTo(t, "http://"+ln.Addr().String()))
		wantOutcome(t, reply, outcome{NotRun, Unreachable, 0})
		if !errors.Is(reply.Err, syscall.ECONNREFUSED) || reply.Attempts != 4 {
			t.Errorf("%v after %d attempts", reply.Err, reply.Attempts)
		}

		srv := newWire(t, send(okAnswer)) // speaks no TLS
		r := callTo(t, strings.Replace(srv.url, "http:", "https:", 1))
		wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{NotRun, Unreachable, 0})
		wantCount(t, srv, 0)
	})
}
