package upstream_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/upstream"
)

// patience is how long is waited for what has to happen.
const patience = 30 * time.Second

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

// server speaks to connections as a test wants it to.
type server struct {
	url   string
	conns chan *serverConn // as they come
}

// serverConn is the server's end of a connection.
type serverConn struct {
	*net.TCPConn
	t  *testing.T
	in *bufio.Reader
}

func newServer(t *testing.T) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{url: "http://" + ln.Addr().String(), conns: make(chan *serverConn, 100)}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				close(s.conns)
				return
			}
			_ = c.SetDeadline(time.Now().Add(patience))
			s.conns <- &serverConn{TCPConn: c.(*net.TCPConn), t: t, in: bufio.NewReader(c)}
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		for c := range s.conns {
			_ = c.Close()
		}
	})
	return s
}

// conn returns the next connection.
func (s *server) conn(t *testing.T) *serverConn {
	t.Helper()
	select {
	case c := <-s.conns:
		t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(patience):
		t.Fatal("no connection came")
		return nil
	}
}

func (s *server) wantNoConn(t *testing.T) {
	t.Helper()
	select {
	case <-s.conns:
		t.Error("there is another connection")
	default:
	}
}

// request reads a request, and its body.
func (c *serverConn) request() (*http.Request, string) {
	c.t.Helper()
	r, err := http.ReadRequest(c.in)
	if err != nil {
		c.t.Errorf("reading request: %v", err)
		return new(http.Request), ""
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Errorf("reading its body: %v", err)
	}
	return r, string(body)
}

// answer reads a request and answers raw.
func (c *serverConn) answer(raw string) {
	c.t.Helper()
	c.request()
	c.send(raw)
}

func (c *serverConn) send(raw string) {
	c.t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		c.t.Errorf("answering: %v", err)
	}
}

// wantEnd waits until the client has closed the connection, without having sent
// more.
func (c *serverConn) wantEnd() {
	c.t.Helper()
	// A client that closes with something unread resets the connection.
	if b, err := c.in.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Errorf("the connection goes on: %q, %v", b, err)
	}
}

// settings are such as a transport of the package can do with.
func settings() *http.Transport {
	return &http.Transport{DialContext: new(net.Dialer).DialContext, MaxIdleConnsPerHost: 10, IdleConnTimeout: time.Minute}
}

// newTransport returns a transport that has nobody to leave anything to.
func newTransport(t testing.TB, s *http.Transport) *upstream.Transport {
	t.Helper()
	transport := upstream.New(s, nobody{t})
	if transport == nil {
		t.Skip("not with these settings, or on this system")
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// nobody is asked for nothing.
type nobody struct{ t testing.TB }

func (n nobody) RoundTrip(req *http.Request) (*http.Response, error) {
	n.t.Errorf("%s %s was left to another transport", req.Method, req.URL)
	return nil, io.ErrUnexpectedEOF
}

func post(ctx context.Context, url, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Idempotency-Key", "k")
	return req
}

// told is what came of a request.
type told struct {
	resp *http.Response
	body string
	err  error // of either
}

// roundTrip sends req and reads the answer whole.
func roundTrip(rt http.RoundTripper, req *http.Request) told {
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return told{err: err}
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return told{resp, body.String(), err}
}

// begin is roundTrip in the background.
func begin(rt http.RoundTripper, req *http.Request) <-chan told {
	c := make(chan told, 1)
	go func() { c <- roundTrip(rt, req) }()
	return c
}

func wantAnswer(t *testing.T, got told, status int, body string) {
	t.Helper()
	if got.err != nil || got.resp.StatusCode != status || got.body != body {
		t.Errorf("%+v, want status %d and %q", got, status, body)
	}
}

// exchange sends a request by rt, which the next connection of s is to get, and
// has it answered with raw.
func exchange(t *testing.T, rt http.RoundTripper, s *server, raw string) (*serverConn, told) {
	t.Helper()
	got := begin(rt, post(t.Context(), s.url, "{}"))
	c := s.conn(t)
	c.answer(raw)
	return c, <-got
}
