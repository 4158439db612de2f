package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

func sample() *idempotency.Record {
	return &idempotency.Record{
		ID:          idempotency.NewID("org", "scope", "key"),
		State:       idempotency.Done,
		Owner:       idempotency.Owner{1, 2, 3},
		Fingerprint: idempotency.Fingerprint{1, 9, 9},
		Key:         "key",
		UpstreamKey: "upstream",
		Honored:     true,
		Adoption:    idempotency.AdoptionID{7},
		Started:     time.Unix(1_700_000_000, 123_456_789).UTC(),
		Finished:    time.Unix(1_700_000_001, 1).UTC(),
		Expires:     time.Date(9999, 1, 2, 3, 4, 5, 6, time.UTC),
		Answer: &idempotency.Answer{
			Status: 200,
			Header: idempotency.NewHeader(http.Header{"A": {"1", "", "2"}, "B": {"\x00\xff"}}),
			Body:   []byte("\x00body\xff"),
		},
	}
}

func samples() map[string]*idempotency.Record {
	tombstone := sample()
	tombstone.Answer = nil
	bare := sample()
	bare.Answer = &idempotency.Answer{Status: 204}
	large := sample()
	large.Answer.Body = bytes.Repeat([]byte{0, 1, 2}, 3<<20)
	return map[string]*idempotency.Record{
		"full": sample(), "tombstone": tombstone, "no header": bare,
		"large body": large, "zero": {},
	}
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	for name, want := range samples() {
		t.Run(name, func(t *testing.T) {
			data := Encode(nil, want)
			got, err := Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if got.Told.IsZero() != want.Told.IsZero() {
				t.Error("the zero time did not stay zero")
			}
		})
	}
}

func TestEncodeAppends(t *testing.T) {
	data := Encode([]byte("prefix"), sample())
	rest, ok := bytes.CutPrefix(data, []byte("prefix"))
	if !ok || !bytes.Equal(rest, Encode(nil, sample())) {
		t.Error("encoding behind a prefix differs from encoding alone")
	}
}

func TestDecodeKeepsNothingOfItsInput(t *testing.T) {
	data := Encode(nil, sample())
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	if !reflect.DeepEqual(got, sample()) {
		t.Error("the record changed with the input")
	}
}

func TestDecodeDetectsEveryFlippedBit(t *testing.T) {
	data := Encode(nil, sample())
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			if _, err := Decode(data); err == nil {
				t.Errorf("flipping bit %d of byte %d went unnoticed", bit, i)
			}
			data[i] ^= 1 << bit
		}
	}
}

func TestDecodeDetectsEveryTruncation(t *testing.T) {
	data := Encode(nil, sample())
	for n := range data {
		if _, err := Decode(data[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
}

func TestDecodeRefusesAnotherVersion(t *testing.T) {
	data := Encode(nil, sample())
	data[0]++
	if _, err := Decode(data); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want an error that does not speak of damage", err)
	}
}

// What was not written by Encode is refused though its checksum is right.
func TestDecodeRefusesWhatEncodeDoesNotWrite(t *testing.T) {
	const times = 3 + 32 + 16 + 33 + 32 // where the times start
	plain := Encode(nil, &idempotency.Record{Answer: &idempotency.Answer{Status: 200}})
	keyAt := bytes.Index(plain, []byte{0, 0, 0x90, 0x03}) // no key, no upstream key, status 200
	if keyAt < 0 {
		t.Fatal("the layout is another")
	}
	changed := func(change func([]byte) []byte) []byte {
		return withChecksum(change(bytes.Clone(plain)))
	}
	cut := func(at int, instead ...byte) []byte {
		return changed(func(b []byte) []byte { return append(append(b[:at], instead...), 0, 0, 0, 0) })
	}
	for name, data := range map[string][]byte{
		"flags that are unknown":         changed(func(b []byte) []byte { b[2] |= 0x80; return b }),
		"something after its end":        changed(func(b []byte) []byte { return append(b, 0) }),
		"an end within a fixed part":     cut(10),
		"an end within a time":           cut(times + 2),
		"a number of eleven bytes":       cut(times, bytes.Repeat([]byte{0xff}, 11)...),
		"a thousand million nanoseconds": cut(times, 0, 0x80, 0x94, 0xeb, 0xdc, 0x03),
		"an end within a length":         cut(keyAt, 0xff),
		"a key longer than all of it":    cut(keyAt, 0xff, 0xff, 0xff, 0xff, 0x0f),
		"an end before the status":       cut(keyAt + 2),
		"an end before the header":       cut(keyAt + 4),
		"a header that is both there and not": changed(func(b []byte) []byte {
			h := idempotency.NewHeader(http.Header{"A": {"1"}})
			return append(append(append(b[:keyAt+4:keyAt+4], h...), 0), 0, 0, 0, 0)
		}),
		"a body longer than all of it": cut(keyAt+5, 0x7f),
	} {
		if rec, err := Decode(data); !errors.Is(err, ErrDamaged) || rec != nil {
			t.Errorf("%s: %+v, %v", name, rec, err)
		}
	}
}

func TestRecordsSortOldestFirstAndThenByID(t *testing.T) {
	at := func(seconds int64, id byte) *idempotency.Record {
		return &idempotency.Record{ID: idempotency.ID{id}, Started: time.Unix(seconds, 0)}
	}
	want := []*idempotency.Record{at(1, 9), at(2, 1), at(2, 2), at(2, 3), at(3, 0)}
	recs := []*idempotency.Record{want[3], want[0], want[4], want[2], want[1]}
	SortOldestFirst(recs)
	if !slices.Equal(recs, want) {
		t.Errorf("got %v", recs)
	}
}

// withChecksum returns data with its last four bytes made its checksum.
func withChecksum(data []byte) []byte {
	if len(data) < crc32.Size {
		return data
	}
	body := data[:len(data)-crc32.Size]
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}
