package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"golang.org/x/net/http/httpguts"

	"genesys-sidecar/caddymodule/idempotency"
)

// KeySource is a place where a call's key is found. Exactly one field is set.
type KeySource struct {
	// The name of a request header that holds the key.
	Header string `json:"header,omitempty"`

	// A JSON pointer (RFC 6901) to the key in the request body: a string or a
	// number.
	JSON string `json:"json,omitempty"`

	// The request is its own key: the same request, sent again before this
	// long has passed since the first was answered, is the same call.
	Hash caddy.Duration `json:"hash,omitempty"`

	// The call has no key and gets one made up, unless it is the same request
	// as one whose caller has left, or was told that its outcome is unknown,
	// no longer ago than this: then it takes that one's place.
	Adopt caddy.Duration `json:"adopt,omitempty"`

	// A call without a key is refused.
	Require bool `json:"require,omitempty"`
}

// defaultAdoptWindow is the window of `key adopt` where none is given.
const defaultAdoptWindow = 2 * time.Minute

// keySource is a KeySource, ready for use.
type keySource struct {
	KeySource
	pointer *pointer
}

// pointer is a JSON pointer and how it was written.
type pointer struct {
	idempotency.Pointer
	text string
}

func newPointer(s string) (*pointer, error) {
	p, err := idempotency.ParsePointer(s)
	if err != nil {
		return nil, err
	}
	return &pointer{p, s}, nil
}

// newHeaderName returns the name under which an http.Header has the header s.
func newHeaderName(s string) (string, error) {
	if !httpguts.ValidHeaderFieldName(s) {
		return "", fmt.Errorf("%q is no name of a header", s)
	}
	return http.CanonicalHeaderKey(s), nil
}

func newKeySources(configured []KeySource) ([]keySource, error) {
	sources := make([]keySource, len(configured))
	for i, c := range configured {
		s := keySource{KeySource: c}
		kinds := 0
		last := false
		if c.Header != "" {
			kinds++
			var err error
			if s.Header, err = newHeaderName(c.Header); err != nil {
				return nil, err
			}
		}
		if c.JSON != "" {
			kinds++
			var err error
			if s.pointer, err = newPointer(c.JSON); err != nil {
				return nil, err
			}
		}
		for _, window := range []caddy.Duration{c.Hash, c.Adopt} {
			if window < 0 {
				return nil, errors.New("a window must not be negative")
			}
			if window > 0 {
				kinds++
				last = true
			}
		}
		if c.Require {
			kinds++
			last = true
		}
		if kinds != 1 {
			return nil, fmt.Errorf("source %d must be exactly one of header, json, hash, adopt and require", i+1)
		}
		if last && i != len(configured)-1 {
			return nil, fmt.Errorf("source %d always decides, so that the next is never asked; put hash, adopt or require last, and only one of them", i+1)
		}
		sources[i] = s
	}
	return sources, nil
}

// identity is which call a request is.
type identity struct {
	key       string        // empty: none was brought
	hash      bool          // the request is its own key
	retention time.Duration // 0: the handler's
	adopt     time.Duration // how long it may be adopted; 0: never
}

// identify finds the key of a request with the given header and body.
func (h *Handler) identify(header http.Header, body []byte) (identity, error) {
	for _, s := range h.keys {
		switch {
		case s.Header != "":
			key, err := headerKey(header, s.Header)
			if err != nil || key != "" {
				return identity{key: key}, err
			}
		case s.pointer != nil:
			key, err := s.pointer.Key(body)
			switch {
			case errors.Is(err, idempotency.ErrInvalidBody):
				return identity{}, &problemError{slug: slugBodyInvalid, err: err,
					detail: fmt.Sprintf("The key is expected in the request's body at %s, but: %v.", s.pointer.text, err)}
			case err != nil:
				return identity{}, &problemError{slug: slugKeyInvalid, err: err,
					detail: fmt.Sprintf("The request's body holds at %s what cannot be a key: %v. %s", s.pointer.text, err, keyForm)}
			case key != "":
				return identity{key: key}, nil
			}
		case s.Hash > 0:
			return identity{hash: true, retention: time.Duration(s.Hash)}, nil
		case s.Adopt > 0:
			return identity{adopt: time.Duration(s.Adopt)}, nil
		case s.Require:
			return identity{}, &problemError{slug: slugKeyRequired,
				detail: "The request has no idempotency key. Send one that is unique to this call, and the same one with every repeat of it, in the header Idempotency-Key or where this endpoint's operator says."}
		}
	}
	return identity{}, nil
}

const keyForm = "A key is 1 to 255 visible ASCII characters, raw or as a quoted string."

// headerKey returns the key in the header name, or "" if there is no such
// header.
func headerKey(header http.Header, name string) (string, error) {
	values := header[name]
	if len(values) == 0 {
		return "", nil
	}
	if len(values) > 1 {
		return "", &problemError{slug: slugKeyInvalid,
			detail: fmt.Sprintf("The request has %d header lines %s; it must have one.", len(values), name)}
	}
	key, err := idempotency.ParseKey(values[0])
	if err != nil {
		return "", &problemError{slug: slugKeyInvalid, err: err,
			detail: fmt.Sprintf("The header %s holds no key: %v. %s", name, err, keyForm)}
	}
	return key, nil
}
