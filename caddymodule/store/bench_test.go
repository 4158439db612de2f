package store

import (
	"bytes"
	"net/http"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

// answered is a record as most are: with an answer of 1 KiB.
func answered() *idempotency.Record {
	rec := sample()
	rec.Answer = &idempotency.Answer{
		Status: http.StatusOK,
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}, "Inin-Correlation-Id": {"0c2c5ba7-2c2a-4e7b-8d6e-5b9c7a0c1f11"}}),
		Body:   bytes.Repeat([]byte{'x'}, 1024),
	}
	return rec
}

func BenchmarkEncode(b *testing.B) {
	rec := answered()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = Encode(buf[:0], rec)
	}
}

func BenchmarkDecode(b *testing.B) {
	data := Encode(nil, answered())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
