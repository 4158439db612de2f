package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/http"
	"reflect"
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

// FuzzDecode mends the checksum of its input, since it would hardly get past
// it otherwise.
func FuzzDecode(f *testing.F) {
	for name, rec := range samples() {
		if name != "large body" {
			f.Add(Encode(nil, rec))
		}
	}
	f.Add([]byte{})
	f.Add([]byte{codecVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, withChecksum(data)} {
			rec, err := Decode(data)
			if err != nil {
				continue
			}
			again, err := Decode(Encode(nil, rec))
			if err != nil {
				t.Fatalf("decoding what was encoded: %v", err)
			}
			if !reflect.DeepEqual(rec, again) {
				t.Fatalf("got %+v, want %+v", again, rec)
			}
		}
	})
}

// withChecksum returns data with its last four bytes made its checksum.
func withChecksum(data []byte) []byte {
	if len(data) < crc32.Size {
		return data
	}
	body := data[:len(data)-crc32.Size]
	return binary.LittleEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}
