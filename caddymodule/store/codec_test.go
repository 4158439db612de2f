package store

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
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
		Label:       sampleLabel(),
		Journal:     sampleJournal(),
		Answer: &idempotency.Answer{
			Status: 200,
			Header: idempotency.NewHeader(http.Header{"A": {"1", "", "2"}, "B": {"\x00\xff"}}),
			Body:   []byte("\x00body\xff"),
		},
	}
}

func sampleLabel() idempotency.Label {
	return idempotency.Label{
		Organisation: idempotency.NewOrganisationID("org"),
		Scope:        idempotency.NewScopeID("org", "scope"),
		Action:       "custom_-_action",
	}
}

func sampleJournal() idempotency.Journal {
	at := time.Unix(1_700_000_000, 123_456_789).UTC()
	return idempotency.Journal{
		Attempts: []idempotency.Attempt{
			{Started: at, Waited: 1, Took: 2, Written: true, Status: 503, CorrelationID: "c-1", Verdict: "again", Error: ""},
			{Started: at.Add(time.Second), Took: time.Hour, Error: "the connection was cut"},
			{},
		},
		Skipped: 3,
		Words: []idempotency.Word{
			{Said: at.Add(time.Hour), Executed: true, Note: "seen in the ledger"},
			{Said: at.Add(2 * time.Hour)},
		},
	}
}

// fullJournal has as much in it as a journal may.
func fullJournal() (j idempotency.Journal) {
	text := string(bytes.Repeat([]byte{0xff}, idempotency.MaxText))
	for range idempotency.MaxAttempts {
		j.Attempts = append(j.Attempts, idempotency.Attempt{
			Started: time.Unix(1, 2).UTC(), Waited: -1, Took: 1 << 62, Written: true, Status: 599,
			CorrelationID: text, Verdict: text, Error: text,
		})
	}
	for range idempotency.MaxWords {
		j.Words = append(j.Words, idempotency.Word{Said: time.Unix(3, 4).UTC(), Executed: true, Note: text})
	}
	j.Skipped = 1 << 40
	return j
}

func samples() map[string]*idempotency.Record {
	tombstone := sample()
	tombstone.Answer = nil
	bare := sample()
	bare.Answer = &idempotency.Answer{Status: 204}
	large := sample()
	large.Answer.Body = bytes.Repeat([]byte{0, 1, 2}, 3<<20)
	largeRequest := queued()
	largeRequest.Deferred.Body = bytes.Repeat([]byte{0, 1, 2}, 1<<20)
	full := sample()
	full.Journal = fullJournal()
	unlabelled := sample()
	unlabelled.Label = idempotency.Label{}
	unwritten := sample()
	unwritten.Journal = idempotency.Journal{}
	said := sample()
	said.Journal = idempotency.Journal{Words: sampleJournal().Words[1:]}
	return map[string]*idempotency.Record{
		"queued": queued(), "queued without body": emptyDeferred(), "delays": delayed(),
		"full journal": full, "no label": unlabelled, "no journal": unwritten, "a word alone": said,
		"skipped alone": {Journal: idempotency.Journal{Skipped: 1}},
		"full":          sample(), "tombstone": tombstone, "no header": bare,
		"large body": large, "large request": largeRequest, "zero": {},
	}
}

// queued has a call that was handed over for later.
func queued() *idempotency.Record {
	rec := sample()
	rec.State, rec.Finished, rec.Answer = idempotency.Queued, time.Time{}, nil
	rec.Deferred = &idempotency.Deferred{
		Place:  "some/place\x00",
		Lane:   idempotency.LaneID{4, 5, 6},
		Since:  time.Unix(1_700_000_000, 123_456_788).UTC(),
		Policy: 1<<63 + 5,
		Method: "POST",
		URL:    "/api/v2/x?a=b",
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}, "X": {"\xff", ""}}),
		Body:   []byte("\x00request\xff"),
	}
	return rec
}

func emptyDeferred() *idempotency.Record {
	return &idempotency.Record{State: idempotency.Started, Deferred: &idempotency.Deferred{Since: time.Unix(0, 0).UTC()}}
}

// delayed has attempts that were paused and paced.
func delayed() *idempotency.Record {
	rec := sample()
	rec.Journal.Attempts[1].Paused, rec.Journal.Attempts[1].Paced = time.Second, -1
	rec.Journal.Attempts[2].Paced = 1 << 62
	return rec
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
	for _, rec := range []*idempotency.Record{sample(), queued(), delayed()} {
		data := Encode(nil, rec)
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
}

func TestDecodeDetectsEveryTruncation(t *testing.T) {
	for _, rec := range []*idempotency.Record{sample(), queued(), delayed()} {
		data := Encode(nil, rec)
		for n := range data {
			if _, err := Decode(data[:n]); !errors.Is(err, ErrDamaged) {
				t.Errorf("the first %d bytes: %v", n, err)
			}
		}
	}
}

func TestDecodeRefusesAnotherVersion(t *testing.T) {
	data := Encode(nil, sample())
	data[0] = 99
	if _, err := Decode(data); err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("got %v, want an error that does not speak of damage", err)
	}
}

// What was not written by Encode is refused though its checksum is right.
func TestDecodeRefusesWhatEncodeDoesNotWrite(t *testing.T) {
	const times = 3 + 32 + 16 + 33 + 32 // where the times start
	plain := Encode(nil, &idempotency.Record{Answer: &idempotency.Answer{Status: 200}})
	keyAt := bytes.Index(plain, []byte{5, 0, 0, 0, 0, 0, 0x90, 0x03, 0}) + detailsLength // no key, no upstream key, status 200, no header
	if keyAt < detailsLength {
		t.Fatal("the layout is another")
	}
	changed := func(change func([]byte) []byte) []byte {
		return withChecksum(change(bytes.Clone(plain)))
	}
	cut := func(at int, instead ...byte) []byte {
		return changed(func(b []byte) []byte { return append(append(b[:at], instead...), 0, 0, 0, 0) })
	}
	details := func(instead ...byte) []byte {
		size := binary.LittleEndian.AppendUint32(nil, uint32(len(instead)))
		return cut(keyAt-detailsLength, append(append(size, instead...), 0)...)
	}
	flagged := func(flags byte, instead ...byte) []byte { // without an answer
		data := details(instead...)
		data[2] = flags
		return withChecksum(append(data[:len(data)-crc32.Size-1], 0, 0, 0, 0))
	}
	if _, err := Decode(flagged(flagJournal, 0, 0, 0, 0, 1, 0, 0, 1, 0)); err != nil {
		t.Fatalf("what is refused below is refused for another reason: %v", err)
	}
	for name, data := range map[string][]byte{
		"flags that are unknown":         changed(func(b []byte) []byte { b[2] |= 0x80; return b }),
		"something after its end":        changed(func(b []byte) []byte { return append(b, 0) }),
		"an end within a fixed part":     cut(10),
		"an end within a time":           cut(times + 2),
		"a number of eleven bytes":       cut(times, bytes.Repeat([]byte{0xff}, 11)...),
		"a thousand million nanoseconds": cut(times, 0, 0x80, 0x94, 0xeb, 0xdc, 0x03),
		"an end before the details":      cut(keyAt - 1),
		"details longer than all of it":  cut(keyAt-detailsLength, 0xff, 0xff, 0xff, 0xff, 0, 0),
		"an end within a length":         details(0xff),
		"a key longer than all of it":    details(0xff, 0xff, 0xff, 0xff, 0x0f),
		"an end before the status":       details(0, 0),
		"an end before the header":       details(0, 0, 0x90, 0x03),
		"something after the details":    details(0, 0, 0x90, 0x03, 0, 0),
		"a header that is both there and not": details(append([]byte{0, 0, 0x90, 0x03},
			idempotency.NewHeader(http.Header{"A": {"1"}})...)...),
		"a header and no answer":               flagged(flagHeader, 0, 0),
		"a label that is both there and not":   flagged(flagLabel, make([]byte, 2+8+16+1)...),
		"an end within a label":                flagged(flagLabel, make([]byte, 2+8)...),
		"a journal that is both there and not": flagged(flagJournal, make([]byte, 2+3)...),
		"an attempt too few":                   flagged(flagJournal, 0, 0, 0, 1, 0),
		"more attempts than there is room for": flagged(flagJournal, append([]byte{0, 0, 0, 2}, make([]byte, 17)...)...),
		"a truth value of two":                 flagged(flagJournal, 0, 0, 0, 0, 1, 0, 0, 2, 0),
		"a body longer than all of it":         cut(keyAt+5, 0x7f),
		"a deferred call and an answer":        changed(func(b []byte) []byte { b[2] |= flagDeferred; return b }),
		"an end within a deferred call":        flagged(flagDeferred, make([]byte, 2+1+10)...),
		"delays and no journal":                flagged(flagDelays, 0, 0),
		"delays that are both there and not":   flagged(flagJournal|flagDelays, append([]byte{0, 0, 0, 1}, make([]byte, attemptSize+delaysSize+1)...)...),
		"an end within delays":                 flagged(flagJournal|flagDelays, append([]byte{0, 0, 0, 1}, make([]byte, attemptSize+1)...)...),
		"a header of a call that has none": flagged(flagDeferred, append(append(make([]byte, 2+1+16), 0, 0, 0, 0, 0),
			idempotency.NewHeader(http.Header{"A": {"1"}})...)...),
	} {
		if rec, err := Decode(data); !errors.Is(err, ErrDamaged) || rec != nil {
			t.Errorf("%s: %+v, %v", name, rec, err)
		}
	}
}

// bare are records as version 1 encoded them: what samples has under these names,
// without label and journal.
var bare = map[string]string{
	"full":      "01020785a4cbb628b9c8807d90fd15e2220b09e7c801c75665fc0f90dae1ad0efc3ad301020300000000000000000000000000010909000000000000000000000000000000000000000000000000000000000000070000000000000000000000000000000000000000000000000000000000000080c49fd50c959aef3a82c49fd50c01ffdb8ff9ce0300caaaa4e1df0e06036b657908757073747265616d90030201410301310001320142010200ff0600626f6479ffab79b040",
	"tombstone": "01020185a4cbb628b9c8807d90fd15e2220b09e7c801c75665fc0f90dae1ad0efc3ad301020300000000000000000000000000010909000000000000000000000000000000000000000000000000000000000000070000000000000000000000000000000000000000000000000000000000000080c49fd50c959aef3a82c49fd50c01ffdb8ff9ce0300caaaa4e1df0e06036b657908757073747265616d878ce3b8",
	"no header": "01020385a4cbb628b9c8807d90fd15e2220b09e7c801c75665fc0f90dae1ad0efc3ad301020300000000000000000000000000010909000000000000000000000000000000000000000000000000000000000000070000000000000000000000000000000000000000000000000000000000000080c49fd50c959aef3a82c49fd50c01ffdb8ff9ce0300caaaa4e1df0e06036b657908757073747265616d980300000b4fcec8",
	"zero":      "0100000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000ffdb8ff9ce0300ffdb8ff9ce0300ffdb8ff9ce0300ffdb8ff9ce03000000ee825836",
}

func TestDecodeReadsWhatVersion1Wrote(t *testing.T) {
	for name, text := range bare {
		data, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := *samples()[name]
		want.Label, want.Journal = idempotency.Label{}, idempotency.Journal{}
		if !reflect.DeepEqual(got, &want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		head, _, err := DecodeHead(data)
		if want := withoutBody(&want); err != nil || !reflect.DeepEqual(head, want) {
			t.Errorf("%s: got the head %+v, %v, want %+v", name, head, err, want)
		}
		for n := range data {
			if _, err := Decode(data[:n]); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: the first %d bytes: %v", name, n, err)
			}
		}
	}
}

func withoutBody(rec *idempotency.Record) *idempotency.Record {
	c := *rec
	if c.Answer != nil {
		c.Answer = &idempotency.Answer{Status: c.Answer.Status, Header: c.Answer.Header}
	}
	if c.Deferred != nil {
		call := *c.Deferred
		call.Body = nil
		c.Deferred = &call
	}
	return &c
}

// What is needed of a record to list it is told by its first bytes, and is no
// more than what precedes its body.
func TestDecodeHeadNeedsNothingOfTheBody(t *testing.T) {
	for name, rec := range samples() {
		data := Encode(nil, rec)
		var got *idempotency.Record
		n, asked := 0, 0
		for got == nil {
			var need int
			var err error
			if got, need, err = DecodeHead(data[:n]); err != nil {
				t.Fatalf("%s: the first %d bytes: %v", name, n, err)
			}
			if got == nil && need <= n {
				t.Fatalf("%s: of %d bytes it needs %d", name, n, need)
			}
			if got == nil {
				n, asked = min(need, len(data)), asked+1
			}
		}
		if want := withoutBody(rec); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		if asked > 2 {
			t.Errorf("%s: it asked for more %d times", name, asked)
		}
		if body := bodyOf(rec); body != nil && len(data)-n < len(*body)-leastHead {
			t.Errorf("%s: it needed %d of %d bytes", name, n, len(data))
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
