//go:build linux || darwin || freebsd || netbsd || openbsd

package upstream_test

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
)

// awaitNews waits until something has come on c, and does not take it.
func awaitNews(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		var b [1]byte
		err = raw.Read(func(fd uintptr) bool {
			_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
			return err != syscall.EAGAIN
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// watch returns the connection that was made last.
func watch(s *http.Transport) *net.Conn {
	latest := new(net.Conn)
	dial := s.DialContext
	s.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		*latest = c
		return c, err
	}
	return latest
}

// What net/http would learn of later, and send the request twice for.
func TestAConnectionThatTheServerHasClosedIsNotUsed(t *testing.T) {
	for what, end := range map[string]func(*serverConn){
		"closed": func(c *serverConn) { _ = c.Close() },
		"reset":  func(c *serverConn) { _ = c.SetLinger(0); _ = c.Close() },
		"with a word": func(c *serverConn) {
			c.send("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t)
			watched := settings()
			latest := watch(watched)
			rt := newTransport(t, watched)
			for range 3 {
				c, got := exchange(t, rt, s, ok)
				wantAnswer(t, got, 200, "{}")
				end(c)
				awaitNews(t, *latest)
			}
		})
	}
}

func TestNorIsOneWithTLS(t *testing.T) {
	srv, trusting := newTLSServer(t)
	latest := watch(trusting)
	rt := newTransport(t, trusting)
	first := roundTrip(rt, post(t.Context(), srv.URL, "{}"))
	srv.CloseClientConnections()
	awaitNews(t, *latest)
	if got := roundTrip(rt, post(t.Context(), srv.URL, "{}")); got.err != nil || got.body == first.body {
		t.Errorf("after the connection was closed: %+v", got)
	}
}
