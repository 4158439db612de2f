package sandbox

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// reply is an answer before it is written. Its body is a head, padding of
// pad bytes, and a tail, so that a gigabyte needs no gigabyte of memory.
type reply struct {
	status int
	header http.Header
	head   []byte
	pad    int64
	tail   []byte
	code   string // of an errorBody, for the ledger
}

func jsonReply(status int, v any) reply {
	return bytesReply(status, marshal(v))
}

func bytesReply(status int, body []byte) reply {
	return reply{
		status: status,
		header: http.Header{"Content-Type": {"application/json"}},
		head:   body,
	}
}

// padded grows a JSON object to exactly size bytes with a member "padding".
// An object that is already as large stays as it is.
func (r reply) padded(size int64) reply {
	const opening, closing = `,"padding":"`, `"}`
	object, ok := bytes.CutSuffix(r.head, []byte("}"))
	pad := size - int64(len(object)+len(opening)+len(closing))
	if !ok || r.pad > 0 || len(object) < 2 || pad <= 0 {
		return r
	}
	r.head = append(bytes.Clone(object), opening...)
	r.pad = pad
	r.tail = []byte(closing)
	return r
}

func (r reply) length() int64 {
	return int64(len(r.head)) + r.pad + int64(len(r.tail))
}

func (r reply) reader() io.Reader {
	return io.MultiReader(
		bytes.NewReader(r.head),
		io.LimitReader(filler{}, r.pad),
		bytes.NewReader(r.tail),
	)
}

// compressed gzips the body. The padding compresses to almost nothing.
func (r reply) compressed() reply {
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	// Writing to a bytes.Buffer and reading from memory cannot fail.
	_, _ = io.Copy(zip, r.reader())
	_ = zip.Close()
	r.head, r.pad, r.tail = buf.Bytes(), 0, nil
	r.header = r.header.Clone()
	r.header.Set("Content-Encoding", "gzip")
	r.header.Add("Vary", "Accept-Encoding")
	return r
}

// send writes the answer, or its first half only when half is set. The
// Content-Length is always that of the whole.
func (r reply) send(w http.ResponseWriter, half bool) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.FormatInt(r.length(), 10))
	w.WriteHeader(r.status)
	if !half {
		// A caller that has gone is no concern of the platform.
		_, _ = io.Copy(w, r.reader())
		return
	}
	_, _ = io.CopyN(w, r.reader(), r.length()/2)
	_ = http.NewResponseController(w).Flush()
}

// filler reads as an endless row of x.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// acceptsGzip reads Accept-Encoding as far as a test double has to.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
			continue
		}
		quality := strings.ReplaceAll(params, " ", "")
		weight, err := strconv.ParseFloat(strings.TrimPrefix(quality, "q="), 64)
		return err != nil || weight > 0
	}
	return false
}
