package idempotency

import (
	"encoding/binary"
	"errors"
	"iter"
	"maps"
	"net/http"
	"slices"
)

// Header is an http.Header that nobody can change, in one string: records lie
// in memory and on disk by the thousand for a day, and as a map of slices of
// strings, a header would be most of what the garbage collector has to visit.
// The zero Header is empty. Equal Headers have equal contents.
//
// It has the number of names; for each, in order, the name, the number of its
// values, and these. Numbers are uvarints, and precede names and values as
// their lengths too. Empty, it has nothing, or a zero.
type Header string

// NewHeader returns the Header with the contents of h.
func NewHeader(h http.Header) Header {
	if len(h) == 0 {
		return ""
	}
	names := slices.AppendSeq(make([]string, 0, 16), maps.Keys(h)) // on the stack, as a rule
	slices.Sort(names)
	b := binary.AppendUvarint(make([]byte, 0, 512), uint64(len(h)))
	for _, name := range names {
		b = appendText(b, name)
		b = binary.AppendUvarint(b, uint64(len(h[name])))
		for _, v := range h[name] {
			b = appendText(b, v)
		}
	}
	return Header(b)
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// ErrInvalidHeader is returned by ParseHeader.
var ErrInvalidHeader = errors.New("the header is malformed")

// ParseHeader returns the Header at the start of b, and what follows it.
func ParseHeader(b []byte) (h Header, rest []byte, err error) {
	r := headerReader[[]byte]{rest: b}
	for range r.length(2) { // a name and a list, if only their lengths
		r.text()
		for range r.length(1) {
			r.text()
		}
		if r.bad {
			break
		}
	}
	if r.bad {
		return "", nil, ErrInvalidHeader
	}
	if n := len(b) - len(r.rest); n > 1 {
		h = Header(b[:n])
	}
	return h, r.rest, nil
}

// All returns names and their values, sorted by name. The lists of values
// belong to the caller.
func (h Header) All() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		if h == "" {
			return
		}
		r := headerReader[Header]{rest: h}
		n := r.length(2)
		values := make([]string, 0, n) // most names have one
		for range n {
			name := string(r.text())
			start := len(values)
			for range r.length(1) {
				values = append(values, string(r.text()))
			}
			if !yield(name, values[start:len(values):len(values)]) {
				return
			}
		}
	}
}

// HTTP returns the contents of h as a map of its own.
func (h Header) HTTP() http.Header { return maps.Collect(h.All()) }

// headerReader reads a Header off the front of rest. Once something is
// malformed, everything is empty.
type headerReader[T []byte | Header] struct {
	rest T
	bad  bool
}

// length reads the length of a list whose items take at least size bytes each.
// It is never more than the rest can hold.
func (r *headerReader[T]) length(size int) int {
	var v uint64
	for i := range min(len(r.rest), binary.MaxVarintLen64) {
		c := r.rest[i]
		v |= uint64(c&0x7f) << (7 * i)
		if c >= 0x80 {
			continue
		}
		r.rest = r.rest[i+1:]
		if v > uint64(len(r.rest)/size) {
			break
		}
		return int(v)
	}
	r.bad = true
	r.rest = r.rest[len(r.rest):]
	return 0
}

func (r *headerReader[T]) text() T {
	n := r.length(1)
	t := r.rest[:n]
	r.rest = r.rest[n:]
	return t
}
