package store

import (
	"encoding/binary"
	"errors"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// decoder reads fields off the front of rest. After the first error it reads
// zero values only.
type decoder struct {
	rest  []byte
	err   error
	short bool // err is that the input ends, and more of it might have mended that
}

// header reads a header. Where present is false, it has no names.
func (d *decoder) header(present bool) idempotency.Header {
	if d.err != nil {
		return ""
	}
	h, rest, err := idempotency.ParseHeader(d.rest)
	switch {
	case err != nil:
		d.endsEarly(err.Error()) // it cannot be told apart
	case h != "" && !present:
		d.fail("its header is both absent and not")
	default:
		d.rest = rest
	}
	return h
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = errors.New(what)
	}
	d.rest = nil
}

// endsEarly is fail, for what more input might have mended.
func (d *decoder) endsEarly(what string) {
	if d.err == nil {
		d.short = true
	}
	d.fail(what)
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) bool() bool {
	b := d.byte()
	if b > 1 {
		d.fail("a truth value is neither")
	}
	return b == 1
}

// bytes returns the next n bytes, which still belong to the input, or nil.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.endsEarly("it ends too early")
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes(d.length(1))) }

// length reads the length of a list whose items take at least size bytes each.
// It is never more than the rest of the input can hold.
func (d *decoder) length(size int) int {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.numberFails(n, "a length is malformed")
		return 0
	}
	d.rest = d.rest[n:]
	if v > uint64(len(d.rest)/size) {
		d.endsEarly("a length exceeds what is left")
		return 0
	}
	return int(v)
}

// numberFails notes that a number could not be read; n is what package binary
// returned.
func (d *decoder) numberFails(n int, what string) {
	if n == 0 {
		d.endsEarly(what)
	} else {
		d.fail(what)
	}
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.numberFails(n, "a number is malformed")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.numberFails(n, "a number is malformed")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) time() time.Time {
	sec := d.varint()
	nsec, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.numberFails(n, "a time is malformed")
		return time.Time{}
	}
	if nsec >= maxNanosecond {
		d.fail("a time is malformed")
		return time.Time{}
	}
	d.rest = d.rest[n:]
	return time.Unix(sec, int64(nsec)).UTC()
}
