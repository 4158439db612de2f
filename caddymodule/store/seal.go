package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"slices"

	"genesys-sidecar/caddymodule/idempotency"
)

// A sealed record is encrypted but for what a store needs: its state, ID, owner,
// adoption ID and times. Its layout is: version, state and a zero, a byte each;
// ID, owner and adoption ID; the four times; key ID and salt; the length of the
// sealed details, four bytes, little-endian, and those; where there is an answer
// or a deferred call with a body, the sealed body; a CRC-32C of all before it, little-endian. The
// details are fingerprint, flags, length of the body, and what they are in a
// record that is not sealed.
//
// Details and body are sealed apart, so that a listing can read the first KiB of
// a record and leave an answer of megabytes where it is.
//
// They are sealed with AES-256-GCM, and what is in the clear before them is its
// additional data: no record can be given another ID, state, owner or time
// unnoticed. A random nonce of GCM's size is good for 2^32 records under one key,
// which a busy sidecar writes in weeks; so each record has a key of its own,
// derived by HMAC-SHA-256 from a random salt of 192 bits. Since that key seals
// these two parts and nothing else, ever, their nonces are their numbers.
//
// What this does not do: who reads the store still learns how long records are,
// when calls were made and which were alike; and who can guess a caller's
// key, with organisation and scope, can confirm the guess by the ID, which is a
// hash of the three (the same goes for a whole request by the adoption ID). Who
// can write to the store cannot change a sealed record, but can delete it, put an older
// version of it back, or put one in its place that is not sealed: since such
// records are to be read when a key is added, they are read.
const (
	saltSize = 24
	tagSize  = 16
)

// The nonces' last byte.
const (
	partDetails = iota
	partBody
)

// aead returns what seals the record with salt.
func (k *sealingKey) aead(salt []byte) cipher.AEAD {
	mac := hmac.New(sha256.New, k.secret[:])
	mac.Write(salt)
	block, err := aes.NewCipher(mac.Sum(nil))
	if err != nil {
		panic(err) // the key has the right size
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	return aead
}

func nonce(part byte) []byte { return append(make([]byte, 11, 12), part) }

// NoKeyError is the error for a record whose key a Keyring does not have.
type NoKeyError struct{ Key KeyID }

func (e *NoKeyError) Error() string {
	return fmt.Sprintf("decoding record: it is encrypted with key %s, which encryption_key does not have", e.Key)
}

// Encode is the function Encode, and seals the record where k has a key to
// encrypt with.
func (k *Keyring) Encode(dst []byte, rec *idempotency.Record) []byte {
	if k == nil || k.opens {
		return Encode(dst, rec)
	}
	key := &k.keys[0]
	start := len(dst)
	dst = slices.Grow(dst, encodedSize(rec)+saltSize+2*tagSize+16)
	dst = append(dst, versionSealed, byte(rec.State), 0)
	dst = append(dst, rec.ID[:]...)
	dst = append(dst, rec.Owner[:]...)
	dst = append(dst, rec.Adoption[:]...)
	dst = appendTimes(dst, rec)
	dst = append(dst, key.id[:]...)
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // never fails: crypto/rand ends the process instead
	dst = append(dst, salt[:]...)

	details := len(dst) + detailsLength
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, rec.Fingerprint[:]...)
	dst = append(dst, flagsOf(rec))
	var body []byte
	if of := bodyOf(rec); of != nil {
		body = *of
	}
	dst = binary.AppendUvarint(dst, uint64(len(body)))
	dst = appendDetails(dst, rec)
	binary.LittleEndian.PutUint32(dst[details-detailsLength:], uint32(len(dst)-details+tagSize))

	aead := key.aead(salt[:])
	dst = seal(aead, dst, start, details, details, partDetails)
	if len(body) > 0 {
		at := len(dst)
		dst = seal(aead, append(dst, body...), start, details, at, partBody)
	}
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// seal seals what dst has from at on, in its place. What it has from start to
// end is additional data.
func seal(aead cipher.AEAD, dst []byte, start, end, at int, part byte) []byte {
	return aead.Seal(dst[:at], nonce(part), dst[at:], dst[start:end:end])
}

func isSealed(data []byte) bool { return len(data) > 0 && data[0] == versionSealed }

// Decode is the function Decode, and opens records that are sealed with a key of
// k. Where k does not have the key, the error is a NoKeyError.
func (k *Keyring) Decode(data []byte) (*idempotency.Record, error) {
	if !isSealed(data) {
		return Decode(data)
	}
	body := len(data) - crc32.Size
	if body < 0 {
		return nil, fmt.Errorf("decoding record: %w: it has only %d bytes", ErrDamaged, len(data))
	}
	// A wrong seal means that somebody was here, this that a disk has failed.
	if crc32.Checksum(data[:body], castagnoli) != binary.LittleEndian.Uint32(data[body:]) {
		return nil, fmt.Errorf("decoding record: %w: its checksum does not match", ErrDamaged)
	}
	s, need, err := k.open(data[:body])
	switch {
	case err != nil:
		return nil, err
	case need > 0:
		return nil, fmt.Errorf("decoding record: %w: it ends too early", ErrDamaged)
	}
	if err := s.body(data[:body]); err != nil {
		return nil, err
	}
	return s.rec, nil
}

// DecodeHead is the function DecodeHead, and opens records that are sealed with
// a key of k. What is sealed was not changed, but the body may be.
func (k *Keyring) DecodeHead(data []byte) (rec *idempotency.Record, need int, err error) {
	if !isSealed(data) {
		return DecodeHead(data)
	}
	s, need, err := k.open(data)
	return s.rec, need, err
}

// DecodeClear returns what a sealed record tells without a key, of which data is
// the beginning or all: its state, ID, owner, adoption ID and times, for which
// nobody vouches, and what key it needs. Where data does not suffice, it returns how many bytes it needs. Of
// a record that is not sealed it returns nothing.
func DecodeClear(data []byte) (rec *idempotency.Record, key KeyID, need int, err error) {
	if !isSealed(data) {
		return nil, key, 0, nil
	}
	c, need, err := decodeClear(data)
	return c.rec, c.key, need, err
}

// clearPart is what stands before the sealed parts of a record.
type clearPart struct {
	rec  *idempotency.Record
	key  KeyID
	salt []byte
	data []byte // additional data
	size int    // of the sealed details
}

func decodeClear(data []byte) (c clearPart, need int, err error) {
	d := decoder{rest: data}
	d.byte() // version
	rec := new(idempotency.Record)
	rec.State = idempotency.State(d.byte())
	if d.byte() != 0 {
		d.fail("its flags are unknown")
	}
	copy(rec.ID[:], d.bytes(len(rec.ID)))
	copy(rec.Owner[:], d.bytes(len(rec.Owner)))
	copy(rec.Adoption[:], d.bytes(len(rec.Adoption)))
	d.times(rec)
	copy(c.key[:], d.bytes(len(c.key)))
	c.salt = d.bytes(saltSize)
	c.size = d.detailsSize()
	switch {
	case d.short:
		return clearPart{}, max(leastHead, len(data)+1), nil
	case d.err == nil && c.size < tagSize:
		d.fail("its details are too short")
	}
	if d.err != nil {
		return clearPart{}, 0, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	end := len(data) - len(d.rest)
	c.rec, c.data = rec, data[:end:end]
	return c, 0, nil
}

// opened is a sealed record whose details were opened.
type opened struct {
	rec      *idempotency.Record
	clear    clearPart
	aead     cipher.AEAD
	bodySize uint64
}

// open opens the details of the record that data begins with.
func (k *Keyring) open(data []byte) (o opened, need int, err error) {
	c, need, err := decodeClear(data)
	if err != nil || need > 0 {
		return opened{}, need, err
	}
	end := len(c.data)
	if need = end + c.size; need > len(data) {
		return opened{}, need, nil
	}
	key := k.key(c.key)
	if key == nil {
		return opened{}, 0, &NoKeyError{c.key}
	}
	aead := key.aead(c.salt)
	plain, err := aead.Open(nil, nonce(partDetails), data[end:need], c.data)
	if err != nil {
		return opened{}, 0, errSeal("details")
	}
	d := decoder{rest: plain}
	copy(c.rec.Fingerprint[:], d.bytes(len(c.rec.Fingerprint)))
	flags := d.byte()
	if flags&^knownFlags != 0 {
		d.fail("its flags are unknown")
	}
	size, n := binary.Uvarint(d.rest)
	if n <= 0 {
		d.fail("a length is malformed")
	} else {
		d.rest = d.rest[n:]
	}
	if d.err == nil {
		d.err = d.all(c.rec, flags)
	}
	if d.err == nil && size > 0 && bodyOf(c.rec) == nil {
		d.fail("it has a body and no answer")
	}
	if d.err != nil {
		return opened{}, 0, fmt.Errorf("decoding record: %w: %w", ErrDamaged, d.err)
	}
	return opened{c.rec, c, aead, size}, 0, nil
}

// body opens the body, which is the rest of data.
func (o *opened) body(data []byte) error {
	rest := data[len(o.clear.data)+o.clear.size:]
	if o.bodySize == 0 && len(rest) == 0 {
		return nil
	}
	if o.bodySize == 0 || o.bodySize > math.MaxInt64-tagSize || o.bodySize+tagSize != uint64(len(rest)) {
		return fmt.Errorf("decoding record: %w: its body has not the length that it should have", ErrDamaged)
	}
	var err error
	if *bodyOf(o.rec), err = o.aead.Open(nil, nonce(partBody), rest, o.clear.data); err != nil {
		return errSeal("body")
	}
	return nil
}

func errSeal(part string) error {
	return fmt.Errorf("decoding record: %w: the seal of its %s does not fit; it was changed, or moved here from elsewhere", ErrDamaged, part)
}
