package redis

import (
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// FuzzDecode feeds arbitrary values, with their own checksum and with one that
// is right. The head has none: what the scripts change there they could not sum
// up.
func FuzzDecode(f *testing.F) {
	whole := encode(nil, nil, sample())
	keyed := sample()
	keyed.Adoption, keyed.Told, keyed.Attendant = idempotency.AdoptionID{}, time.Time{}, idempotency.Owner{}
	keyed.State, keyed.Answer = idempotency.Done, &idempotency.Answer{Status: 200, Body: []byte("body")}
	for _, value := range [][]byte{
		nil, {0}, {layoutVersion}, {layoutVersion + 1}, make([]byte, 17), make([]byte, 18), whole, encode(nil, nil, keyed),
		whole[:headSize-1], whole[:headSize], whole[:headSize+1], whole[:len(whole)-1], append(whole[:len(whole):len(whole)], 0),
	} {
		f.Add(value, uint32(len(value)*3))
	}
	f.Fuzz(func(t *testing.T, value []byte, flip uint32) {
		for _, value := range [][]byte{value, withChecksum(value)} {
			got, err := decode(nil, value)
			if err != nil {
				if got.Record != nil || got.unsettled {
					t.Fatalf("got %+v beside the error %v", got, err)
				}
				continue
			}
			if got.Record == nil {
				if len(value) != 17 || value[0] != 0 {
					t.Fatalf("%q was taken for no record", value)
				}
				continue
			}
			again, err := decode(nil, encode(nil, nil, got.Record))
			if err != nil || !reflect.DeepEqual(again.Record, got.Record) {
				t.Fatalf("%+v came back as %+v, %v", got, again, err)
			}
			// Behind the head no flipped bit goes unnoticed.
			at := 8*headSize + int(flip)%(8*(len(value)-headSize))
			value[at/8] ^= 1 << (at % 8)
			if _, err := decode(nil, value); err == nil {
				t.Fatalf("flipping bit %d went unnoticed", at)
			}
			value[at/8] ^= 1 << (at % 8)
		}
	})
}

// withChecksum returns value with its last four bytes made the checksum of what
// precedes them behind the head.
func withChecksum(value []byte) []byte {
	body := len(value) - crc32.Size
	if body < headSize {
		return value
	}
	sum := crc32.Checksum(value[headSize:body], crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(value[:body:body], sum)
}
