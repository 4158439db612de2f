package idempotency

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"mime"
	"net/url"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// fingerprintVersion is the first byte of every fingerprint. It changes with
// the rules below, so that a record written under older rules is recognised
// instead of looking like another request.
const fingerprintVersion = 1

// Fingerprint tells whether two requests are the same one: a version byte and
// a SHA-256 over method, path, query, media type and body, each in the normal
// form described at Request.Fingerprint.
type Fingerprint [1 + sha256.Size]byte

// String returns the fingerprint in hexadecimal.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// Request is the part of a request that makes it this request and no other.
type Request struct {
	Method    string
	Path      string // as sent, still percent-encoded
	Query     string // as sent, without the question mark
	MediaType string // the Content-Type header; its parameters do not count
	Body      []byte
}

// Fingerprint returns the fingerprint of r. Two requests have the same one if
// they differ only in
//
//   - needless or lower-case percent-encoding in the path (RFC 3986, 6.2.2),
//   - the order of query parameters with different names,
//   - the parameters of the media type, and its case,
//   - white space, the order of members, and escapes within a JSON body.
//
// Numbers in a JSON body count as they are written, since a number that is
// read as a float64 and written again may be another (2^53+1). A body that is
// no valid JSON, or that names a member twice, counts byte for byte.
func (r Request) Fingerprint() Fingerprint {
	buf := hashInputs.Get().(*[]byte)
	sum := Request{
		Method:    r.Method,
		Path:      normalPath(r.Path),
		Query:     normalQuery(r.Query),
		MediaType: essence(r.MediaType),
		Body:      canonicalJSON(buf, r.Body),
	}.Digest()
	keepHashInput(buf)

	var f Fingerprint
	f[0] = fingerprintVersion
	copy(f[1:], sum[:])
	return f
}

// Digest is a hash of a request as it came. Requests with the same Digest have
// the same Fingerprint; it takes a tenth of the time, and suffices for those
// that repeat another to the letter, as most do. It is never stored.
type Digest [sha256.Size]byte

// Digest returns the Digest of r.
func (r Request) Digest() Digest {
	buf := hashInputs.Get().(*[]byte)
	b := (*buf)[:0]
	b = appendPart(b, r.Method)
	b = appendPart(b, r.Path)
	b = appendPart(b, r.Query)
	b = appendPart(b, r.MediaType)
	b = appendPart(b, r.Body)
	sum := sha256.Sum256(b)
	*buf = b
	keepHashInput(buf)
	return sum
}

// hashInputs are buffers for what is hashed.
var hashInputs = sync.Pool{New: func() any { return new([]byte) }}

// maxHashInput is the size of the largest buffer that is kept, in bytes.
const maxHashInput = 64 << 10

func keepHashInput(buf *[]byte) {
	if cap(*buf) <= maxHashInput { // a larger one would stay in memory for long
		hashInputs.Put(buf)
	}
}

// appendPart appends p preceded by its length, so that no two lists of parts
// come to the same.
func appendPart[T string | []byte](b []byte, p T) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
	return append(b, p...)
}

// normalPath decodes what needs no percent-encoding and writes the rest in
// upper case. It leaves dots and slashes where they are: what a server makes
// of them is the server's business, and two paths that may differ stay apart.
// A path with a percent sign that encodes nothing counts as it is written: with
// what is decoded behind it, the sign might come to encode something.
func normalPath(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		if i+2 >= len(path) {
			return path
		}
		c, err := hex.DecodeString(path[i+1 : i+3])
		switch {
		case err != nil:
			return path
		case unreserved(c[0]):
			b.WriteByte(c[0])
		default:
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

// unreserved tells whether c is an unreserved character (RFC 3986, 2.3).
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// normalQuery sorts parameters by name. Values of one name keep their order,
// which may matter to the server. A query that is no list of parameters counts
// as it is written.
func normalQuery(query string) string {
	if query == "" {
		return ""
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return query
	}
	return q.Encode()
}

// essence returns the media type in lower case, without its parameters.
func essence(contentType string) string {
	if contentType == "application/json" {
		return contentType
	}
	if t, _, err := mime.ParseMediaType(contentType); err == nil {
		return t
	}
	return strings.ToLower(strings.TrimSpace(contentType))
}

// canonicalJSON returns body with members sorted, white space removed and
// strings escaped in one way, and numbers as they were; or body itself where
// it is not one valid JSON value with unique names. It makes use of buf for that.
func canonicalJSON(buf *[]byte, body []byte) []byte {
	v := jsontext.Value(append((*buf)[:0], bytes.Trim(body, " \t\r\n")...))
	err := v.Canonicalize(
		jsontext.CanonicalizeRawInts(false),
		jsontext.CanonicalizeRawFloats(false),
	)
	*buf = v
	if err != nil {
		return body
	}
	return v
}
