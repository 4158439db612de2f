package redistest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// client is a client's connection.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, p *Proxy) *client {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(limit)))
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) do(args ...string) any {
	c.t.Helper()
	answer, err := roundTrip(c, c.r, args...)
	must(c.t, err)
	return answer
}

// wantClosed fails the test if anything arrives before the end.
func (c *client) wantClosed() {
	c.t.Helper()
	b, err := c.r.ReadByte()
	switch {
	case err == nil:
		c.t.Errorf("got the byte %q, want a closed connection", b)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Error("the connection is still open")
	}
}

func wait(t *testing.T, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(limit):
		t.Fatalf("waiting for %s: not so after %v", what, limit)
	}
}

func contains(s string) func([]byte) bool {
	return func(request []byte) bool { return bytes.Contains(request, []byte(s)) }
}

func TestProxyLosesTheReplyOfTheChosenRequest(t *testing.T) {
	s := New(t, Options{})
	p := NewProxy(t, s.Addr())
	lost := p.LoseReply(contains("chosen"))
	a, b := dial(t, p), dial(t, p)
	a.do("SET", "other", "1")
	b.do("SET", "other", "2")

	go fmt.Fprint(a, "*3\r\n$3\r\nSET\r\n$6\r\nchosen\r\n$1\r\n7\r\n")
	a.wantClosed()
	wait(t, lost, "the loss")
	want(t, s, "7", "GET", "chosen")
	if got := b.do("GET", "other"); got != "2" {
		t.Errorf("the other connection got %v", got)
	}
	if got := dial(t, p).do("GET", "chosen"); got != "7" { // it is lost once
		t.Errorf("a new connection got %v", got)
	}
}

func TestProxyLosesReplyAmongPipelinedRequests(t *testing.T) {
	s := New(t, Options{})
	p := NewProxy(t, s.Addr())
	lost := p.LoseReply(contains("chosen"))
	c := dial(t, p)
	large := strings.Repeat("x", 1<<20)
	var pipeline bytes.Buffer
	for _, args := range [][2]string{{"a", large}, {"chosen", large}, {"never", "1"}} {
		fmt.Fprintf(&pipeline, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(args[0]), args[0], len(args[1]), args[1])
	}
	go c.Write(pipeline.Bytes())
	wait(t, lost, "the loss")
	rest, _ := io.ReadAll(c.r)
	if n := bytes.Count(rest, []byte("+OK")); n > 1 {
		t.Errorf("%d answers arrived", n)
	}
	want(t, s, int64(len(large)), "STRLEN", "a")
	want(t, s, int64(len(large)), "STRLEN", "chosen")
	want(t, s, nil, "GET", "never")
}

func TestProxyLosesLargeReply(t *testing.T) {
	s := New(t, Options{})
	want(t, s, "OK", "SET", "a", strings.Repeat("x", 4<<20))
	p := NewProxy(t, s.Addr())
	lost := p.LoseReply(contains("GET"))
	c := dial(t, p)
	go fmt.Fprint(c, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n")
	c.wantClosed()
	wait(t, lost, "the loss")
}

func TestProxyLosesTheChosenRequest(t *testing.T) {
	s := New(t, Options{})
	p := NewProxy(t, s.Addr())
	lost := p.LoseRequest(contains("chosen"))
	c := dial(t, p)
	go fmt.Fprint(c, "*3\r\n$3\r\nSET\r\n$6\r\nchosen\r\n$1\r\n7\r\n")
	c.wantClosed()
	wait(t, lost, "the loss")
	want(t, s, nil, "GET", "chosen")
}

func TestProxyCutsRefusesAndPointsElsewhere(t *testing.T) {
	one, two := New(t, Options{}), New(t, Options{})
	p := NewProxy(t, one.Addr())
	c := dial(t, p)
	c.do("SET", "a", "1")

	p.Refuse(true)
	c.do("SET", "a", "2") // connected before
	dial(t, p).wantClosed()
	p.Refuse(false)

	p.Point(two.Addr())
	c.do("SET", "a", "3")
	p.Cut()
	c.wantClosed()
	dial(t, p).do("SET", "a", "4")
	want(t, one, "3", "GET", "a")
	want(t, two, "4", "GET", "a")
}

func TestFrozenProxyPassesNothingUntilThawed(t *testing.T) {
	s := New(t, Options{})
	p := NewProxy(t, s.Addr())
	c := dial(t, p)
	c.do("SET", "a", "1")
	p.Freeze()
	p.Freeze()
	answered := make(chan any, 1)
	go func() {
		answer, _ := roundTrip(c, c.r, "SET", "a", "2")
		answered <- answer
	}()
	select {
	case answer := <-answered:
		t.Errorf("got %v through a frozen proxy", answer)
	case <-time.After(100 * time.Millisecond):
	}
	want(t, s, "1", "GET", "a")
	p.Thaw()
	p.Thaw()
	if answer := <-answered; answer != "OK" {
		t.Errorf("got %v after the thaw", answer)
	}
	p.Freeze()
	dial(t, p)
	p.Cut() // does not wait for the thaw
	c.wantClosed()
}

func TestProxyPassesTLS(t *testing.T) {
	s := New(t, Options{TLS: true})
	p := NewProxy(t, s.Addr())
	if got, err := do(p.Addr(), "", s.certs.config, "PING"); err != nil || got != "PONG" {
		t.Errorf("got %v, %v", got, err)
	}
}
