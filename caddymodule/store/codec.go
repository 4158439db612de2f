package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// The first byte of every encoded record is the version of its layout.
const (
	versionBare   = 1 // without label and journal; read, not written any more
	versionPlain  = 2
	versionSealed = 3 // encrypted; see seal.go
)

// ErrDamaged is what errors of Decode wrap.
var ErrDamaged = errors.New("the record is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode appends the encoding of rec to dst and returns the result.
//
// The layout is: version, state and flags, a byte each; ID, owner, fingerprint
// and adoption ID, of fixed length; the four times; the length of the details,
// four bytes, little-endian, and the details; where there is an answer, its body;
// a CRC-32C of all before it, little-endian. The details are key and upstream key;
// label and journal, where they are not empty; where there is an answer, its
// status and header. Strings are preceded by their length, a uvarint; a header is
// as idempotency.Header has it.
//
// Where there is a deferred call, it stands in the place of the answer: what is
// known of it in the details, and the body of its request as the body. A record
// that has both is encoded with its answer only: a call that has ended is not sent.
//
// So all but the body is found in the first few KiB, which is what a listing
// reads.
func Encode(dst []byte, rec *idempotency.Record) []byte {
	start := len(dst)
	dst = slices.Grow(dst, encodedSize(rec))
	dst = append(dst, versionPlain, byte(rec.State), flagsOf(rec))
	dst = append(dst, rec.ID[:]...)
	dst = append(dst, rec.Owner[:]...)
	dst = append(dst, rec.Fingerprint[:]...)
	dst = append(dst, rec.Adoption[:]...)
	dst = appendTimes(dst, rec)

	details := len(dst) + detailsLength
	dst = appendDetails(append(dst, 0, 0, 0, 0), rec)
	binary.LittleEndian.PutUint32(dst[details-detailsLength:], uint32(len(dst)-details))
	if body := bodyOf(rec); body != nil {
		dst = binary.AppendUvarint(dst, uint64(len(*body)))
		dst = append(dst, *body...)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// bodyOf returns what is encoded behind the details, or nil where nothing is.
func bodyOf(rec *idempotency.Record) *[]byte {
	switch {
	case rec.Answer != nil:
		return &rec.Answer.Body
	case rec.Deferred != nil:
		return &rec.Deferred.Body
	default:
		return nil
	}
}

// detailsLength is the size of the length of the details.
const detailsLength = 4

// encodedSize returns about how many bytes rec takes, so that a large body is
// copied once.
func encodedSize(rec *idempotency.Record) int {
	n := 240 + len(rec.Key) + len(rec.UpstreamKey) + len(rec.Label.Action) + journalSize(rec.Journal)
	switch {
	case rec.Answer != nil:
		n += len(rec.Answer.Header) + len(rec.Answer.Body)
	case rec.Deferred != nil:
		n += len(rec.Deferred.Place) + int(rec.Deferred.Size())
	}
	return n
}

func appendTimes(dst []byte, rec *idempotency.Record) []byte {
	for _, t := range []time.Time{rec.Started, rec.Finished, rec.Told, rec.Expires} {
		dst = appendTime(dst, t)
	}
	return dst
}

// Decode returns the record that data encodes. It keeps nothing of data, and
// it allocates no more than a small multiple of len(data), whatever data is.
// Its errors wrap ErrDamaged where data is not what Encode wrote. Records that
// are sealed are for a Keyring to decode.
func Decode(data []byte) (*idempotency.Record, error) {
	if isSealed(data) {
		return (*Keyring)(nil).Decode(data)
	}
	if len(data) > 0 && !isKnown(data[0]) {
		return nil, errVersion(data[0])
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
		d.fail(fmt.Sprintf("%d bytes follow its end", len(d.rest)))
	}
	if d.err != nil {
		return nil, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	return rec, nil
}

func isKnown(version byte) bool { return version == versionBare || version == versionPlain }

func errVersion(version byte) error {
	return fmt.Errorf("decoding record: version %d is unknown, the newest known is %d", version, versionSealed)
}

// record reads a record of any version, whole.
func (d *decoder) record() *idempotency.Record {
	rec := new(idempotency.Record)
	if d.byte() == versionBare {
		flags := d.head(rec, knownBareFlags)
		d.bareDetails(rec, flags)
		d.body(rec)
		return rec
	}
	flags := d.head(rec, knownFlags)
	details := decoder{rest: d.bytes(d.detailsSize())}
	if d.err == nil {
		d.err = details.all(rec, flags)
	}
	d.body(rec)
	return rec
}

// head reads what stands before the details, after the version.
func (d *decoder) head(rec *idempotency.Record, known byte) (flags byte) {
	rec.State = idempotency.State(d.byte())
	flags = d.byte()
	if flags&^known != 0 {
		d.fail("its flags are unknown")
	}
	copy(rec.ID[:], d.bytes(len(rec.ID)))
	copy(rec.Owner[:], d.bytes(len(rec.Owner)))
	copy(rec.Fingerprint[:], d.bytes(len(rec.Fingerprint)))
	copy(rec.Adoption[:], d.bytes(len(rec.Adoption)))
	d.times(rec)
	return flags
}

// detailsSize reads the length of the details.
func (d *decoder) detailsSize() int {
	b := d.bytes(detailsLength)
	if b == nil {
		return 0
	}
	return int(min(binary.LittleEndian.Uint32(b), math.MaxInt32))
}

func (d *decoder) times(rec *idempotency.Record) {
	for _, t := range []*time.Time{&rec.Started, &rec.Finished, &rec.Told, &rec.Expires} {
		*t = d.time()
	}
}

// bareDetails reads what version 1 has between times and body.
func (d *decoder) bareDetails(rec *idempotency.Record, flags byte) {
	rec.Honored = flags&flagHonored != 0
	rec.Key = d.string()
	rec.UpstreamKey = d.string()
	d.answer(rec, flags)
}

// body reads the body, where there is an answer or a deferred call.
func (d *decoder) body(rec *idempotency.Record) {
	into := bodyOf(rec)
	if into == nil || d.err != nil {
		return
	}
	if body := d.bytes(d.length(1)); len(body) > 0 {
		*into = slices.Clone(body)
	}
}

// whole is what DecodeHead needs of a record that does not tell.
const whole = math.MaxInt

// DecodeHead returns the record that data is the beginning of, or all, without
// the body of the answer or of the deferred call. Where data does not suffice, it returns no record but how
// many bytes it needs, or of a version that does not tell, math.MaxInt for all
// there are. It keeps nothing of data and checks no checksum, which
// is at the end.
func DecodeHead(data []byte) (rec *idempotency.Record, need int, err error) {
	if len(data) == 0 {
		return nil, leastHead, nil
	}
	if isSealed(data) {
		return (*Keyring)(nil).DecodeHead(data)
	}
	if !isKnown(data[0]) {
		return nil, 0, errVersion(data[0])
	}
	d := decoder{rest: data}
	rec = new(idempotency.Record)
	bare := d.byte() == versionBare
	known := byte(knownFlags)
	if bare {
		known = knownBareFlags
	}
	flags := d.head(rec, known)
	switch {
	case d.err != nil && !d.short: // below
	case bare:
		d.bareDetails(rec, flags)
		if d.short {
			return nil, whole, nil
		}
	default:
		size := d.detailsSize()
		if d.short {
			return nil, leastHead, nil
		}
		if need = len(data) - len(d.rest) + size; need > len(data) {
			return nil, need, nil
		}
		details := decoder{rest: d.bytes(size)}
		d.err = details.all(rec, flags)
	}
	if d.err != nil {
		return nil, 0, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	return rec, 0, nil
}

// DecodeTimes returns the record that data is the beginning of, or all, with as
// much as stands before its details: times, ID and owner among it. Where data
// does not suffice, it returns how many bytes it needs, as DecodeHead does.
func DecodeTimes(data []byte) (rec *idempotency.Record, need int, err error) {
	if len(data) == 0 {
		return nil, leastHead, nil
	}
	if isSealed(data) {
		rec, _, need, err = DecodeClear(data)
		return rec, need, err
	}
	if !isKnown(data[0]) {
		return nil, 0, errVersion(data[0])
	}
	d := decoder{rest: data}
	rec = new(idempotency.Record)
	known := byte(knownFlags)
	if d.byte() == versionBare {
		known = knownBareFlags
	}
	d.head(rec, known)
	switch {
	case d.short:
		return nil, leastHead, nil
	case d.err != nil:
		return nil, 0, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	return rec, 0, nil
}

// leastHead is more than what precedes the details.
const leastHead = 256
