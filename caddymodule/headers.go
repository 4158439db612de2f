package caddymodule

import (
	"net/http"
	"slices"
	"strings"

	"genesys-sidecar/caddymodule/idempotency"
)

// upstreamHeader returns the part of a caller's header that goes up. It shares
// the values with header.
func upstreamHeader(header http.Header, contentType string) http.Header {
	named := connectionOptions(header)
	up := make(http.Header, len(header)+2)
	for name, values := range header {
		if !notSent(name) && !slices.Contains(named, name) {
			up[name] = values
		}
	}
	if _, ok := up["User-Agent"]; !ok {
		up["User-Agent"] = []string{""} // else net/http puts in its own
	}
	switch sent := header["Content-Type"]; {
	case contentType == "":
	case len(sent) == 1 && sent[0] == contentType:
		up["Content-Type"] = sent
	default:
		up["Content-Type"] = []string{contentType}
	}
	return up
}

// notSent tells whether a request header does not go up. The answer is fetched
// without content encoding, so that it suits whoever repeats the call.
func notSent(name string) bool {
	switch name {
	case "Authorization", "Host", "Accept-Encoding", "Expect", "Range", "If-Range", "Idempotency-Key", "Content-Type":
		return true
	}
	return hopByHop(name)
}

// keptHeader returns the part of an upstream's header that is kept.
func keptHeader(header http.Header) idempotency.Header {
	named := connectionOptions(header)
	return idempotency.NewHeaderWithout(header, func(name string) bool {
		return notKept(name) || slices.Contains(named, name)
	})
}

// notKept tells whether a response header is not kept. A cookie is one
// caller's; the date is that of the message, not of the call; the rest is what
// the sidecar itself says.
func notKept(name string) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Date", "Alt-Svc", "Idempotency-Key", "Idempotent-Replayed":
		return true
	}
	return hopByHop(name)
}

// hopByHop tells whether a header concerns one connection only (RFC 9110,
// 7.6.1) or is decided by the transport.
func hopByHop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length":
		return true
	}
	return false
}

// connectionOptions returns the names of the headers that concern the connection
// because its Connection header says so (RFC 9110, 7.6.1).
func connectionOptions(header http.Header) (names []string) {
	for _, value := range header["Connection"] {
		for name := range strings.SplitSeq(value, ",") {
			names = append(names, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	return names
}
