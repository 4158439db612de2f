package redis

import (
	"encoding/base64"
	"strconv"
	"sync"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// arguments are the key and the arguments of an evaluation. They are written one after
// another and cut out of one string then: a call's two scripts have eighteen, most of
// them a few bytes. Get them with argumentsFor; cut and evaluation are their last use.
type arguments struct {
	text []byte
	ends []int // of each, in text
}

var argumentsPool = sync.Pool{New: func() any { return new(arguments) }}

// maxText is the size of the largest text that is kept for others, in bytes.
const maxText = 64 << 10

// argumentsFor returns arguments that begin with the key of a record.
func (s *Store) argumentsFor(id idempotency.ID) *arguments {
	a := argumentsPool.Get().(*arguments)
	a.text = s.appendKey(a.text[:0], recordKind, id[:])
	a.ends = append(a.ends[:0], len(a.text))
	return a
}

func (a *arguments) end() *arguments {
	a.ends = append(a.ends, len(a.text))
	return a
}

func (a *arguments) string(s string) *arguments {
	a.text = append(a.text, s...)
	return a.end()
}

func (a *arguments) bytes(b []byte) *arguments {
	a.text = append(a.text, b...)
	return a.end()
}

func (a *arguments) number(n int64) *arguments {
	a.text = strconv.AppendInt(a.text, n, 10)
	return a.end()
}

// record is the value that a record stands in Redis as.
func (a *arguments) record(keys *store.Keyring, rec *idempotency.Record) *arguments {
	a.text = encode(a.text, keys, rec)
	return a.end()
}

// cut returns the key and the arguments.
func (a *arguments) cut() []string {
	text := string(a.text)
	parts := make([]string, len(a.ends))
	start := 0
	for i, end := range a.ends {
		parts[i] = text[start:end]
		start = end
	}
	if cap(a.text) <= maxText {
		argumentsPool.Put(a)
	}
	return parts
}

// evaluation returns script with its key and these arguments.
func (a *arguments) evaluation(script *script) evaluation {
	parts := a.cut()
	return evaluation{script: script, key: parts[0], args: parts[1:]}
}

// Kinds of keys that are followed by a digest.
const (
	recordKind   = "r:"
	adoptionKind = "a:"
	budgetKind   = "b:"
)

// appendKey appends the key of what has a digest for its ID.
func (s *Store) appendKey(dst []byte, kind string, id []byte) []byte {
	dst = append(append(dst, s.options.Prefix...), kind...)
	return base64.RawURLEncoding.AppendEncode(dst, id)
}

func (s *Store) recordKey(id idempotency.ID) string {
	return string(s.appendKey(nil, recordKind, id[:]))
}

func (s *Store) adoptionKey(a idempotency.AdoptionID) string {
	return string(s.appendKey(nil, adoptionKind, a[:]))
}
