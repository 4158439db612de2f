package store

import (
	"encoding/binary"
	"fmt"
	"slices"
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
	flagDeferred // excludes flagAnswer; flagHeader is of its header then
	flagDelays   // attempts tell how long they were paused and paced

	knownBareFlags = flagHonored | flagAnswer | flagHeader
	knownFlags     = knownBareFlags | flagLabel | flagJournal | flagDeferred | flagDelays

	// recentFlags are those that programs do not know which know versions 2 and 3
	// otherwise: they take such a record for damaged.
	recentFlags = flagDeferred | flagDelays
)

// IsRecent tells whether an encoding of rec is one that older programs cannot
// read: rec has a deferred call, or attempts that were paused or paced.
func IsRecent(rec *idempotency.Record) bool { return flagsOf(rec)&recentFlags != 0 }

// maxNanosecond is what a time's nanoseconds stay below.
const maxNanosecond = 1_000_000_000

func flagsOf(rec *idempotency.Record) (flags byte) {
	if rec.Honored {
		flags |= flagHonored
	}
	switch {
	case rec.Answer != nil:
		flags |= flagAnswer
		if rec.Answer.Header != "" {
			flags |= flagHeader
		}
	case rec.Deferred != nil:
		flags |= flagDeferred
		if rec.Deferred.Header != "" {
			flags |= flagHeader
		}
	}
	if rec.Label != (idempotency.Label{}) {
		flags |= flagLabel
	}
	if j := rec.Journal; len(j.Attempts) > 0 || j.Skipped != 0 || len(j.Words) > 0 {
		flags |= flagJournal
	}
	if slices.ContainsFunc(rec.Journal.Attempts, hasDelays) {
		flags |= flagDelays
	}
	return flags
}

func hasDelays(a idempotency.Attempt) bool { return a.Paused != 0 || a.Paced != 0 }

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
		dst = appendJournal(dst, rec.Journal, flags&flagDelays != 0)
	}
	if a := rec.Answer; a != nil {
		dst = binary.AppendVarint(dst, int64(a.Status))
		dst = appendHeader(dst, a.Header)
	} else if rec.Deferred != nil {
		dst = appendDeferred(dst, rec.Deferred)
	}
	return dst
}

// appendDeferred appends the fields of a deferred call in their order, but for
// its body.
func appendDeferred(dst []byte, call *idempotency.Deferred) []byte {
	dst = appendString(dst, string(call.Place))
	dst = append(dst, call.Lane[:]...)
	dst = appendTime(dst, call.Since)
	dst = binary.AppendUvarint(dst, call.Policy)
	dst = appendString(dst, call.Method)
	dst = appendString(dst, call.URL)
	return appendHeader(dst, call.Header)
}

func appendHeader(dst []byte, h idempotency.Header) []byte {
	if h == "" {
		return append(dst, 0)
	}
	return append(dst, h...)
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
		rec.Journal = d.journal(flags&flagDelays != 0)
	}
	switch {
	case flags&flagDelays != 0 && flags&flagJournal == 0:
		d.fail("it has delays and no journal")
	case flags&flagDeferred == 0:
		d.answer(rec, flags)
	case flags&flagAnswer == 0:
		rec.Deferred = d.deferred(flags)
	default:
		d.fail("it is deferred and has an answer")
	}
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

// deferred reads a deferred call but for its body.
func (d *decoder) deferred(flags byte) *idempotency.Deferred {
	call := new(idempotency.Deferred)
	call.Place = idempotency.Place(d.string())
	copy(call.Lane[:], d.bytes(len(call.Lane)))
	call.Since = d.time()
	call.Policy = d.uvarint()
	call.Method = d.string()
	call.URL = d.string()
	call.Header = d.header(flags&flagHeader != 0)
	return call
}

// The least that an attempt, the delays of one, and a word of a journal take.
const (
	attemptSize = 9
	delaysSize  = 2
	wordSize    = 4
)

// journalSize returns about how many bytes a journal takes.
func journalSize(j idempotency.Journal) (n int) {
	for _, a := range j.Attempts {
		n += 40 + len(a.CorrelationID) + len(a.Verdict) + len(a.Error)
	}
	for _, w := range j.Words {
		n += 16 + len(w.Note)
	}
	return n
}

// appendJournal appends how many attempts were skipped; the number of those that
// were kept and each one, as its fields are in their order, with its delays at its
// end where the flags say that there are any; the same of the words.
func appendJournal(dst []byte, j idempotency.Journal, delays bool) []byte {
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
		if delays {
			dst = binary.AppendVarint(dst, int64(a.Paused))
			dst = binary.AppendVarint(dst, int64(a.Paced))
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(j.Words)))
	for _, w := range j.Words {
		dst = appendTime(dst, w.Said)
		dst = appendBool(dst, w.Executed)
		dst = appendString(dst, w.Note)
	}
	return dst
}

func (d *decoder) journal(delays bool) (j idempotency.Journal) {
	j.Skipped = int(d.varint())
	least := attemptSize
	if delays {
		least += delaysSize
	}
	if n := d.length(least); n > 0 {
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
		if delays {
			a.Paused = time.Duration(d.varint())
			a.Paced = time.Duration(d.varint())
		}
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
	if d.err == nil && delays && !slices.ContainsFunc(j.Attempts, hasDelays) {
		d.fail("its delays are both absent and not")
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
