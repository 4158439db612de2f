package upstream

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// However strange a request is, it is written as by net/http, or not at all where
// that refuses it.
func FuzzRequestsAreWrittenAsByNetHTTP(f *testing.F) {
	for _, r := range []struct{ method, host, path, query, agent, name, value, body string }{
		{"POST", "api.example.com", "/a/b", "c=d", "bench", "X-App", "1", "{}"},
		{"", "127.0.0.1:80", "", "", "", "Content-Length", "7", "{}"},
		{"GET", "[::1]:80", "/%2f", "", " a ", "User-Agent", "b", "x"},
		{"PUT", "[fe80::1%25en0]:80", "//a", "?", "a\r\nB: c", "Host", "other", "x"},
		{"PO ST", "münchen.example", "*", "a b", "a\x7f", "X\r\nY: z", "a\nb", "x"},
		{"POST", "a/b c", "/\x00", "\n", "\xff", "Transfer-Encoding", "chunked", "x"},
		{"POST", "", "/ä", "ü", "\u00a0a", "Trailer", "X", ""},
		{"DELETE", "a", "/", "", "a", "x-lower", "\tv ", strings.Repeat("x", 600)},
	} {
		f.Add(r.method, r.host, r.path, r.query, r.agent, r.name, r.value, r.body, true)
	}
	f.Fuzz(func(t *testing.T, method, host, path, query, agent, name, value, body string, gzip bool) {
		request := func() *http.Request {
			return &http.Request{
				Method: method, Host: host, URL: &url.URL{Scheme: "http", Host: "url.example.com", Path: path, RawQuery: query},
				Header: http.Header{"User-Agent": {agent}, name: {value, "2"}, "Idempotency-Key": {"k"}},
				Body:   io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
			}
		}
		var want, got bytes.Buffer
		req := request()
		if gzip {
			req.Header["Accept-Encoding"] = []string{"gzip"}
		}
		refused := req.Write(&want)
		err := encode(&got, request(), gzip)
		if (err != nil) != (refused != nil) {
			t.Fatalf("got the error %v, net/http's is %v", err, refused)
		}
		if err == nil && got.String() != want.String() {
			t.Fatalf("it is written as %q, by net/http as %q", &got, &want)
		}
	})
}

// body is a request body that is noticed to be closed.
type body struct {
	io.Reader
	closed bool
}

func (b *body) Close() error {
	b.closed = true
	return nil
}

func TestABodyOfAnotherLengthThanItWasSaidToHaveIsAnError(t *testing.T) {
	broken := errors.New("broken")
	for what, read := range map[string]io.Reader{
		"none":    strings.NewReader(""),
		"shorter": strings.NewReader("{"),
		"longer":  strings.NewReader("{}\n"),
		"endless": endless{},
		"broken":  io.MultiReader(strings.NewReader("{"), failing{broken}),
	} {
		b := &body{Reader: read}
		req := &http.Request{
			Method: "POST", Host: "a", URL: &url.URL{Path: "/"}, Header: http.Header{"User-Agent": {""}}, Body: b, ContentLength: 2,
		}
		err := encode(new(bytes.Buffer), req, false)
		if err == nil || errors.Is(err, broken) != (what == "broken") {
			t.Errorf("with one that is %s: got the error %v", what, err)
		}
		if !b.closed {
			t.Errorf("one that is %s is not closed", what)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestABodyIsClosedOnceItIsWritten(t *testing.T) {
	b := &body{Reader: strings.NewReader("{}")}
	req := &http.Request{Method: "POST", Host: "a", URL: &url.URL{Path: "/"}, Header: http.Header{"User-Agent": {""}}, Body: b, ContentLength: 2}
	var got bytes.Buffer
	if err := encode(&got, req, false); err != nil || got.String() != "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}" || !b.closed {
		t.Errorf("%q, %v, closed: %v", &got, err, b.closed)
	}
}
