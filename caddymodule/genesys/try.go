package genesys

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"genesys-sidecar/caddymodule/deadline"
	"genesys-sidecar/caddymodule/pacing"
)

// tokenKey is the context key of the token of an attempt.
type tokenKey struct{}

// TokenFrom returns the token that a request with context ctx is to carry.
func TokenFrom(ctx context.Context) (Token, bool) {
	tok, ok := ctx.Value(tokenKey{}).(*Token)
	if !ok {
		return Token{}, false
	}
	return *tok, true
}

// Rest is the part of an answer's body that is not kept. It must be closed,
// which also ends the attempt that it belongs to.
type Rest struct {
	io.Reader
	body   io.Closer
	cancel context.CancelFunc
}

// Close ends the attempt.
func (r *Rest) Close() error {
	defer r.cancel()
	return r.body.Close()
}

func closeRest(reply Reply) {
	if reply.Rest != nil {
		_ = reply.Rest.Close()
	}
}

// try sends r once, and judges what that came to.
func (i *Invoker) try(ctx context.Context, p Policy, r Request, by *Admission, n int) (attempt, Reply, verdict) {
	start := time.Now()
	ends := deadline.New(ctx, p.Timeout)
	a, reply := i.exchange(ends, p, r, by, n)
	if reply.Rest == nil {
		ends.Cancel()
	}
	reply.Attempts = n

	v := judge(a, r.Honored, time.Now())
	reply.Fate = v.fate
	if a.err != nil {
		reply.Err = a.err
		switch {
		case v.fate == NotRun:
			reply.Cause = Unreachable
		case errors.Is(a.err, context.DeadlineExceeded):
			reply.Cause = TimedOut
		default:
			reply.Cause = Broken
		}
	}
	if i.Log.Enabled(ctx, slog.LevelDebug) {
		i.Log.LogAttrs(ctx, slog.LevelDebug, "attempt",
			slog.Int("attempt", n),
			slog.Int("status", a.status),
			slog.Bool("written", a.written),
			slog.Bool("again", v.again),
			slog.Duration("duration", time.Since(start)),
			slog.String("correlation_id", a.header.Get("ININ-Correlation-Id")),
			slog.Any("error", a.err))
	}
	return a, reply, v
}

// exchange sends r the nth time and reads the answer, as far as it is kept, until ends has
// ended. The reply's Rest takes that over if there is one.
func (i *Invoker) exchange(ends *deadline.Context, p Policy, r Request, by *Admission, n int) (attempt, Reply) {
	var a attempt
	w := watch{slot: by.slot}
	ctx := context.WithValue(ends, tokenKey{}, &by.token)
	ctx = httptrace.WithClientTrace(ctx, w.start())

	req := newRequest(ctx, r, n)
	resp, err := i.Transport.RoundTrip(req)
	a.written = w.written.Load()
	if err != nil {
		a.err = attemptError(ctx, by.token, err)
		return a, Reply{}
	}

	a.status, a.header = resp.StatusCode, resp.Header
	if a.status < 200 { // which no answer ends with; a caller would wait for the one that does
		_ = resp.Body.Close()
		a.err = fmt.Errorf("reading answer: it has the status %03d", a.status)
		return a, Reply{}
	}
	reply := Reply{Status: resp.StatusCode, Header: resp.Header}
	body, err := readAnswer(resp, r.Method, p.MaxBody+1)
	if err != nil {
		_ = resp.Body.Close()
		a.err = fmt.Errorf("reading answer: %w", attemptError(ctx, by.token, err))
		return a, reply
	}
	reply.Body = body
	if int64(len(body)) > p.MaxBody {
		reply.Rest = &Rest{Reader: resp.Body, body: resp.Body, cancel: ends.Cancel}
	} else {
		_ = resp.Body.Close()
	}
	if a.status >= 400 {
		a.errorBody, a.isPlatform = ParseErrorBody(resp.Header.Get("Content-Type"), body)
	}
	return a, reply
}

// watch tells whether a byte of a request may have left.
type watch struct {
	slot    *pacing.Slot
	written atomic.Bool // the trace may be called from another goroutine
	trace   httptrace.ClientTrace
}

func (w *watch) start() *httptrace.ClientTrace {
	w.trace.GotConn = w.gotConn
	return &w.trace
}

// gotConn is called when there is a connection: from here on bytes may leave at
// any time. That is when the request counts in the organisation's budget, however
// long it took to get here.
func (w *watch) gotConn(httptrace.GotConnInfo) {
	w.written.Store(true)
	w.slot.Sending()
}

// trustedLength is how much room is made for an answer before it has come, in
// bytes. It saves growing, and what growing leaves unused.
const trustedLength = 64 << 10

// readAnswer reads up to limit bytes of the body of resp, which answers method.
func readAnswer(resp *http.Response, method string, limit int64) ([]byte, error) {
	// (The answer to a HEAD tells the length of a body that it does not have.)
	if n := resp.ContentLength; 0 < n && n < limit && n <= trustedLength && method != http.MethodHead {
		body := make([]byte, n)
		if _, err := io.ReadFull(resp.Body, body); err != nil {
			return nil, err
		}
		// Its end frees the connection for the next request.
		var beyond [1]byte
		switch _, err := io.ReadFull(resp.Body, beyond[:]); {
		case err == nil:
			return nil, fmt.Errorf("it goes on after its %d bytes", n)
		case err != io.EOF:
			return nil, err
		}
		return body, nil
	}
	return io.ReadAll(io.LimitReader(resp.Body, limit))
}

// newRequest returns the request for the nth attempt.
//
// net/http sends a request that carries an Idempotency-Key a second time by
// itself, if it can get at the body again. It must not: that attempt would not
// be counted, and would run an action twice where the key is ignored. With
// GetBody nil it does not, where there is a body. (That the body is one that it
// knows to be in memory lets it send header and body in one packet.) An empty
// body it can always get at again; there, it does not recognise the header by a
// name in lower case, which is the same name to every server. A GET and its
// like it sends again whatever the header; there, an empty body can be given as
// one that it cannot look into, since for them it looks whether there is any,
// and sends no chunks if not.
func newRequest(ctx context.Context, r Request, n int) *http.Request {
	req := http.Request{
		Method:        r.Method,
		URL:           r.URL,
		Host:          r.URL.Host,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        r.Header,
		ContentLength: int64(len(r.Body)),
	}
	if req.Header == nil {
		req.Header = make(http.Header)
	} else if n > 1 { // something of the attempt before may still read its header
		req.Header = maps.Clone(r.Header) // nobody changes what a value's slice holds
	}
	req.Header["Idempotency-Key"] = []string{r.Key}
	switch {
	case len(r.Body) > 0:
		req.Body = io.NopCloser(bytes.NewReader(r.Body))
	case r.Method == "GET", r.Method == "HEAD", r.Method == "OPTIONS", r.Method == "TRACE":
		req.Body = opaqueBody{}
	default:
		DisguiseKeys(req.Header)
	}
	return req.WithContext(ctx)
}

// DisguiseKeys spells the headers by which net/http takes a request without a body
// for one that it may send again, so that it does not: in lower case, which is the
// same name to every server.
func DisguiseKeys(header http.Header) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := header[name]; ok {
			delete(header, name)
			header[strings.ToLower(name)] = values
		}
	}
}

// attemptError returns err, or that the attempt's time was up where that is
// what err comes from: net/http does not always say so. It quotes what it
// cannot parse, though, which may be what an upstream repeats of the request.
func attemptError(ctx context.Context, tok Token, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	if strings.Contains(err.Error(), "malformed") {
		return errors.New("malformed HTTP answer")
	}
	if text := err.Error(); tok.Value != "" && strings.Contains(text, tok.Value) {
		return errors.New(strings.ReplaceAll(text, tok.Value, "[redacted]"))
	}
	return err
}

// opaqueBody is an empty body that does not look like one.
type opaqueBody struct{}

func (opaqueBody) Read([]byte) (int, error) { return 0, io.EOF }
func (opaqueBody) Close() error             { return nil }
