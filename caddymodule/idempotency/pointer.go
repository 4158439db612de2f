package idempotency

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// ErrInvalidBody is wrapped by errors about a request's JSON body.
var ErrInvalidBody = errors.New("invalid JSON body")

// Pointer names a place in a JSON text (RFC 6901).
type Pointer struct{ tokens []string }

// ParsePointer returns the pointer that s stands for. A pointer to the whole
// text is refused: there is no key in it, nor a place to write one to.
func ParsePointer(s string) (Pointer, error) {
	if !strings.HasPrefix(s, "/") {
		return Pointer{}, fmt.Errorf("JSON pointer %q must start with a slash, as in /conversation/id (RFC 6901)", s)
	}
	p := jsontext.Pointer(s)
	if !p.IsValid() {
		return Pointer{}, fmt.Errorf("JSON pointer %q: a tilde may only precede 0 or 1 (RFC 6901)", s)
	}
	var ptr Pointer
	for token := range p.Tokens() {
		ptr.tokens = append(ptr.tokens, token)
	}
	return ptr, nil
}

// Key returns the key at p in body: a string, or a number as it is written.
// The key is empty where nothing, null, or an empty string is there. Errors
// wrap ErrInvalidBody or ErrInvalidKey.
func (p Pointer) Key(body []byte) (string, error) {
	at, err := p.find(body)
	if err != nil || !at.found {
		return "", err
	}
	var key string
	switch at.value.Kind() {
	case 'n':
		return "", nil
	case '0':
		key = string(at.value)
	case '"':
		text, err := jsontext.AppendUnquote(nil, at.value)
		if err != nil {
			return "", fmt.Errorf("%w: %w", ErrInvalidBody, err)
		}
		key = string(text)
	default:
		return "", fmt.Errorf("%w: what the body has in its place is neither a string nor a number", ErrInvalidKey)
	}
	if key == "" {
		return "", nil
	}
	return ParseKey(key)
}

// Write returns body with the string key at p, in place of what is there. The
// object or array around it must exist. The rest of the body stays as it is,
// byte for byte. Errors wrap ErrInvalidBody.
func (p Pointer) Write(body []byte, key string) ([]byte, error) {
	at, err := p.find(body)
	if err != nil {
		return nil, err
	}
	value, err := jsontext.AppendQuote(nil, key)
	if err != nil {
		return nil, fmt.Errorf("writing key: %w", err)
	}
	switch {
	case at.found:
	case !at.inObject:
		return nil, fmt.Errorf("%w: there is no object to write the key into", ErrInvalidBody)
	default:
		name, err := jsontext.AppendQuote(nil, p.tokens[len(p.tokens)-1])
		if err != nil {
			return nil, fmt.Errorf("writing key: %w", err)
		}
		value = append(append(name, ':'), value...)
		if !at.empty {
			value = append(value, ',')
		}
	}
	out := make([]byte, 0, len(body)+len(value))
	out = append(out, body[:at.start]...)
	out = append(out, value...)
	return append(out, body[at.end:]...), nil
}

// place is where a pointer leads in a text: to the value at [start:end] if it
// is found, else into the object whose members begin at start.
type place struct {
	found      bool
	value      jsontext.Value
	inObject   bool
	empty      bool
	start, end int64
}

func (p Pointer) find(body []byte) (place, error) {
	if !jsontext.Value(body).IsValid() {
		return place{}, fmt.Errorf("%w: it must be one JSON value with unique member names", ErrInvalidBody)
	}
	dec := jsontext.NewDecoder(bytes.NewReader(body))
	for i, token := range p.tokens {
		last := i == len(p.tokens)-1
		opening, err := dec.ReadToken()
		if err != nil {
			return place{}, fmt.Errorf("%w: %w", ErrInvalidBody, err)
		}
		kind := opening.Kind() // the token is void once dec goes on
		at := place{start: dec.InputOffset(), end: dec.InputOffset(), inObject: last && kind == '{'}
		at.empty = dec.PeekKind() == '}'
		if !seek(dec, kind, token) {
			return at, nil
		}
	}
	value, err := dec.ReadValue()
	if err != nil {
		return place{}, fmt.Errorf("%w: %w", ErrInvalidBody, err)
	}
	end := dec.InputOffset()
	return place{found: true, value: value, start: end - int64(len(value)), end: end}, nil
}

// seek moves dec to the value of the member or element that token names, in
// the object or array that was just opened. The text is known to be valid.
func seek(dec *jsontext.Decoder, kind jsontext.Kind, token string) bool {
	switch kind {
	case '{':
		for dec.PeekKind() != '}' {
			name, err := dec.ReadToken()
			if err != nil {
				return false
			}
			if name.String() == token {
				return true
			}
			if dec.SkipValue() != nil {
				return false
			}
		}
	case '[':
		index, err := strconv.ParseUint(token, 10, 31)
		if err != nil || token != strconv.FormatUint(index, 10) {
			return false
		}
		for ; dec.PeekKind() != ']'; index-- {
			if index == 0 {
				return true
			}
			if dec.SkipValue() != nil {
				return false
			}
		}
	}
	return false
}
