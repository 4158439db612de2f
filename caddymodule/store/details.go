package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// Bits of the flags byte.
const (
	flagHonored = 1 << iota
	flagAnswer
	flagHeader
	flagLabel
	flagJournal

	knownBareFlags = flagHonored | flagAnswer | flagHeader
	knownFlags     = knownBareFlags | flagLabel | flagJournal
)

// maxNanosecond is what a time's nanoseconds stay below.
const maxNanosecond = 1_000_000_000

func flagsOf(rec *idempotency.Record) (flags byte) {
	if rec.Honored {
		flags |= flagHonored
	}
	if rec.Answer != nil {
		flags |= flagAnswer
		if rec.Answer.Header != "" {
			flags |= flagHeader
		}
	}
	if rec.Label != (idempotency.Label{}) {
		flags |= flagLabel
	}
	if j := rec.Journal; len(j.Attempts) > 0 || j.Skipped != 0 || len(j.Words) > 0 {
		flags |= flagJournal
	}
	return flags
}

// appendDetails appends what stands between the times and the body.
func appendDetails(dst []byte, rec *idempotency.Record) []byte {
	dst = appendString(dst, rec.Key)
	dst = appendString(dst, rec.UpstreamKey)
	flags := flagsOf(rec)
	if flags&flagLabel != 0 {
		dst = append(dst, rec.Label.Organisation[:]...)
		dst = append(dst, rec.Label.Scope[:]...)
		dst = appendString(dst, rec.Label.Action)
	}
	if flags&flagJournal != 0 {
		dst = appendJournal(dst, rec.Journal)
	}
	if a := rec.Answer; a != nil {
		dst = binary.AppendVarint(dst, int64(a.Status))
		if dst = append(dst, a.Header...); a.Header == "" {
			dst = append(dst, 0)
		}
	}
	return dst
}

// all reads the details, which are all of its input.
func (d *decoder) all(rec *idempotency.Record, flags byte) error {
	rec.Honored = flags&flagHonored != 0
	rec.Key = d.string()
	rec.UpstreamKey = d.string()
	if flags&flagLabel != 0 {
		copy(rec.Label.Organisation[:], d.bytes(len(rec.Label.Organisation)))
		copy(rec.Label.Scope[:], d.bytes(len(rec.Label.Scope)))
		rec.Label.Action = d.string()
		if rec.Label == (idempotency.Label{}) {
			d.fail("its label is both absent and not")
		}
	}
	if flags&flagJournal != 0 {
		rec.Journal = d.journal()
	}
	d.answer(rec, flags)
	if d.err == nil && len(d.rest) > 0 {
		d.fail(fmt.Sprintf("%d bytes follow its details", len(d.rest)))
	}
	return d.err
}

// answer reads an answer's status and header, where there is one.
func (d *decoder) answer(rec *idempotency.Record, flags byte) {
	if flags&flagAnswer == 0 {
		if flags&flagHeader != 0 {
			d.fail("it has a header and no answer")
		}
		return
	}
	rec.Answer = &idempotency.Answer{Status: int(d.varint())}
	rec.Answer.Header = d.header(flags&flagHeader != 0)
}

// The least that an attempt and a word of a journal take.
const (
	attemptSize = 9
	wordSize    = 4
)

// journalSize returns about how many bytes a journal takes.
func journalSize(j idempotency.Journal) (n int) {
	for _, a := range j.Attempts {
		n += 32 + len(a.CorrelationID) + len(a.Verdict) + len(a.Error)
	}
	for _, w := range j.Words {
		n += 16 + len(w.Note)
	}
	return n
}

// appendJournal appends how many attempts were skipped; the number of those that
// were kept and each one, as its fields are in their order; the same of the words.
func appendJournal(dst []byte, j idempotency.Journal) []byte {
	dst = binary.AppendVarint(dst, int64(j.Skipped))
	dst = binary.AppendUvarint(dst, uint64(len(j.Attempts)))
	for _, a := range j.Attempts {
		dst = appendTime(dst, a.Started)
		dst = binary.AppendVarint(dst, int64(a.Waited))
		dst = binary.AppendVarint(dst, int64(a.Took))
		dst = appendBool(dst, a.Written)
		dst = binary.AppendVarint(dst, int64(a.Status))
		dst = appendString(dst, a.CorrelationID)
		dst = appendString(dst, a.Verdict)
		dst = appendString(dst, a.Error)
	}
	dst = binary.AppendUvarint(dst, uint64(len(j.Words)))
	for _, w := range j.Words {
		dst = appendTime(dst, w.Said)
		dst = appendBool(dst, w.Executed)
		dst = appendString(dst, w.Note)
	}
	return dst
}

func (d *decoder) journal() (j idempotency.Journal) {
	j.Skipped = int(d.varint())
	if n := d.length(attemptSize); n > 0 {
		j.Attempts = make([]idempotency.Attempt, n)
	}
	for i := range j.Attempts {
		a := &j.Attempts[i]
		a.Started = d.time()
		a.Waited = time.Duration(d.varint())
		a.Took = time.Duration(d.varint())
		a.Written = d.bool()
		a.Status = int(d.varint())
		a.CorrelationID = d.string()
		a.Verdict = d.string()
		a.Error = d.string()
	}
	if n := d.length(wordSize); n > 0 {
		j.Words = make([]idempotency.Word, n)
	}
	for i := range j.Words {
		w := &j.Words[i]
		w.Said = d.time()
		w.Executed = d.bool()
		w.Note = d.string()
	}
	if d.err == nil && len(j.Attempts) == 0 && j.Skipped == 0 && len(j.Words) == 0 {
		d.fail("its journal is both absent and not")
	}
	return j
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

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

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
