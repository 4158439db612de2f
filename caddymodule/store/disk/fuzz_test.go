package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"maps"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// FuzzLogEnd reads arbitrary bytes as a log, and then a whole log with chunks
// as long as the bytes say, of which one bit is flipped.
func FuzzLogEnd(f *testing.F) {
	f.Add([]byte{}, uint32(1), uint32(0))
	f.Add([]byte{0, 255, 7}, uint32(7), uint32(100))
	f.Add(bytes.Repeat([]byte{255}, 9), uint32(1<<31), uint32(12345))
	f.Add(bytes.Repeat([]byte{254, 13, 44}, 8), uint32(1), uint32(999_999))
	whole, _ := logOf([]byte{1, 2, 3}, 9)
	f.Add(whole, uint32(9), uint32(3))
	f.Add(append(whole, 1, 2, 3), uint32(9), uint32(3))
	f.Fuzz(func(t *testing.T, data []byte, num, flip uint32) {
		if end, _ := logEnd(data, num); end < 0 || end > len(data) {
			t.Fatalf("%d bytes end at %d", len(data), end)
		}

		sizes := data[:min(len(data), 24)]
		log, last := logOf(sizes, num)
		if end, synced := logEnd(log, num); end != len(log) || synced > uint64(end) {
			t.Fatalf("a log of %d bytes ends at %d and is synced up to %d", len(log), end, synced)
		}
		if end, synced := logEnd(log, num+1); end != 0 || synced != 0 {
			t.Fatalf("a log of another number ends at %d, synced up to %d", end, synced)
		}
		if last == 0 {
			return
		}
		at := int(flip) % (8 * last)
		log[at/8] ^= 1 << (at % 8)
		if end, synced := logEnd(log, num); end == len(log) {
			// Nothing is in the ends of blocks where no chunk fits.
			if at/8%logBlock < logBlock-logHeader {
				t.Fatalf("flipping bit %d of %d bytes went unnoticed", at, len(log))
			}
		} else if synced <= uint64(end) {
			t.Fatalf("a log that cannot be read from %d on looks as if it was synced up to %d only", end, synced)
		}
	})
}

// logOf returns a log with records of such sizes, each synced before the next,
// and where its last chunk starts.
func logOf(sizes []byte, num uint32) (log []byte, last int) {
	for i, size := range sizes {
		record := bytes.Repeat([]byte{byte(i), size}, 20*int(size))
		for first := true; first || len(record) > 0; first = false {
			left := logBlock - len(log)%logBlock
			if left < logHeader {
				log = append(log, make([]byte, left)...)
				left = logBlock
			}
			part := record[:min(len(record), left-logHeader)]
			record = record[len(part):]
			last = len(log)
			log = append(log, logChunkOf(part, num, logMinKind+byte(i)%4, last)...)
		}
	}
	return log, last
}

func logChunkOf(part []byte, num uint32, kind byte, synced int) []byte {
	chunk := make([]byte, logHeader, logHeader+len(part))
	binary.LittleEndian.PutUint16(chunk[4:], uint16(len(part)))
	chunk[6] = kind
	binary.LittleEndian.PutUint32(chunk[7:], num)
	binary.LittleEndian.PutUint64(chunk[11:], uint64(synced))
	chunk = append(chunk, part...)
	sum := crc32.Checksum(chunk[6:], castagnoli)
	binary.LittleEndian.PutUint32(chunk, (sum>>15|sum<<17)+0xa282ead8)
	return chunk
}

// FuzzSeal: whatever is taken for a seal is written as one that says the same,
// and no flipped bit of that goes unnoticed.
func FuzzSeal(f *testing.F) {
	for _, lines := range []string{
		"", sealTitle + "\nlog 000002.log\n", sealTitle + "\nmanifest MANIFEST-000001 120 4294967295\nlog 000002.log\nlog 000004.log\n",
		sealTitle + "\nmanifest a -1 1\nlog b\n", sealTitle + "\nlog\n", sealTitle + "\nlog a b\n", sealTitle + "\nlog a\nsum 1\n", "genesys-sidecar records 2\nlog a\n",
	} {
		f.Add([]byte(lines), uint32(len(lines)))
	}
	f.Fuzz(func(t *testing.T, lines []byte, flip uint32) {
		read := func(data []byte) (*seal, error) {
			s := newSeal(vfs.NewMem(), "")
			return s, s.parseLocked(data)
		}
		_, _ = read(lines)
		s, err := read(fmt.Appendf(lines[:len(lines):len(lines)], "sum %d\n", crc32.Checksum(lines, castagnoli)))
		if err != nil {
			return
		}
		if err := s.writeLocked(); err != nil {
			t.Fatal(err)
		}
		data, err := readFile(s.fs, sealName, -1)
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(data)
		if err != nil {
			t.Fatalf("%q was written, and is no seal: %v", data, err)
		}
		same := func(a, b *manifestSum) bool { return a.synced == b.synced }
		if !maps.EqualFunc(again.manifests, s.manifests, same) || !maps.Equal(again.logs, s.logs) {
			t.Fatalf("%q became %q", lines, data)
		}
		at := int(flip) % (8 * len(data))
		data[at/8] ^= 1 << (at % 8)
		if again, err := read(data); err == nil &&
			(!maps.EqualFunc(again.manifests, s.manifests, same) || !maps.Equal(again.logs, s.logs)) {
			t.Fatalf("flipping bit %d made a seal that says otherwise: %q", at, data)
		}
	})
}

// FuzzKeys: records sort by their expiry, and what is put into a key is what
// is read from it.
func FuzzKeys(f *testing.F) {
	f.Add(int64(0), int64(0), int64(0), int64(1), []byte("some ID"))
	f.Add(int64(-1), int64(999_999_999), int64(0), int64(0), []byte{255})
	f.Add(int64(1)<<40, int64(0), int64(-1)<<40, int64(0), []byte{})
	f.Add(int64(9223372036), int64(854775807), int64(9223372036), int64(854775808), bytes.Repeat([]byte{255}, 64))
	f.Fuzz(func(t *testing.T, seconds, nanos, seconds2, nanos2 int64, text []byte) {
		a, b := time.Unix(seconds>>8, int64(uint64(nanos)%1e9)), time.Unix(seconds2>>8, int64(uint64(nanos2)%1e9))
		var id idempotency.ID
		var adoption idempotency.AdoptionID
		copy(id[:], text)
		copy(adoption[:], text[min(len(text), len(id)):])

		// Beyond what an int64 of nanoseconds holds all times are one.
		if order := bytes.Compare(expiryKey(a, id), expiryKey(b, id)); order*a.Compare(b) < 0 ||
			order == 0 && !a.Equal(b) && a.Year() > 1700 && a.Year() < 2200 {
			t.Fatalf("%v and %v sort as %d", a, b, order)
		}
		for _, key := range [][]byte{recordKey(id), expiryKey(a, id), unsettledKey(adoption, id)} {
			if got, ok := keyID(key); got != id || !ok {
				t.Fatalf("the key %x has the ID %x, want %x", key, got, id)
			}
		}
		if got, ok := keyAdoption(unsettledKey(adoption, id)); got != adoption || !ok {
			t.Fatalf("the adoption ID is %x, want %x", got, adoption)
		}
		if prefix := unsettledPrefix(adoption); bytes.Compare(unsettledKey(adoption, id), after(prefix)) >= 0 {
			t.Fatalf("a key with the prefix %x comes after %x", prefix, after(prefix))
		}
		for _, key := range [][]byte{text, text[:len(text)/2]} { // no key at all
			_, _ = keyID(key)
			_, _ = keyAdoption(key)
		}
	})
}
