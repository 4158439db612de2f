package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// codecVersion is the first byte of every encoded record. It changes with the
// layout below.
const codecVersion = 1

// Bits of the flags byte.
const (
	flagHonored = 1 << iota
	flagAnswer
	flagHeader

	knownFlags = flagHonored | flagAnswer | flagHeader
)

// maxNanosecond is what a time's nanoseconds stay below.
const maxNanosecond = 1_000_000_000

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged is what errors of Decode wrap.
var ErrDamaged = errors.New("the record is damaged")

// Encode appends the encoding of rec to dst and returns the result.
//
// The layout is: version, state and flags, a byte each; ID, owner, fingerprint
// and adoption ID, of fixed length; the four times; key and upstream key; where
// there is an answer its status, header and body; a CRC-32C of all before it,
// little-endian. Strings are preceded by their length, a uvarint; a header is as
// idempotency.Header has it.
func Encode(dst []byte, rec *idempotency.Record) []byte {
	start := len(dst)
	dst = slices.Grow(dst, encodedSize(rec))

	var flags byte
	if rec.Honored {
		flags |= flagHonored
	}
	if rec.Answer != nil {
		flags |= flagAnswer
		if rec.Answer.Header != "" {
			flags |= flagHeader
		}
	}
	dst = append(dst, codecVersion, byte(rec.State), flags)
	dst = append(dst, rec.ID[:]...)
	dst = append(dst, rec.Owner[:]...)
	dst = append(dst, rec.Fingerprint[:]...)
	dst = append(dst, rec.Adoption[:]...)
	for _, t := range []time.Time{rec.Started, rec.Finished, rec.Told, rec.Expires} {
		dst = appendTime(dst, t)
	}
	dst = appendString(dst, rec.Key)
	dst = appendString(dst, rec.UpstreamKey)
	if a := rec.Answer; a != nil {
		dst = binary.AppendVarint(dst, int64(a.Status))
		if dst = append(dst, a.Header...); a.Header == "" {
			dst = append(dst, 0)
		}
		dst = binary.AppendUvarint(dst, uint64(len(a.Body)))
		dst = append(dst, a.Body...)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// encodedSize returns about how many bytes rec takes, so that a large body is
// copied once.
func encodedSize(rec *idempotency.Record) int {
	n := 256 + len(rec.Key) + len(rec.UpstreamKey)
	if rec.Answer != nil {
		n += len(rec.Answer.Header) + len(rec.Answer.Body)
	}
	return n
}

// appendTime appends t as seconds and nanoseconds since 1970, which takes the
// zero time and every other as it is.
func appendTime(dst []byte, t time.Time) []byte {
	dst = binary.AppendVarint(dst, t.Unix())
	return binary.AppendUvarint(dst, uint64(t.Nanosecond()))
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Decode returns the record that data encodes. It keeps nothing of data, and
// it allocates no more than a small multiple of len(data), whatever data is.
// Its errors wrap ErrDamaged where data is not what Encode wrote.
func Decode(data []byte) (*idempotency.Record, error) {
	if len(data) > 0 && data[0] != codecVersion {
		return nil, fmt.Errorf("decoding record: version %d is unknown, only %d is", data[0], codecVersion)
	}
	body := len(data) - crc32.Size
	if body < 0 {
		return nil, fmt.Errorf("decoding record: %w: it has only %d bytes", ErrDamaged, len(data))
	}
	if crc32.Checksum(data[:body], castagnoli) != binary.LittleEndian.Uint32(data[body:]) {
		return nil, fmt.Errorf("decoding record: %w: its checksum does not match", ErrDamaged)
	}

	d := decoder{rest: data[:body]}
	rec := d.record()
	if d.err == nil && len(d.rest) > 0 {
		d.err = fmt.Errorf("%d bytes follow its end", len(d.rest))
	}
	if d.err != nil {
		return nil, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	return rec, nil
}

// decoder reads fields off the front of rest. After the first error it reads
// zero values only.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) record() *idempotency.Record {
	rec := new(idempotency.Record)
	d.byte() // the version, checked already
	rec.State = idempotency.State(d.byte())
	flags := d.byte()
	if flags&^knownFlags != 0 {
		d.fail("its flags are unknown")
	}
	rec.Honored = flags&flagHonored != 0
	copy(rec.ID[:], d.bytes(len(rec.ID)))
	copy(rec.Owner[:], d.bytes(len(rec.Owner)))
	copy(rec.Fingerprint[:], d.bytes(len(rec.Fingerprint)))
	copy(rec.Adoption[:], d.bytes(len(rec.Adoption)))
	for _, t := range []*time.Time{&rec.Started, &rec.Finished, &rec.Told, &rec.Expires} {
		*t = d.time()
	}
	rec.Key = d.string()
	rec.UpstreamKey = d.string()
	if flags&flagAnswer != 0 {
		rec.Answer = &idempotency.Answer{Status: int(d.varint())}
		rec.Answer.Header = d.header(flags&flagHeader != 0)
		if body := d.bytes(d.length(1)); len(body) > 0 {
			rec.Answer.Body = slices.Clone(body)
		}
	}
	return rec
}

// header reads a header. Where present is false, it has no names.
func (d *decoder) header(present bool) idempotency.Header {
	if d.err != nil {
		return ""
	}
	h, rest, err := idempotency.ParseHeader(d.rest)
	switch {
	case err != nil:
		d.fail(err.Error())
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

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// bytes returns the next n bytes, which still belong to the input, or nil.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.fail("it ends too early")
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
		d.fail("a length is malformed")
		return 0
	}
	d.rest = d.rest[n:]
	if v > uint64(len(d.rest)/size) {
		d.fail("a length exceeds what is left")
		return 0
	}
	return int(v)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.fail("a number is malformed")
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) time() time.Time {
	sec := d.varint()
	nsec, n := binary.Uvarint(d.rest)
	if n <= 0 || nsec >= maxNanosecond {
		d.fail("a time is malformed")
		return time.Time{}
	}
	d.rest = d.rest[n:]
	return time.Unix(sec, int64(nsec)).UTC()
}
