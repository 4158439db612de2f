package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// messages are requests as they are sent.
var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func recycle(message *bytes.Buffer) {
	if message.Cap() <= 2*maxBody {
		message.Reset()
		messages.Put(message)
	}
}

// encode writes req, which the transport takes, to message: byte for byte what
// Request.Write makes of it, which has to be ready for more and takes twice as long.
// gzip asks for an answer in that encoding.
func encode(message *bytes.Buffer, req *http.Request, gzip bool) error {
	if gzip {
		req.Header["Accept-Encoding"] = onlyGzip
		defer delete(req.Header, "Accept-Encoding")
	}
	uri := req.URL.RequestURI()
	agent, ok := userAgent(req.Header)
	if !ok || req.Method == "" || !isPlainHost(req.Host) || hasControl(uri) || req.ContentLength <= 0 || req.Body == nil {
		return req.Write(message)
	}
	for _, s := range []string{req.Method, " ", uri, " HTTP/1.1\r\nHost: ", req.Host, "\r\n"} {
		message.WriteString(s)
	}
	if agent != "" {
		for _, s := range []string{"User-Agent: ", agent, "\r\n"} {
			message.WriteString(s)
		}
	}
	message.WriteString("Content-Length: ")
	message.Write(strconv.AppendInt(message.AvailableBuffer(), req.ContentLength, 10))
	message.WriteString("\r\n")
	if err := req.Header.WriteSubset(message, written); err != nil {
		return err
	}
	message.WriteString("\r\n")
	return appendBody(message, req)
}

// onlyGzip is the value of an Accept-Encoding. Nobody changes it.
var onlyGzip = []string{"gzip"}

// written are the headers that do not go by the header map.
var written = map[string]bool{"Host": true, "User-Agent": true, "Content-Length": true, "Transfer-Encoding": true, "Trailer": true}

// appendBody appends the body of req to message, and closes it.
func appendBody(message *bytes.Buffer, req *http.Request) error {
	message.Grow(int(req.ContentLength) + 1)
	body := message.AvailableBuffer()[:req.ContentLength+1] // with room to learn of the end
	n, err := io.ReadFull(req.Body, body)
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
	case int64(n) == req.ContentLength:
		message.Write(body[:n])
		err = nil
	default:
		err = fmt.Errorf("its body is not of %d bytes, as was said", req.ContentLength)
	}
	return errors.Join(err, req.Body.Close())
}

// userAgent returns the User-Agent to write, "" for none, and whether it is one that
// is written as it is. Where header has none, net/http has one of its own.
func userAgent(header http.Header) (agent string, ok bool) {
	values := header["User-Agent"]
	if len(values) == 0 {
		return "", false
	}
	return values[0], httpguts.ValidHeaderFieldValue(values[0]) && strings.TrimSpace(values[0]) == values[0]
}

// isPlainHost tells whether host is written as it is: it has no zone to be left out.
func isPlainHost(host string) bool {
	return host != "" && httpguts.ValidHostHeader(host) && !strings.Contains(host, "%")
}

func hasControl(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}
