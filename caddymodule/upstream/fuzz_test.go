package upstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/upstream"
)

// Whatever a server says, it is understood as by net/http.
func FuzzAnswersAreReadAsByNetHTTP(f *testing.F) {
	for _, raw := range []string{
		ok, ok + ok, "", "HTTP/1.1 200", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nuntil the end", "HTTP/1.1 200 OK\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\n{}\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}",
		"HTTP/1.1 100 Continue\r\n\r\n" + ok, "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + string(gzipped), "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\nplain",
		"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
	} {
		f.Add(raw, http.MethodPost)
		f.Add(raw, http.MethodHead)
	}
	f.Fuzz(func(t *testing.T, raw, method string) {
		if method != http.MethodHead {
			method = http.MethodPost
		}
		plain, direct := piped(raw), piped(raw)
		rt := upstream.New(direct, nobody{t})
		if rt == nil {
			t.Skip("not on this system")
		}
		want, got := understood(plain, method), understood(rt, method)
		if got != want {
			t.Errorf("%q is understood as %s, by net/http as %s", raw, got, want)
		}
	})
}

// piped returns the settings of a transport whose every server answers raw and
// hangs up.
func piped(raw string) *http.Transport {
	return &http.Transport{
		MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				defer server.Close()
				if _, err := http.ReadRequest(bufio.NewReader(server)); err == nil {
					_, _ = io.WriteString(server, raw)
				}
			}()
			return client, nil
		},
	}
}

// understood returns what rt makes of the answer.
func understood(rt http.RoundTripper, method string) string {
	req, err := http.NewRequest(method, "http://127.0.0.1", nil)
	if err != nil {
		panic(err)
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		return "an error"
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return "another protocol" // which nobody speaks here
	}
	var body strings.Builder
	_, err = io.Copy(&body, resp.Body)
	return fmt.Sprintln(resp.Status, resp.Proto, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Trailer, resp.Close, resp.Uncompressed, body.String(), err == nil)
}
