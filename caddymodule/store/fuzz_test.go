package store

import (
	"encoding/hex"
	"errors"
	"net/http"
	"reflect"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// FuzzDecode feeds arbitrary bytes, with their own checksum and with one that
// is right: they would hardly get past it otherwise.
func FuzzDecode(f *testing.F) {
	for name, rec := range samples() {
		if !strings.HasPrefix(name, "large") {
			f.Add(Encode(nil, rec), uint32(len(name)*7))
		}
	}
	f.Add([]byte{}, uint32(0))
	f.Add([]byte{versionPlain}, uint32(0))
	f.Add([]byte{versionPlain, 0, 0, 0, 0}, uint32(8))
	for _, text := range bare {
		data, _ := hex.DecodeString(text)
		f.Add(data, uint32(len(text)))
	}
	for _, flags := range []byte{knownFlags, knownFlags + 1, flagAnswer, flagHeader, flagLabel, flagJournal, flagDeferred, flagJournal | flagDelays} { // whatever there is, it ends too early, or too late
		data := Encode(nil, sample())
		data[2] = flags
		f.Add(data, uint32(0))
		f.Add(append(data, 0), uint32(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, flip uint32) {
		for _, data := range [][]byte{data, withChecksum(data)} {
			headIsThatOfTheWhole(t, data, int(flip)%(len(data)+1))
			before := allocated()
			rec, err := Decode(data)
			if got, most := allocated()-before, uint64(1<<20+16*len(data)); got > most {
				t.Fatalf("decoding %d bytes took %d", len(data), got)
			}
			if err != nil {
				if rec != nil {
					t.Fatalf("got %+v beside the error %v", rec, err)
				}
				if len(data) > 0 && isKnown(data[0]) && !errors.Is(err, ErrDamaged) {
					t.Fatalf("the error does not tell of damage: %v", err)
				}
				continue
			}
			encoded := Encode(nil, rec)
			again, err := Decode(encoded)
			if err != nil {
				t.Fatalf("decoding what was encoded: %v", err)
			}
			if !reflect.DeepEqual(rec, again) {
				t.Fatalf("got %+v, want %+v", again, rec)
			}
			if rec.Answer != nil {
				for range rec.Answer.Header.All() { // whatever was taken for a header can be read
				}
			}
			if rec.Deferred != nil {
				for range rec.Deferred.Header.All() {
				}
			}
			noFlipGoesUnnoticed(t, data, flip)
			noFlipGoesUnnoticed(t, encoded, flip)
		}
	})
}

// headIsThatOfTheWhole decodes the head of the first n bytes of data, and of all.
func headIsThatOfTheWhole(t *testing.T, data []byte, n int) {
	t.Helper()
	whole, wrong := Decode(data)
	for _, part := range [][]byte{data, data[:n]} {
		head, need, err := DecodeHead(part)
		switch {
		case err != nil && (head != nil || need != 0), head != nil && need != 0, err == nil && head == nil && need <= len(part):
			t.Fatalf("the first %d bytes: %+v, %d, %v", len(part), head, need, err)
		case wrong == nil && (err != nil || head != nil && !reflect.DeepEqual(head, withoutBody(whole))):
			t.Fatalf("the first %d bytes: %+v, %v, want %+v", len(part), head, err, whole)
		case wrong == nil && head == nil && len(part) == len(data):
			t.Fatalf("of %d bytes, which are all, it needs %d", len(part), need)
		}
	}
}

// allocated returns how many bytes have been allocated so far; small ones may be
// counted later.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// noFlipGoesUnnoticed flips one bit of data, which can be decoded.
func noFlipGoesUnnoticed(t *testing.T, data []byte, flip uint32) {
	t.Helper()
	at := int(flip) % (8 * len(data))
	data[at/8] ^= 1 << (at % 8)
	if rec, err := Decode(data); err == nil {
		t.Fatalf("flipping bit %d of %d bytes went unnoticed: %+v", at, len(data), rec)
	}
	data[at/8] ^= 1 << (at % 8)
}

// FuzzEncode: every record comes back as it was.
func FuzzEncode(f *testing.F) {
	f.Add(byte(2), true, []byte("id and owner"), "key", "upstream", int64(1_700_000_000), int64(5), true, 200, "Name", "value", "another", []byte("body"), uint32(99))
	f.Add(byte(0), false, []byte{}, "", "", int64(-62135596800), int64(0), false, 0, "", "", "", []byte{}, uint32(0))
	f.Add(byte(6), false, []byte("lane\x80"), "place", "upstream", int64(1_700_000_000), int64(7), false, 0, "Name", "value", "another", []byte("request"), uint32(0))
	f.Add(byte(255), true, []byte("\xff\xff"), "\x00\xff", "\xff", int64(1)<<55, int64(999_999_999), true, -1, "\xff", "", "\x00", []byte("\x00"), uint32(1<<31))
	f.Fuzz(func(t *testing.T, state byte, honored bool, fixed []byte, key, upstreamKey string, seconds, nanos int64,
		answered bool, status int, name, value, other string, body []byte, flip uint32) {
		at := func(n int64) time.Time { return time.Unix((seconds>>8)+n, int64(uint64(nanos)%1e9)).UTC() }
		want := &idempotency.Record{
			State: idempotency.State(state), Honored: honored, Key: key, UpstreamKey: upstreamKey,
			Started: at(0), Finished: at(nanos >> 8), Told: time.Time{}, Expires: at(-1),
		}
		copy(want.ID[:], fixed)
		copy(want.Owner[:], key)
		copy(want.Fingerprint[:], upstreamKey)
		copy(want.Adoption[:], body)
		if answered {
			want.Answer = &idempotency.Answer{Status: status}
			if name != "" {
				want.Answer.Header = idempotency.NewHeader(http.Header{name: {value, other}, other: nil})
			}
			if len(body) > 0 {
				want.Answer.Body = body
			}
		} else if upstreamKey != "" {
			want.Deferred = &idempotency.Deferred{
				Place: idempotency.Place(key), Since: at(1), Policy: uint64(nanos), Method: name, URL: value,
			}
			copy(want.Deferred.Lane[:], fixed)
			if name != "" {
				want.Deferred.Header = idempotency.NewHeader(http.Header{name: {value, other}, other: nil})
			}
			if len(body) > 0 {
				want.Deferred.Body = body
			}
		}
		copy(want.Label.Organisation[:], other)
		copy(want.Label.Scope[:], value)
		want.Label.Action = name
		for i := range fixed {
			a := idempotency.Attempt{
				Started: at(int64(i)), Waited: time.Duration(seconds), Took: time.Duration(nanos), Written: fixed[i]&1 != 0,
				Status: status, CorrelationID: value, Verdict: name, Error: other,
				Paused: time.Duration(fixed[i] >> 7), Paced: time.Duration(flip),
			}
			want.Journal.Attempts = append(want.Journal.Attempts, a)
		}
		for i := range min(len(key), 300) {
			want.Journal.Words = append(want.Journal.Words, idempotency.Word{Said: at(int64(i)), Executed: answered, Note: value})
		}
		want.Journal.Skipped = status
		data := Encode(nil, want)
		got, err := Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		headIsThatOfTheWhole(t, data, int(flip)%(len(data)+1))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, want %+v", got, want)
		}
		noFlipGoesUnnoticed(t, data, flip)
	})
}
