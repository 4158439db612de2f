package caddymodule

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// trustedLength is how much room is made for a body before it has come, in
// bytes; a longer one gets room as it comes.
const trustedLength = 64 << 10

// readBody reads the request's body, which is bounded.
func (h *Handler) readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength > h.MaxRequestBody {
		return nil, h.tooLarge()
	}
	body, err := readAll(r.Body, r.ContentLength, h.MaxRequestBody+1)
	if err != nil {
		if _, isLimit := errors.AsType[*http.MaxBytesError](err); isLimit {
			return nil, h.tooLarge()
		}
		return nil, &problemError{slug: slugBodyInvalid, err: err, detail: "The request's body could not be read to its end."}
	}
	if int64(len(body)) > h.MaxRequestBody {
		return nil, h.tooLarge()
	}
	return body, nil
}

// readAll reads up to about limit bytes of body, of which n are expected, or any
// number where n is negative. It does not rely on n: a handler in front may have
// put another body in.
func readAll(body io.Reader, n, limit int64) ([]byte, error) {
	if n < 0 {
		n = bytes.MinRead
	}
	b := make([]byte, 0, min(n, trustedLength)+1) // with room to learn of the end
	for len(b) < cap(b) {
		k, err := body.Read(b[len(b):cap(b)])
		b = b[:len(b)+k]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
	}
	rest, err := io.ReadAll(io.LimitReader(body, max(0, limit-int64(len(b)))))
	return append(b, rest...), err
}

func (h *Handler) tooLarge() error {
	return &problemError{slug: slugRequestTooLarge,
		detail: fmt.Sprintf("The request's body is larger than %d bytes, which is what max_request_body allows.", h.MaxRequestBody)}
}
