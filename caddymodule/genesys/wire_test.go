package genesys

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/upstream"
)

// authorizing is what a transport of the Invoker's has to do besides.
type authorizing struct{ http.RoundTripper }

func (a authorizing) RoundTrip(r *http.Request) (*http.Response, error) {
	if tok, ok := TokenFrom(r.Context()); ok {
		r.Header.Set("Authorization", "Bearer "+tok.Value)
	}
	return a.RoundTripper.RoundTrip(r)
}

// overEach runs test once for each transport that calls go by over HTTP/1.1.
func overEach(t *testing.T, test func(t *testing.T, transport func(*testing.T) http.RoundTripper)) {
	t.Helper()
	t.Run("net/http", func(t *testing.T) { test(t, netHTTP) })
	t.Run("directly", func(t *testing.T) { test(t, directly) })
}

func netHTTP(t *testing.T) http.RoundTripper {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return authorizing{transport}
}

func directly(t *testing.T) http.RoundTripper {
	t.Helper()
	settings := &http.Transport{
		DialContext:         new(net.Dialer).DialContext,
		MaxIdleConnsPerHost: 10,
		IdleConnTimeout:     time.Minute,
	}
	transport := upstream.New(settings, settings)
	if transport == nil {
		t.Skip("not on this system")
	}
	t.Cleanup(settings.CloseIdleConnections)
	t.Cleanup(transport.CloseIdleConnections)
	return authorizing{transport}
}

func callTo(t *testing.T, base string) Request {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	r := call()
	u.Path = r.URL.Path
	r.URL = u
	return r
}

// wire is a TCP server that knows just enough HTTP to read requests whole. What
// it does then is up to then, which returns whether to read another.
type wire struct {
	url  string
	then func(n int, conn net.Conn) bool

	mu       sync.Mutex
	arrivals []arrival
	chunked  bool // any of them was
}

func newWire(t *testing.T, then func(n int, conn net.Conn) bool) *wire {
	t.Helper()
	w := &wire{then: then}
	w.url = serveConns(t, w.serve)
	return w
}

// serveConns calls serve for each connection to the URL that it returns, until
// the test ends.
func serveConns(t *testing.T, serve func(net.Conn)) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return "http://" + ln.Addr().String()
}

func (w *wire) serve(conn net.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		a := arrival{method: r.Method, header: r.Header, key: r.Header.Get("Idempotency-Key"), body: string(body), length: r.ContentLength}
		w.mu.Lock()
		w.arrivals = append(w.arrivals, a)
		w.chunked = w.chunked || len(r.TransferEncoding) > 0
		n := len(w.arrivals)
		w.mu.Unlock()
		if !w.then(n, conn) {
			return
		}
	}
}

func (w *wire) seen() []arrival {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]arrival(nil), w.arrivals...)
}

func (w *wire) count() int { return len(w.seen()) }

// send writes raw to conn and keeps the connection.
func send(raw string) func(int, net.Conn) bool {
	return func(_ int, conn net.Conn) bool {
		_, err := io.WriteString(conn, raw)
		return err == nil
	}
}

// sendAndClose writes raw, and closes the connection.
func sendAndClose(raw string) func(int, net.Conn) bool {
	return func(_ int, conn net.Conn) bool {
		io.WriteString(conn, raw)
		return false
	}
}

// reset writes raw, and resets the connection.
func reset(raw string) func(int, net.Conn) bool {
	return func(_ int, conn net.Conn) bool {
		io.WriteString(conn, raw)
		conn.(*net.TCPConn).SetLinger(0)
		return false
	}
}
