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
	return NewHeaderWithout(h, func(string) bool { return false })
}

// NewHeaderWithout returns the Header with the contents of h but for the names that
// drop picks.
func NewHeaderWithout(h http.Header, drop func(name string) bool) Header {
	names := make([]string, 0, 16) // on the stack, as a rule
	for name := range h {
		if !drop(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	b := binary.AppendUvarint(make([]byte, 0, 512), uint64(len(names)))
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
	n, at := lengthAt(b, 0, 2) // a name and a list, if only their lengths
	for i := 0; i < n && at >= 0; i++ {
		var values int
		_, at = textAt(b, at)
		values, at = lengthAt(b, at, 1)
		for j := 0; j < values && at >= 0; j++ {
			_, at = textAt(b, at)
		}
	}
	if at < 0 {
		return "", nil, ErrInvalidHeader
	}
	if at > 1 {
		h = Header(b[:at])
	}
	return h, b[at:], nil
}

// All returns names and their values, sorted by name. The lists of values
// belong to the caller.
func (h Header) All() iter.Seq2[string, []string] {
	return func(yield func(string, []string) bool) {
		if h == "" {
			return
		}
		n, at := lengthAt(h, 0, 2)
		all := make([]string, 0, n) // most names have one value
		for range n {
			var name, value Header
			var values int
			name, at = textAt(h, at)
			values, at = lengthAt(h, at, 1)
			start := len(all)
			for range values {
				value, at = textAt(h, at)
				all = append(all, string(value))
			}
			if !yield(string(name), all[start:len(all):len(all)]) {
				return
			}
		}
	}
}

// HTTP returns the contents of h as a map of its own.
func (h Header) HTTP() http.Header { return maps.Collect(h.All()) }

// lengthAt reads the length of a list whose items take at least size bytes
// each, and tells where these begin. The length is never more than the rest of b
// can hold. Where it is malformed, or at is negative, next is negative.
func lengthAt[T []byte | Header](b T, at, size int) (n, next int) {
	if at < 0 {
		return 0, -1
	}
	var v uint64
	for i := 0; i < binary.MaxVarintLen64 && at < len(b); i++ {
		c := b[at]
		at++
		v |= uint64(c&0x7f) << (7 * i)
		if c >= 0x80 {
			continue
		}
		if v > uint64((len(b)-at)/size) {
			break
		}
		return int(v), at
	}
	return 0, -1
}

// textAt reads a text, and tells where it ends, likewise.
func textAt[T []byte | Header](b T, at int) (text T, next int) {
	n, at := lengthAt(b, at, 1)
	if at < 0 {
		return b[:0], -1
	}
	return b[at : at+n], at + n
}
