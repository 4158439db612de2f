package idempotency

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// MaxKeyLength is the length of the longest key, in bytes.
const MaxKeyLength = 255

// ErrInvalidKey is what errors of ParseKey wrap.
var ErrInvalidKey = errors.New("invalid idempotency key")

// ParseKey returns the key in the value of an Idempotency-Key header. A key is
// 1 to 255 visible ASCII characters, written raw or as the quoted string that
// draft-ietf-httpapi-idempotency-key-header asks for (RFC 8941, 3.3.3); both
// forms are the same key. A value that starts with a quote must be a whole
// quoted string without parameters.
func ParseKey(value string) (string, error) {
	key := value
	if strings.HasPrefix(value, `"`) {
		var err error
		if key, err = unquote(value); err != nil {
			return "", err
		}
	}
	if key == "" {
		return "", fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if len(key) > MaxKeyLength {
		return "", fmt.Errorf("%w: it has %d characters, more than %d", ErrInvalidKey, len(key), MaxKeyLength)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return "", fmt.Errorf("%w: character %d is not visible ASCII", ErrInvalidKey, i+1)
		}
	}
	return key, nil
}

// unquote decodes a structured-field string (RFC 8941, 4.2.5).
func unquote(s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
			if i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", fmt.Errorf("%w: a backslash may only precede a quote or a backslash", ErrInvalidKey)
			}
			b.WriteByte(s[i])
		case '"':
			if i != len(s)-1 {
				return "", fmt.Errorf("%w: something follows the closing quote", ErrInvalidKey)
			}
			return b.String(), nil
		default:
			b.WriteByte(s[i])
		}
	}
	return "", fmt.Errorf("%w: the closing quote is missing", ErrInvalidKey)
}

// FormatKey returns key as the value of an Idempotency-Key header that ParseKey
// takes for it: raw, but for one that starts with a quote.
func FormatKey(key string) string {
	if !strings.HasPrefix(key, `"`) {
		return key
	}
	return `"` + quoted.Replace(key) + `"`
}

// quoted writes what a structured-field string holds (RFC 8941, 4.1.6).
var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// RandomKey returns a fresh key for a call that brought none: a version 4
// UUID, which every upstream known to take keys accepts.
func RandomKey() string { return uuid.NewString() }

// UpstreamKey returns the key under which the upstream is to know the call
// that scope made with key. Without a scope that is the key itself. With one
// it is a digest of both, so that two callers' equal keys stay apart in the
// upstream's memory too; it has the form of a UUID (version 8, RFC 9562),
// since some upstreams take nothing else.
func UpstreamKey(scope, key string) string {
	if scope == "" {
		return key
	}
	sum := hashParts("upstream", scope, key)
	u := uuid.UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u.String()
}
