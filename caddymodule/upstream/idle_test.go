package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"
)

func TestAConnectionIsUsedAgainOnceItsAnswerWasRead(t *testing.T) {
	for what, raw := range map[string]string{
		"a length":        ok,
		"no body":         "HTTP/1.1 204 No Content\r\n\r\n",
		"chunks":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"a trailer":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
		"gzip":            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: " + strconv.Itoa(len(gzipped)) + "\r\n\r\n" + string(gzipped),
		"an interim one":  "HTTP/1.1 103 Early Hints\r\n\r\n" + ok,
		"HTTP/1.0's word": "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t)
			rt := newTransport(t, settings())
			c, got := exchange(t, rt, s, raw)
			if got.err != nil {
				t.Fatal(got.err)
			}
			for range 3 {
				next := begin(rt, post(t.Context(), s.url, "{}"))
				c.answer(ok)
				wantAnswer(t, <-next, 200, "{}")
			}
			s.wantNoConn(t)
		})
	}
}

func TestAConnectionIsNotUsedAgain(t *testing.T) {
	for what, raw := range map[string]string{
		"that the server closes":     "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
		"of HTTP/1.0":                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
		"that brought more":          ok + ok,
		"that speaks something else": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			s := newServer(t)
			rt := newTransport(t, settings())
			c, got := exchange(t, rt, s, raw)
			if got.err != nil {
				t.Fatal(got.err)
			}
			c.wantEnd()
			_, got = exchange(t, rt, s, ok)
			wantAnswer(t, got, 200, "{}")
		})
	}
}

func TestAConnectionWhoseAnswerWasNotReadIsClosed(t *testing.T) {
	s := newServer(t)
	rt := newTransport(t, settings())
	closed := make(chan error, 1)
	go func() {
		resp, err := rt.RoundTrip(post(t.Context(), s.url, "{}"))
		if err == nil {
			err = resp.Body.Close()
		}
		closed <- err
	}()
	c := s.conn(t)
	c.answer(ok)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	c.wantEnd()
}

func TestWhatWasReadAndNotAnsweredIsNotSentAgain(t *testing.T) {
	s := newServer(t)
	rt := newTransport(t, settings())
	c, _ := exchange(t, rt, s, ok)
	got := begin(rt, post(t.Context(), s.url, "{}"))
	c.request()
	_ = c.Close()
	if got := <-got; !errors.Is(got.err, io.EOF) {
		t.Errorf("%+v", got)
	}
	s.wantNoConn(t)
}

// brittle is a connection whose writes can be made to fail after n bytes.
type brittle struct {
	*net.TCPConn
	fail func() (n int, err error) // nil: they do not
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.fail == nil {
		return b.TCPConn.Write(p)
	}
	n, err := b.fail()
	_, _ = b.TCPConn.Write(p[:n])
	return n, err
}

func TestARequestThatCouldNotBeWrittenAtAllGoesByAnotherConnection(t *testing.T) {
	broken := errors.New("broken pipe")
	for n, again := range map[int]bool{0: true, 1: false, 50: false} {
		var made []*brittle
		s := settings()
		s.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			made = append(made, &brittle{TCPConn: c.(*net.TCPConn)})
			return made[len(made)-1], nil
		}
		srv := newServer(t)
		rt := newTransport(t, s)
		first, _ := exchange(t, rt, srv, ok)
		made[0].fail = func() (int, error) { return n, broken }
		counted := 0
		got := begin(rt, post(counting(t.Context(), &counted), srv.url, "{}"))
		if again {
			srv.conn(t).answer(ok)
			wantAnswer(t, <-got, 200, "{}")
		} else if got := <-got; !errors.Is(got.err, broken) {
			t.Errorf("%d bytes were written: %+v", n, got)
		}
		if counted != 1 {
			t.Errorf("%d bytes were written: %d connections told of", n, counted)
		}
		_ = first.Close()
		srv.wantNoConn(t)
	}
}

func TestANewConnectionThatCannotBeWrittenToIsAnError(t *testing.T) {
	broken := errors.New("broken pipe")
	s := settings()
	s.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &brittle{c.(*net.TCPConn), func() (int, error) { return 0, broken }}, nil
	}
	srv := newServer(t)
	if got := roundTrip(newTransport(t, s), post(t.Context(), srv.url, "{}")); !errors.Is(got.err, broken) {
		t.Errorf("%+v", got)
	}
	srv.conn(t).wantEnd()
	srv.wantNoConn(t)
}

func TestAConnectionThatCannotBeLookedAtIsUsedOnce(t *testing.T) {
	srv := newServer(t)
	s := settings()
	s.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return struct{ net.Conn }{c}, err
	}
	rt := newTransport(t, s)
	for range 2 {
		_, got := exchange(t, rt, srv, ok)
		wantAnswer(t, got, 200, "{}")
	}
}

func TestIdleConnectionsAreClosedAfterAWhile(t *testing.T) {
	s := newServer(t)
	short := settings()
	short.IdleConnTimeout = 20 * time.Millisecond
	rt := newTransport(t, short)
	for range 2 {
		c, got := exchange(t, rt, s, ok)
		wantAnswer(t, got, 200, "{}")
		c.wantEnd()
	}
}

func TestNoMoreConnectionsAreKeptThanAllowed(t *testing.T) {
	s := newServer(t)
	two := settings()
	two.MaxIdleConnsPerHost = 2
	rt := newTransport(t, two)
	var conns []*serverConn
	var answers []<-chan told
	for range 3 {
		answers = append(answers, begin(rt, post(t.Context(), s.url, "{}")))
		c := s.conn(t)
		c.request()
		conns = append(conns, c)
	}
	// A connection that stays would be waited for in vain, so it is the third
	// whose answer comes last.
	for i, c := range conns {
		c.send(ok)
		wantAnswer(t, <-answers[i], 200, "{}")
	}
	conns[2].wantEnd()
	for range 2 { // of the others the last is used first, and again
		got := begin(rt, post(t.Context(), s.url, "{}"))
		conns[1].answer(ok)
		wantAnswer(t, <-got, 200, "{}")
	}
	s.wantNoConn(t)
}

func TestNoMoreConnectionsToAllServersAreKeptThanAllowed(t *testing.T) {
	servers := []*server{newServer(t), newServer(t)}
	one := settings()
	one.MaxIdleConns = 1
	rt := newTransport(t, one)
	kept, got := exchange(t, rt, servers[0], ok)
	wantAnswer(t, got, 200, "{}")
	tooMany, got := exchange(t, rt, servers[1], ok)
	wantAnswer(t, got, 200, "{}")
	tooMany.wantEnd()
	again := begin(rt, post(t.Context(), servers[0].url, "{}"))
	kept.answer(ok)
	wantAnswer(t, <-again, 200, "{}")
}

func TestClosingClosesWhatIsIdleAndWhatBecomesSo(t *testing.T) {
	s := newServer(t)
	rt := newTransport(t, settings())
	underWay := begin(rt, post(t.Context(), s.url, "{}"))
	busy := s.conn(t)
	busy.request()
	idle, _ := exchange(t, rt, s, ok)
	rt.CloseIdleConnections()
	idle.wantEnd()
	busy.send(ok)
	wantAnswer(t, <-underWay, 200, "{}")
	busy.wantEnd()
	// It goes on, as a module does whose calls outlive it.
	late, got := exchange(t, rt, s, ok)
	wantAnswer(t, got, 200, "{}")
	late.wantEnd()
}
