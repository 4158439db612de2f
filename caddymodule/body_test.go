package caddymodule

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// TestABodyIsReadWhole, whatever the request says about its length: a handler
// in front may have put another body in.
func TestABodyIsReadWhole(t *testing.T) {
	for _, length := range []int{0, 1, 511, 512, 513, trustedLength, trustedLength + 1, 3 * trustedLength} {
		for _, said := range []int64{-1, 0, int64(length) - 1, int64(length), int64(length) + 1} {
			for name, reader := range map[string]func(io.Reader) io.Reader{
				"at once": func(r io.Reader) io.Reader { return r }, "by the byte": iotest.OneByteReader, "with its end": iotest.DataErrReader,
			} {
				h := &Handler{MaxRequestBody: 4 * trustedLength}
				want := strings.Repeat("x", length)
				r := httptest.NewRequest(http.MethodPost, "/", reader(strings.NewReader(want)))
				r.ContentLength = said
				if got, err := h.readBody(r); string(got) != want || err != nil {
					t.Errorf("%d bytes %s, said to be %d: %d were read, %v", length, name, said, len(got), err)
				}
			}
		}
	}
}

func TestABodyBeyondTheLimitIsRefused(t *testing.T) {
	for _, limit := range []int64{1, 100, 1000, 2 * trustedLength} {
		for _, said := range []int64{-1, 0, limit, limit + 1} {
			h := &Handler{MaxRequestBody: limit}
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", int(limit)+1)))
			r.ContentLength = said
			var p *problemError
			if _, err := h.readBody(r); !errors.As(err, &p) || p.slug != slugRequestTooLarge {
				t.Errorf("%d bytes more than 1, said to be %d: %v", limit, said, err)
			}
			r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(strings.Repeat("x", int(limit))))
			if body, err := h.readBody(r); int64(len(body)) != limit || err != nil {
				t.Errorf("%d bytes, as many as may be: %d were read, %v", limit, len(body), err)
			}
		}
	}
}

func TestABodyThatIsCutShortIsRefused(t *testing.T) {
	h := &Handler{MaxRequestBody: 1000}
	r := httptest.NewRequest(http.MethodPost, "/", io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.ContentLength = 8
	var p *problemError
	if _, err := h.readBody(r); !errors.As(err, &p) || p.slug != slugBodyInvalid {
		t.Errorf("got %v", err)
	}
}
