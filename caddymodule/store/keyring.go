package store

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// KeySize is the size of an encryption key, in bytes.
const KeySize = 32

// KeyID names a key. It is derived from the key and tells nothing of it.
type KeyID [4]byte

// String returns the ID in hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// ParseKeyID parses what String returns.
func ParseKeyID(text string) (id KeyID, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(id) {
		return id, errors.New("parsing key ID: it is not one")
	}
	return KeyID(b), nil
}

// Keyring holds the keys that records at rest are encrypted with: the first
// encrypts, all decrypt. nil encrypts nothing, and decrypts nothing. A Keyring
// does not change, and is safe for concurrent use.
type Keyring struct {
	keys  []sealingKey
	opens bool // it decrypts only
}

// sealingKey is a key as records need it.
type sealingKey struct {
	id     KeyID
	secret [KeySize]byte // what the keys of records are derived from
}

// HowToMakeAKey is the command that makes an encryption key.
const HowToMakeAKey = "openssl rand -base64 32"

// ParseKeyring returns the keyring of keys, each 32 bytes in base64, of either
// alphabet and padded or not, or in 64 hexadecimal digits. Where there are none,
// it is nil. Errors contain nothing of a key.
func ParseKeyring(keys []string) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ring := new(Keyring)
	for i, text := range keys {
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("parsing encryption key %d of %d: %w", i+1, len(keys), err)
		}
		if at := slices.IndexFunc(ring.keys, func(k sealingKey) bool { return k.id == key.id }); at >= 0 {
			return nil, fmt.Errorf("parsing encryption key %d of %d: it is the same as key %d", i+1, len(keys), at+1)
		}
		ring.keys = append(ring.keys, key)
	}
	return ring, nil
}

func parseKey(text string) (sealingKey, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return sealingKey{}, errors.New("it is empty; make one with: " + HowToMakeAKey)
	}
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != KeySize {
		text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
		raw, err = base64.RawStdEncoding.DecodeString(text)
	}
	switch {
	case err != nil:
		return sealingKey{}, errors.New("it is neither base64 nor 64 hexadecimal digits; make one with: " + HowToMakeAKey)
	case len(raw) != KeySize:
		return sealingKey{}, fmt.Errorf("it has %d bytes and must have %d; make one with: %s", len(raw), KeySize, HowToMakeAKey)
	}
	key := sealingKey{secret: [KeySize]byte(derive(raw, "records", KeySize))}
	copy(key.id[:], derive(raw, "id", len(key.id)))
	return key, nil
}

// derive returns n bytes that are derived from key for a purpose, and tell
// nothing of it or of what is derived for another.
func derive(key []byte, purpose string, n int) []byte {
	b, err := hkdf.Key(sha256.New, key, nil, "genesys-sidecar encryption key: "+purpose, n)
	if err != nil {
		panic(err) // n is far below its limit
	}
	return b
}

// First returns the ID of the key that encrypts, if one does.
func (k *Keyring) First() (id KeyID, ok bool) {
	if k == nil || k.opens {
		return id, false
	}
	return k.keys[0].id, true
}

// Has tells whether k has the key of id.
func (k *Keyring) Has(id KeyID) bool { return k.key(id) != nil }

func (k *Keyring) key(id KeyID) *sealingKey {
	if k == nil {
		return nil
	}
	for i := range k.keys {
		if k.keys[i].id == id {
			return &k.keys[i]
		}
	}
	return nil
}

// With returns a keyring that encrypts as k does, and decrypts what k or other
// does.
func (k *Keyring) With(other *Keyring) *Keyring {
	if other == nil {
		return k
	}
	both := &Keyring{opens: true}
	if k != nil {
		both.keys, both.opens = slices.Clone(k.keys), k.opens
	}
	for _, key := range other.keys {
		if !k.Has(key.id) {
			both.keys = append(both.keys, key)
		}
	}
	return both
}

// Equal tells whether k and other have the same keys in the same order.
func (k *Keyring) Equal(other *Keyring) bool {
	if k == nil || other == nil {
		return k == other
	}
	return k.opens == other.opens && slices.Equal(k.keys, other.keys)
}

// String returns the IDs of the keys, never a key.
func (k *Keyring) String() string {
	if k == nil {
		return "none"
	}
	var ids []string
	for _, key := range k.keys {
		ids = append(ids, key.id.String())
	}
	return strings.Join(ids, " ")
}

// GoString is String: no verb prints a key.
func (k *Keyring) GoString() string { return k.String() }
