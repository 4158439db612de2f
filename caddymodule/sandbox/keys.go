package sandbox

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// keyLife is how long a key replays, from its first success.
const keyLife = 24 * time.Hour

// uuidPattern is what the evaluations endpoint documents for its key.
var uuidPattern = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// remembered is what became of the request that first brought a key.
type remembered struct {
	// Fingerprint is the path and the digest of the body's bytes.
	Fingerprint string    `json:"fingerprint"`
	Since       time.Time `json:"since"`
	Failed      bool      `json:"failed,omitempty"`
	// Body and Size make the answer. Body is a string, since embedded JSON
	// would be compacted in the file and so not be the same bytes again.
	Body   string `json:"body,omitempty"`
	Size   int64  `json:"size,omitempty"`
	Effect string `json:"-"`

	inFlight bool
}

func (m remembered) reply() reply {
	return bytesReply(http.StatusOK, []byte(m.Body)).padded(m.Size)
}

// keys is the memory of the endpoints that honour Idempotency-Key.
type keys struct {
	now func() time.Time

	mu    sync.Mutex
	known map[string]*remembered
	sweep int // size of known at which expired keys are looked for
}

func newKeys(now func() time.Time) *keys {
	return &keys{now: now, known: make(map[string]*remembered), sweep: 1024}
}

// begin reserves a key for a request. If the key is bound, it returns either
// the answer to replay or the conflict.
func (k *keys) begin(key, fingerprint string) (replay *remembered, conflict *problem) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	if m, ok := k.known[key]; ok && (m.inFlight || now.Sub(m.Since) < keyLife) {
		switch {
		case m.Fingerprint != fingerprint:
			return nil, keyConflict("The Idempotency-Key was used with another request.")
		case m.inFlight:
			return nil, keyConflict("A request with this Idempotency-Key is in progress.")
		case m.Failed:
			return nil, keyConflict("The Idempotency-Key is bound to a failed request.")
		}
		found := *m
		return &found, nil
	}
	if len(k.known) >= k.sweep {
		for other, m := range k.known {
			if !m.inFlight && now.Sub(m.Since) >= keyLife {
				delete(k.known, other)
			}
		}
		k.sweep = max(1024, 2*len(k.known))
	}
	k.known[key] = &remembered{Fingerprint: fingerprint, inFlight: true}
	return nil, nil
}

// bind remembers what became of a key. Without a key it does nothing.
func (k *keys) bind(key string, m remembered) {
	if key == "" {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.known[key] = &m
}

// release frees a reserved key: its request did not take effect.
func (k *keys) release(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if m, ok := k.known[key]; ok && m.inFlight {
		delete(k.known, key)
	}
}

// forget frees all keys but those in flight.
func (k *keys) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, m := range k.known {
		if !m.inFlight {
			delete(k.known, key)
		}
	}
}

func keyConflict(message string) *problem {
	p := platformProblem(http.StatusConflict).with("idempotency.conflict", message)
	return &p
}

// readKey takes the key of a request. Whether it is well formed matters only
// to endpoints that honour it; a present but empty header is no key.
func readKey(h http.Header) string {
	return strings.Join(h.Values("Idempotency-Key"), ", ")
}

// checkKey refuses keys that an honouring endpoint cannot take.
func checkKey(h http.Header, mustBeUUID bool) *problem {
	values := h.Values("Idempotency-Key")
	if len(values) == 0 || len(values) == 1 && values[0] == "" {
		return nil
	}
	p := platformProblem(http.StatusBadRequest)
	switch {
	case len(values) > 1:
		p = p.with("invalid.value", "There must be one Idempotency-Key at most.")
	case len(values[0]) > 255:
		p = p.with("invalid.value", "The Idempotency-Key must have 255 characters at most.")
	case mustBeUUID && !uuidPattern.MatchString(values[0]):
		p = p.with("invalid.value", "The Idempotency-Key must be a UUID.")
	default:
		return nil
	}
	return &p
}
