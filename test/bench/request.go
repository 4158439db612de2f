package main

import (
	"bytes"
	"fmt"
	"strings"
	"sync/atomic"
)

// executePath is a data action. Its upstream ignores keys, so that a call costs
// the sidecar all that it can cost.
const executePath = "/api/v2/integrations/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/execute"

// A key is four digits for its keys and sixteen for its number among them.
const keyFormat = "%04d-%016d"

var keyPlace = fmt.Sprintf(keyFormat, 0, 0)

// keys says which key each request has. Its methods are safe for concurrent
// use.
type keys struct {
	space string // nobody else's keys begin like this
	among uint64 // 0: every key is a new one
	next  atomic.Uint64
}

var spaces atomic.Uint64

// newKeys returns keys that no request had before.
func newKeys() *keys {
	return &keys{space: fmt.Sprintf(keyFormat, spaces.Add(1), 0)[:5]}
}

// again returns keys that go round and round among the first n of k.
func (k *keys) again(n int) *keys { return &keys{space: k.space, among: uint64(n)} }

// stride has consecutive keys lie apart. It is a prime, so that all have had
// their turn before one has its second.
const stride = 1_000_003

// put writes the next key into dst, which has the room of keyPlace.
func (k *keys) put(dst []byte) {
	n := k.next.Add(1) - 1
	if k.among > 0 {
		n = n * stride % k.among
	}
	copy(dst, k.space)
	for i := len(dst) - 1; i >= len(k.space); i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}

// template is a request as it goes over the connection, but for its key.
type template struct {
	bytes []byte
	keys  []int // where the key stands
}

// newTemplate returns a POST request with a JSON body. In body and headers,
// keyPlace stands for the key.
func newTemplate(address, path, body string, headers ...string) template {
	head := []string{
		"POST " + path + " HTTP/1.1",
		"Host: " + address,
		"User-Agent: bench",
		"Content-Type: application/json",
		fmt.Sprintf("Content-Length: %d", len(body)),
	}
	head = append(head, headers...)
	t := template{bytes: []byte(strings.Join(head, "\r\n") + "\r\n\r\n" + body)}
	for from := 0; ; {
		i := bytes.Index(t.bytes[from:], []byte(keyPlace))
		if i < 0 {
			return t
		}
		t.keys = append(t.keys, from+i)
		from += i + len(keyPlace)
	}
}

// clone returns a copy whose key can be changed.
func (t template) clone() template { return template{bytes.Clone(t.bytes), t.keys} }

// setKey gives the request the next key of k.
func (t template) setKey(k *keys) {
	if len(t.keys) == 0 {
		return
	}
	first := t.bytes[t.keys[0] : t.keys[0]+len(keyPlace)]
	k.put(first)
	for _, at := range t.keys[1:] {
		copy(t.bytes[at:], first)
	}
}

// actionCall returns the request that everybody is sent who can take it: the
// call of a data action, whose body has the given size.
func actionCall(address string) func(bodySize int) template {
	return func(bodySize int) template {
		return newTemplate(address, executePath, jsonBody(bodySize), "Idempotency-Key: "+keyPlace)
	}
}

// jsonBody returns a small order with a note that fills it to size.
func jsonBody(size int) string {
	const before, after = `{"order": 17, "amount": 49.9, "customer": {"id": "c-1", "name": "Ada"}, "note": "`, `"}`
	return before + string(randomText(max(0, size-len(before)-len(after)))) + after
}
