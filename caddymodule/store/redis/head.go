package redis

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// layoutVersion is the first byte of every record in Redis.
const layoutVersion = 1

// The head of a record, which the scripts know as well, counting from 1:
//
//	 1      layout version
//	 2      '1': unsettled
//	 3      '1': somebody watches, or has once
//	 4..19  attendant
//	20..27  told, nanoseconds since 1970, big-endian; 0: never
//	28..43  owner
//	44..75  adoption
//
// What follows is encoded by package store, and the scripts know one byte of it:
//
//	77      state: 1 is started, 6 is queued
//
// A value of 17 bytes that begins with 0 is no record, but the owner of one that
// was released.
const (
	unsettledAt = 1
	attendantAt = 3
	toldAt      = 19
	ownerAt     = 27
	adoptionAt  = 43
	headSize    = 75
)

// encode appends rec as it stands in Redis after its claim, encrypted with keys but
// for the head.
func encode(dst []byte, keys *store.Keyring, rec *idempotency.Record) []byte {
	unsettled := byte('0')
	if rec.Adoption != (idempotency.AdoptionID{}) {
		unsettled = '1'
	}
	dst = append(dst, layoutVersion, unsettled, '0') // nobody has watched it
	dst = append(dst, rec.Attendant[:]...)
	dst = encodeTime(dst, rec.Told)
	dst = append(dst, rec.Owner[:]...)
	dst = append(dst, rec.Adoption[:]...)
	return keys.Encode(dst, rec)
}

// entry is a record as it stands in Redis. Where there is none, it is zero.
type entry struct {
	*idempotency.Record
	unsettled bool
}

func decode(keys *store.Keyring, value []byte) (entry, error) {
	if len(value) == 1+len(idempotency.Owner{}) && value[0] == 0 {
		return entry{}, nil
	}
	if len(value) > 0 && value[0] != layoutVersion {
		return entry{}, fmt.Errorf("decoding record: layout %d is unknown, only %d is", value[0], layoutVersion)
	}
	if len(value) < headSize {
		return entry{}, errors.New("decoding record: it ends within its head")
	}
	rec, err := keys.Decode(value[headSize:])
	if err != nil {
		return entry{}, err
	}
	return withHead(rec, value)
}

// decodeHead is decode without the body, for the beginning of a value, or all of
// it. Where that does not suffice, it returns how many bytes it needs.
func decodeHead(keys *store.Keyring, value []byte) (e entry, need int, err error) {
	if len(value) < headSize || value[0] != layoutVersion {
		e, err := decode(keys, value) // whatever it is, it is no record
		return e, 0, err
	}
	rec, need, err := keys.DecodeHead(value[headSize:])
	switch {
	case err != nil:
		return entry{}, 0, err
	case rec == nil && need < math.MaxInt-headSize:
		return entry{}, headSize + need, nil
	case rec == nil:
		return entry{}, need, nil
	}
	e, err = withHead(rec, value)
	return e, 0, err
}

// withHead returns rec as it is by the head of value.
func withHead(rec *idempotency.Record, value []byte) (entry, error) {
	if idempotency.Owner(value[ownerAt:adoptionAt]) != rec.Owner || idempotency.AdoptionID(value[adoptionAt:headSize]) != rec.Adoption {
		return entry{}, fmt.Errorf("decoding record: %w: its head is that of another", store.ErrDamaged)
	}
	copy(rec.Attendant[:], value[attendantAt:])
	rec.Told = decodeTime(value[toldAt:])
	return entry{rec, value[unsettledAt] == '1'}, nil
}

// encodeTime appends a time, zero for none.
func encodeTime(dst []byte, t time.Time) []byte {
	var ns uint64
	if !t.IsZero() {
		ns = uint64(t.UnixNano())
	}
	return binary.BigEndian.AppendUint64(dst, ns)
}

func decodeTime(b []byte) time.Time {
	ns := binary.BigEndian.Uint64(b)
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(ns)).UTC()
}
