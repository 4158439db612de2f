package genesys

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Frame types, flags and error codes of HTTP/2 (RFC 9113).
const (
	h2Data, h2Headers, h2Reset, h2Settings, h2Ping, h2GoAway = 0, 1, 3, 4, 6, 7

	h2EndStream, h2EndHeaders, h2Ack = 1, 4, 1

	h2Internal, h2RefusedStream = 2, 7
)

// h2Server reads requests whole and does then about each: it answers, refuses
// or fails, frame by frame, which no server of the library's can be told to.
type h2Server struct {
	url  string
	then func(n int, c *h2Conn, stream uint32) bool // whether to go on

	mu     sync.Mutex
	bodies []string
}

type h2Conn struct{ net.Conn }

func (c *h2Conn) frame(kind, flags byte, stream uint32, payload ...byte) {
	head := make([]byte, 9, 9+len(payload))
	binary.BigEndian.PutUint32(head, uint32(len(payload))<<8|uint32(kind))
	head[4] = flags
	binary.BigEndian.PutUint32(head[5:], stream)
	c.Write(append(head, payload...))
}

// status200 begins an answer: 0x88 is ":status: 200" of HPACK's static table.
func (c *h2Conn) status200(stream uint32) { c.frame(h2Headers, h2EndHeaders, stream, 0x88) }

func (c *h2Conn) reset(stream uint32, code byte) { c.frame(h2Reset, 0, stream, 0, 0, 0, code) }

func newH2Server(t *testing.T, then func(n int, c *h2Conn, stream uint32) bool) *h2Server {
	t.Helper()
	s := &h2Server{then: then}
	s.url = serveConns(t, func(conn net.Conn) { s.serve(&h2Conn{conn}) })
	return s
}

func (s *h2Server) serve(c *h2Conn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
		return
	}
	c.frame(h2Settings, 0, 0)
	bodies := map[uint32]*bytes.Buffer{}
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head)>>8)
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		flags, stream := head[4], binary.BigEndian.Uint32(head[5:])
		switch kind := head[3]; kind {
		case h2Settings:
			if flags&h2Ack == 0 {
				c.frame(h2Settings, h2Ack, 0)
			}
		case h2Ping:
			if flags&h2Ack == 0 {
				c.frame(h2Ping, h2Ack, 0, payload...)
			}
		case h2Headers, h2Data:
			if bodies[stream] == nil {
				bodies[stream] = new(bytes.Buffer)
			}
			if kind == h2Data {
				bodies[stream].Write(payload)
			}
			if flags&h2EndStream == 0 {
				continue
			}
			s.mu.Lock()
			s.bodies = append(s.bodies, bodies[stream].String())
			n := len(s.bodies)
			s.mu.Unlock()
			if !s.then(n, c, stream) {
				return
			}
		}
	}
}

func (s *h2Server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.bodies)
}

func h2Transport(t *testing.T) http.RoundTripper {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return authorizing{transport}
}

func h2OK(_ int, c *h2Conn, stream uint32) bool {
	c.status200(stream)
	c.frame(h2Data, h2EndStream, stream, '{', '}')
	return true
}

// first does f about the first n requests, and answers the rest.
func first(n int, f func(int, *h2Conn, uint32) bool) func(int, *h2Conn, uint32) bool {
	return func(i int, c *h2Conn, stream uint32) bool {
		if i <= n {
			return f(i, c, stream)
		}
		return h2OK(i, c, stream)
	}
}

func TestRefusedStreamIsSentAgainThoughItsBodyWasWritten(t *testing.T) {
	srv := newH2Server(t, first(2, func(_ int, c *h2Conn, stream uint32) bool {
		c.reset(stream, h2RefusedStream)
		return true
	}))
	b := benchFor(t, h2Transport(t))
	b.Policy.Backoff = time.Millisecond
	reply := b.Invoke(within(t, time.Minute), callTo(t, srv.url))
	wantOutcome(t, reply, outcome{Final, Answered, 200})
	if reply.Attempts != 3 || string(reply.Body) != "{}" {
		t.Errorf("%+v", reply)
	}
	wantCount(t, srv, 3)
	for _, body := range srv.bodies {
		if body != string(call().Body) {
			t.Errorf("body %q", body)
		}
	}
}

func TestStreamThatIsAlwaysRefusedDidNotRun(t *testing.T) {
	srv := newH2Server(t, func(_ int, c *h2Conn, stream uint32) bool {
		c.reset(stream, h2RefusedStream)
		return true
	})
	b := benchFor(t, h2Transport(t))
	b.Policy.Backoff = time.Millisecond
	wantOutcome(t, b.Invoke(within(t, time.Minute), callTo(t, srv.url)), outcome{NotRun, Unreachable, 0})
	wantCount(t, srv, 4)
}

func TestHTTP2FailuresAreSentOnceIfIgnored(t *testing.T) {
	for what, c := range map[string]struct {
		then   func(int, *h2Conn, uint32) bool
		status int
	}{
		"stream reset for another reason": {func(_ int, c *h2Conn, stream uint32) bool {
			c.reset(stream, h2Internal)
			return true
		}, 0},
		"refused once the answer began": {func(_ int, c *h2Conn, stream uint32) bool {
			c.status200(stream)
			c.reset(stream, h2RefusedStream)
			return true
		}, 200},
		"connection lost":              {func(int, *h2Conn, uint32) bool { return false }, 0},
		"connection lost amid a body":  {func(_ int, c *h2Conn, stream uint32) bool { c.status200(stream); return false }, 200},
		"going away after the request": {goAway, 0},
	} {
		for _, body := range []string{"{}", ""} {
			t.Run(what+" "+body, func(t *testing.T) {
				srv := newH2Server(t, func(n int, conn *h2Conn, stream uint32) bool {
					if n == 2 { // on a connection that is reused
						return c.then(n, conn, stream)
					}
					return h2OK(n, conn, stream)
				})
				b := benchFor(t, h2Transport(t))
				r := callTo(t, srv.url)
				r.Body = []byte(body)
				wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Final, Answered, 200})
				wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Unknown, Broken, c.status})
				wantCount(t, srv, 1+1)
			})
		}
	}
}

// goAway says that the stream may have been processed, and closes.
func goAway(_ int, c *h2Conn, stream uint32) bool {
	c.frame(h2GoAway, 0, 0, 0, 0, 0, byte(stream), 0, 0, 0, 0)
	return false
}
