package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// keyText returns a key in base64.
func keyText(n byte) string { return base64.StdEncoding.EncodeToString(keyBytes(n)) }

func keyBytes(n byte) []byte { return bytes.Repeat([]byte{n, 0xfe, 3, n ^ 0xff}, KeySize/4) }

func keyring(t testing.TB, numbers ...byte) *Keyring {
	t.Helper()
	var texts []string
	for _, n := range numbers {
		texts = append(texts, keyText(n))
	}
	ring, err := ParseKeyring(texts)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func TestASealedRecordComesBackAsItWas(t *testing.T) {
	ring := keyring(t, 1)
	for name, want := range samples() {
		t.Run(name, func(t *testing.T) {
			before := []byte("before")
			data := ring.Encode(before, want)
			if !bytes.HasPrefix(data, before) {
				t.Fatal("what was there before is gone")
			}
			data = data[len(before):]
			got, err := ring.Decode(data)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestASealedRecordTellsWhatAStoreNeedsAndNothingElse(t *testing.T) {
	rec := sample()
	rec.Key, rec.UpstreamKey = "canary-key", "canary-upstream"
	rec.Label.Action = "canary-action"
	rec.Journal.Words[0].Note = "canary-note"
	rec.Answer.Header = idempotency.NewHeader(map[string][]string{"X-Canary": {"canary-header"}})
	rec.Answer.Body = []byte("canary-body")
	data := keyring(t, 1).Encode(nil, rec)
	for _, secret := range []string{"canary", "Canary", string(rec.Fingerprint[:]), string(rec.Label.Scope[:]), string(rec.Label.Organisation[:]), rec.Journal.Attempts[0].CorrelationID} {
		if bytes.Contains(data, []byte(secret)) {
			t.Errorf("%q is in the clear", secret)
		}
	}
	clear, key, need, err := DecodeClear(data)
	want := &idempotency.Record{
		ID: rec.ID, State: rec.State, Owner: rec.Owner, Adoption: rec.Adoption,
		Started: rec.Started, Finished: rec.Finished, Told: rec.Told, Expires: rec.Expires,
	}
	if err != nil || need != 0 || !reflect.DeepEqual(clear, want) {
		t.Errorf("got %+v, %d, %v; want %+v", clear, need, err, want)
	}
	if first, _ := keyring(t, 1).First(); key != first {
		t.Errorf("it needs key %s, want %s", key, first)
	}
	if data[1] != byte(rec.State) {
		t.Error("the state is not the second byte")
	}
}

func TestOfADeferredCallASealedRecordTellsNothing(t *testing.T) {
	rec := queued()
	rec.Deferred.Place, rec.Deferred.Method, rec.Deferred.URL = "canary-place", "canary-method", "canary-url"
	rec.Deferred.Lane = idempotency.LaneID([]byte("canary-lane-of-16"))
	rec.Deferred.Header = idempotency.NewHeader(map[string][]string{"X-Canary": {"canary-header"}})
	rec.Deferred.Body = []byte("canary-body")
	data := keyring(t, 1).Encode(nil, rec)
	if bytes.Contains(bytes.ToLower(data), []byte("canary")) {
		t.Error("some of it is in the clear")
	}
	clear, _, need, err := DecodeClear(data)
	if err != nil || need != 0 || clear.State != idempotency.Queued || clear.Deferred != nil {
		t.Errorf("got %+v, %d, %v", clear, need, err)
	}
}

func TestTheSameRecordIsSealedDifferentlyEachTime(t *testing.T) {
	ring, seen := keyring(t, 1), make(map[string]bool)
	for range 100 {
		data := ring.Encode(nil, sample())
		c, _, err := decodeClear(data)
		if err != nil {
			t.Fatal(err)
		}
		salt, sealed := string(c.salt), string(data[len(c.data):])
		if seen[salt] || seen[sealed] {
			t.Fatal("a salt or what is sealed was there before")
		}
		seen[salt], seen[sealed] = true, true
	}
}

func TestAnyKeyOfTheRingDecrypts(t *testing.T) {
	data := keyring(t, 2).Encode(nil, sample())
	if got, err := keyring(t, 1, 2).Decode(data); err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v, %v", got, err)
	}
	second := keyring(t, 1, 2).Encode(nil, sample())
	if _, err := keyring(t, 1).Decode(second); err != nil {
		t.Errorf("the first key does not encrypt: %v", err)
	}
}

func TestAMissingKeyIsAnErrorThatNamesItAndNoDamage(t *testing.T) {
	sealed := keyring(t, 3)
	data, first := sealed.Encode(nil, sample()), fmt.Sprint(sealed)
	for name, decode := range map[string]func([]byte) (*idempotency.Record, error){
		"another key":  keyring(t, 1, 2).Decode,
		"no keyring":   (*Keyring)(nil).Decode,
		"the function": Decode,
		"head": func(data []byte) (*idempotency.Record, error) {
			rec, _, err := keyring(t, 1).DecodeHead(data)
			return rec, err
		},
		"head function": func(data []byte) (*idempotency.Record, error) {
			rec, _, err := DecodeHead(data)
			return rec, err
		},
	} {
		rec, err := decode(data)
		var missing *NoKeyError
		if rec != nil || !errors.As(err, &missing) || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), first) {
			t.Errorf("%s: got %v, %v", name, rec, err)
		}
	}
}

func TestPlainRecordsAreReadWithAKeyring(t *testing.T) {
	data := Encode(nil, sample())
	ring := keyring(t, 1)
	if got, err := ring.Decode(data); err != nil || !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, _, err := ring.DecodeHead(data); err != nil || !reflect.DeepEqual(got, withoutBody(sample())) {
		t.Errorf("got %+v, %v", got, err)
	}
	if rec, _, need, err := DecodeClear(data); rec != nil || need != 0 || err != nil {
		t.Errorf("got %+v, %d, %v", rec, need, err)
	}
}

// TestAChangedRecordIsNoticed changes each byte of a record, as somebody would
// who mends the checksum.
func TestAChangedRecordIsNoticed(t *testing.T) {
	ring := keyring(t, 1)
	for _, rec := range []*idempotency.Record{sample(), queued()} {
		whole := ring.Encode(nil, rec)
		for i := range len(whole) - 4 {
			data := bytes.Clone(whole)
			data[i] ^= 1
			data = withChecksum(data)
			if rec, err := ring.Decode(data); err == nil {
				t.Errorf("a change of byte %d went unnoticed: %+v", i, rec)
			}
		}
	}
}

func TestAFlippedStateIsNoticedInAHeadToo(t *testing.T) {
	ring := keyring(t, 1)
	data := ring.Encode(nil, sample())
	data[1] = byte(idempotency.Released)
	if rec, _, err := ring.DecodeHead(data); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %+v, %v", rec, err)
	}
}

func TestARecordUnderAnotherIDIsNoticed(t *testing.T) {
	ring, other := keyring(t, 1), idempotency.NewID("org", "scope", "another key")
	data := ring.Encode(nil, sample())
	copy(data[3:], other[:])
	data = withChecksum(data)
	if rec, err := ring.Decode(data); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "seal") {
		t.Errorf("got %+v, %v", rec, err)
	}
}

func TestPartsOfTwoRecordsMakeNoThird(t *testing.T) {
	ring := keyring(t, 1)
	a, b := ring.Encode(nil, sample()), ring.Encode(nil, sample())
	c, _, err := decodeClear(a)
	if err != nil {
		t.Fatal(err)
	}
	clear, details := len(c.data), len(c.data)+c.size
	for name, data := range map[string][]byte{
		"clear":   append(bytes.Clone(a[:clear]), b[clear:]...),
		"body":    append(bytes.Clone(a[:details]), b[details:]...),
		"no body": append(bytes.Clone(a[:details]), 0, 0, 0, 0),
	} {
		if rec, err := ring.Decode(withChecksum(data)); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: got %+v, %v", name, rec, err)
		}
	}
}

func TestTheHeadOfASealedRecordIsAllButItsBody(t *testing.T) {
	ring := keyring(t, 1)
	for name, rec := range samples() {
		data := ring.Encode(nil, rec)
		n := 0
		for range 4 {
			got, need, err := ring.DecodeHead(data[:n])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got != nil {
				if !reflect.DeepEqual(got, withoutBody(rec)) {
					t.Errorf("%s: got %+v", name, got)
				}
				break
			}
			if need <= n {
				t.Fatalf("%s: of %d bytes it needs %d", name, n, need)
			}
			n = min(need, len(data))
		}
		if body := bodyOf(rec); body != nil && len(data)-n < len(*body)-leastHead {
			t.Errorf("%s: it needed %d of %d bytes", name, n, len(data))
		}
	}
}

func TestAKeyIsTakenInEachOfItsForms(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xff, 7, 0x3e}, KeySize/4)
	want := ""
	for name, text := range map[string]string{
		"base64":                 base64.StdEncoding.EncodeToString(raw),
		"base64, not padded":     base64.RawStdEncoding.EncodeToString(raw),
		"URL base64":             base64.URLEncoding.EncodeToString(raw),
		"URL base64, not padded": base64.RawURLEncoding.EncodeToString(raw),
		"hexadecimal":            hex.EncodeToString(raw),
		"HEXADECIMAL":            strings.ToUpper(hex.EncodeToString(raw)),
		"a line of a file":       base64.StdEncoding.EncodeToString(raw) + "\r\n",
	} {
		ring, err := ParseKeyring([]string{text})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want == "" {
			want = ring.String()
		}
		if ring.String() != want || len(want) != 8 {
			t.Errorf("%s: it is key %s, want %s", name, ring, want)
		}
	}
}

func TestWhatIsNoKeyIsRefusedWithoutRepeatingIt(t *testing.T) {
	short := base64.StdEncoding.EncodeToString(keyBytes(9)[:31])
	for name, test := range map[string]struct{ text, want string }{
		"empty":             {"", "is empty"},
		"too short":         {short, "has 31 bytes"},
		"hex of 31 bytes":   {hex.EncodeToString(keyBytes(9)[:31]), "has 46 bytes"},
		"a pass phrase":     {"correct horse battery staple!", "neither base64 nor"},
		"an unset variable": {"{env.NOT_SET}", "neither base64 nor"},
	} {
		_, err := ParseKeyring([]string{keyText(1), test.text})
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "key 2 of 2") || !strings.Contains(err.Error(), HowToMakeAKey) {
			t.Errorf("%s: got %v", name, err)
		}
		if err != nil && test.text != "" && strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: the error repeats it: %v", name, err)
		}
	}
	if _, err := ParseKeyring([]string{keyText(1), keyText(2), hex.EncodeToString(keyBytes(1))}); err == nil || !strings.Contains(err.Error(), "the same as key 1") {
		t.Errorf("the same key twice: %v", err)
	}
}

func TestAKeyringIsPrintedWithoutItsKeys(t *testing.T) {
	ring := keyring(t, 7, 8)
	var log bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(h).Info("keys", "ring", ring)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %q", ring, ring, ring, ring, ring) + log.String()
	for _, key := range ring.keys {
		for _, form := range []string{string(key.secret[:]), hex.EncodeToString(key.secret[:])} {
			if strings.Contains(printed, form) {
				t.Errorf("it prints a key: %s", printed)
			}
		}
	}
	if !strings.Contains(printed, ring.String()) {
		t.Errorf("it does not print the IDs: %s", printed)
	}
}

func TestAKeyringWithAnotherEncryptsAsBefore(t *testing.T) {
	a, b := keyring(t, 1, 2), keyring(t, 3, 1)
	both := a.With(b)
	if want := a.String() + " " + keyring(t, 3).String(); both.String() != want {
		t.Errorf("got %s, want %s", both, want)
	}
	for name, ring := range map[string]*Keyring{"none with some": (*Keyring)(nil).With(b), "twice": (*Keyring)(nil).With(b).With(a)} {
		if _, ok := ring.First(); ok || isSealed(ring.Encode(nil, sample())) {
			t.Errorf("%s: it encrypts", name)
		}
		if _, err := ring.Decode(b.Encode(nil, sample())); err != nil {
			t.Errorf("%s: it does not decrypt: %v", name, err)
		}
	}
	if got := a.With(nil); got != a {
		t.Errorf("got %s, want %s", got, a)
	}
}

// FuzzSealed feeds a keyring arbitrary bytes: as they are, with a checksum that
// is right, and as what is sealed, which nobody could make without the key.
func FuzzSealed(f *testing.F) {
	ring := keyring(f, 1, 2)
	for name, rec := range samples() {
		if !strings.HasPrefix(name, "large") {
			f.Add(ring.Encode(nil, rec), uint32(len(name)*7))
			f.Add(keyring(f, 3).Encode(nil, rec), uint32(len(name)))
			f.Add(Encode(nil, rec), uint32(len(name)))
		}
	}
	f.Add([]byte{versionSealed}, uint32(0))
	f.Add([]byte{versionSealed, 0, 0, 0, 0, 0, 0}, uint32(1))
	f.Fuzz(func(t *testing.T, data []byte, flip uint32) {
		for _, data := range [][]byte{data, withChecksum(data)} {
			for _, part := range [][]byte{data, data[:int(flip)%(len(data)+1)]} {
				head, need, err := ring.DecodeHead(part)
				if err != nil && (head != nil || need != 0) || head != nil && need != 0 || err == nil && head == nil && need <= len(part) {
					t.Fatalf("the first %d bytes: %+v, %d, %v", len(part), head, need, err)
				}
				clear, _, need, err := DecodeClear(part)
				if err != nil && (clear != nil || need != 0) || clear != nil && need != 0 {
					t.Fatalf("the first %d bytes: %+v, %d, %v", len(part), clear, need, err)
				}
			}
			before := allocated()
			rec, err := ring.Decode(data)
			if got, most := allocated()-before, uint64(1<<20+16*len(data)); got > most {
				t.Fatalf("decoding %d bytes took %d", len(data), got)
			}
			if err != nil {
				var missing *NoKeyError
				if rec != nil || isSealed(data) && !errors.Is(err, ErrDamaged) && !errors.As(err, &missing) {
					t.Fatalf("got %+v, %v", rec, err)
				}
				continue
			}
			sealed := ring.Encode(nil, rec)
			again, err := ring.Decode(sealed)
			if err != nil || !reflect.DeepEqual(rec, again) {
				t.Fatalf("got %+v, %v, want %+v", again, err, rec)
			}
			at := int(flip) % (8 * (len(sealed) - 4))
			sealed[at/8] ^= 1 << (at % 8)
			if got, err := ring.Decode(withChecksum(sealed)); err == nil && at/8 != 0 {
				t.Fatalf("flipping bit %d went unnoticed: %+v", at, got)
			}
		}
	})
}

func BenchmarkEncodeSealed(b *testing.B) {
	ring, rec := keyring(b, 1), answered()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = ring.Encode(buf[:0], rec)
	}
}

func BenchmarkDecodeSealed(b *testing.B) {
	ring := keyring(b, 1)
	data := ring.Encode(nil, answered())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ring.Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
