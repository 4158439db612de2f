package upstream

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"time"
)

const (
	// maxBody is how long a body may be, in bytes. The kernels at both ends take
	// as much without the server's having read any of it, so that one that
	// answers early is heard.
	maxBody = 32 << 10

	// maxHeader is how long an answer's header may be where the settings do not
	// say, in bytes, as with net/http.
	maxHeader = 10 << 20
)

// Transport is an http.RoundTripper. Make one with New. It is safe for concurrent
// use.
type Transport struct {
	settings *http.Transport
	next     http.RoundTripper
	tls      *tls.Config // nil: https is next's
	idle     pool
}

// New returns a transport that goes by the settings, and leaves to next what it
// does not do itself. It is nil where that is everything: where the settings ask
// for what this package does not have, or the system cannot be asked about
// connections.
//
// The connections that settings.DialContext makes may be used by nobody else, nor
// may their deadlines.
func New(settings *http.Transport, next http.RoundTripper) *Transport {
	s := settings
	switch {
	case !canLook,
		s.DialContext == nil,
		s.DialTLSContext != nil,
		s.DisableKeepAlives,
		s.MaxConnsPerHost > 0,
		s.MaxIdleConnsPerHost <= 0,
		s.IdleConnTimeout <= 0,
		s.Protocols != nil && !s.Protocols.HTTP1():
		return nil
	}
	t := &Transport{settings: s, next: next}
	t.idle.most, t.idle.all, t.idle.timeout = s.MaxIdleConnsPerHost, s.MaxIdleConns, s.IdleConnTimeout
	if !offersHTTP2(s) {
		t.tls = cmp.Or(s.TLSClientConfig, &tls.Config{})
	}
	return t
}

// offersHTTP2 tells whether a server may choose HTTP/2 when it is asked by TLS.
func offersHTTP2(s *http.Transport) bool {
	_, upgrades := s.TLSNextProto["h2"]
	return upgrades || s.ForceAttemptHTTP2 || s.Protocols != nil ||
		s.TLSClientConfig != nil && slices.Contains(s.TLSClientConfig.NextProtos, "h2")
}

// CloseIdleConnections closes the connections that nobody uses, and those in use
// as soon as nobody does.
func (t *Transport) CloseIdleConnections() { t.idle.close() }

// RoundTrip implements http.RoundTripper. It calls GotConn of an
// httptrace.ClientTrace before the first byte of req can leave, once, and no other
// of its functions: where it fails without that, nothing has left. The header of
// req may not be used until it has returned.
//
// The request, and the reading of its answer, ends at the deadline of its context.
// That a context is cancelled ends only what has not been sent: a call outlives
// whoever loses interest in it.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.takes(req) {
		return t.next.RoundTrip(req)
	}
	message := messages.Get().(*bytes.Buffer)
	defer recycle(message)
	unzip := t.asksForGzip(req)
	if err := encode(message, req, unzip); err != nil {
		return nil, fmt.Errorf("encoding request: %w", err)
	}
	c, err := t.send(req, message.Bytes())
	if err != nil {
		return nil, err
	}
	resp, err := t.receive(c, req)
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	body := &answer{Reader: resp.Body, c: c, idle: &t.idle, keep: !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols}
	if resp.Body == http.NoBody {
		body.finish()
	}
	resp.Body = body
	if unzip && strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		resp.Body = &gunzip{answer: body}
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.ContentLength, resp.Uncompressed = -1, true
	}
	return resp, nil
}

// takes tells whether req is one for this transport.
func (t *Transport) takes(req *http.Request) bool {
	switch req.URL.Scheme {
	case "http":
	case "https":
		if t.tls == nil {
			return false
		}
	default:
		return false
	}
	hasBody := req.Body != nil && req.Body != http.NoBody
	if hasBody && req.ContentLength <= 0 || req.ContentLength > maxBody { // it is of unknown length, or long
		return false
	}
	if req.Method == http.MethodConnect || req.Close || len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 ||
		len(req.Header["Expect"]) > 0 || len(req.Header["Upgrade"]) > 0 {
		return false
	}
	if t.settings.Proxy == nil {
		return true
	}
	proxy, err := t.settings.Proxy(req)
	return proxy == nil && err == nil
}

// asksForGzip tells whether an answer to req may be compressed in between, as with
// net/http.
func (t *Transport) asksForGzip(req *http.Request) bool {
	return !t.settings.DisableCompression && req.Method != http.MethodHead &&
		len(req.Header["Accept-Encoding"]) == 0 && len(req.Header["Range"]) == 0
}

// send sends message and returns the connection that it went by, which has the
// deadline of the request's context.
func (t *Transport) send(req *http.Request, message []byte) (*conn, error) {
	ctx := req.Context()
	until, _ := ctx.Deadline()
	for told := false; ; told = true {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		c, err := t.connection(ctx, req.URL)
		if err != nil {
			return nil, err
		}
		if trace := httptrace.ContextClientTrace(ctx); !told && trace != nil && trace.GotConn != nil {
			trace.GotConn(httptrace.GotConnInfo{Conn: c.Conn, Reused: c.used})
		}
		n, err := 0, c.SetDeadline(until)
		if err == nil {
			n, err = c.Write(message)
		}
		if err == nil {
			return c, nil
		}
		_ = c.Close()
		// Where not a byte could be written, the server had closed just now.
		// (With TLS, a part of a record may have left, which nobody can read.)
		if n > 0 || !c.used || ctx.Err() != nil {
			return nil, fmt.Errorf("writing request: %w", err)
		}
	}
}

// connection returns an idle connection to the server of u, or a new one.
func (t *Transport) connection(ctx context.Context, u *url.URL) (*conn, error) {
	to := server{https: u.Scheme == "https", host: u.Host}
	if c := t.idle.take(to); c != nil {
		return c, nil
	}
	raw, err := t.settings.DialContext(ctx, "tcp", Address(u))
	if err != nil {
		return nil, err
	}
	if !to.https {
		return newConn(raw, raw, to), nil
	}
	secured, err := t.handshake(ctx, raw, u.Hostname())
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return newConn(secured, raw, to), nil
}

func (t *Transport) handshake(ctx context.Context, raw net.Conn, name string) (*tls.Conn, error) {
	config := t.tls
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = name
	}
	if limit := t.settings.TLSHandshakeTimeout; limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, errors.New("TLS handshake timeout"))
		defer cancel()
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("securing connection: %w", err)
	}
	return c, nil
}

// server is where a connection leads.
type server struct {
	https bool
	host  string // as in a URL
}

// Address returns where the server of u, of the scheme http or https, is to be
// dialled.
func Address(u *url.URL) string {
	port := cmp.Or(u.Port(), "80")
	if u.Scheme == "https" {
		port = cmp.Or(u.Port(), "443")
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// receive reads the header of the answer to req, in the time that the settings give
// it.
func (t *Transport) receive(c *conn, req *http.Request) (*http.Response, error) {
	limit := cmp.Or(t.settings.MaxResponseHeaderBytes, maxHeader)
	if t.settings.ResponseHeaderTimeout <= 0 {
		return c.receive(req, limit)
	}
	until, ok := req.Context().Deadline()
	soon := time.Now().Add(t.settings.ResponseHeaderTimeout)
	if ok && until.Before(soon) {
		soon = until
	}
	if err := c.SetReadDeadline(soon); err != nil {
		return nil, err
	}
	resp, err := c.receive(req, limit)
	if err == nil {
		err = c.SetReadDeadline(until)
	}
	return resp, err
}

// receive reads the header of the answer to req, of up to limit bytes. Its body is
// still to be read, from the connection.
func (c *conn) receive(req *http.Request, limit int64) (*http.Response, error) {
	c.from.left = limit
	for {
		resp, err := http.ReadResponse(c.in, req)
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF) && c.from.left == limit:
			return nil, errNoAnswer
		case err != nil:
			return nil, fmt.Errorf("reading answer: %w", err)
		case resp.StatusCode/100 != 1 || resp.StatusCode == http.StatusSwitchingProtocols:
			c.from.left = math.MaxInt64
			return resp, nil
		}
	}
}

var (
	errHeaderTooLong = errors.New("its header is longer than is allowed")
	errNoAnswer      = fmt.Errorf("the server closed the connection without an answer: %w", io.EOF)
)

// longAgo, as a deadline, ends what is under way.
var longAgo = time.Unix(1, 0)
