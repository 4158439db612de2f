package idempotency_test

import (
	"errors"
	"net/http"
	"reflect"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
)

var headers = map[string]http.Header{
	"one":     {"Content-Type": {"application/json"}},
	"several": {"B": {"2", "1", "1", ""}, "a-lower": {"\x80\xff"}, "Z": {}, "": {""}},
	"long":    {"X": {string(make([]byte, 1000))}},
}

func TestHeaderHasWhatItWasMadeOf(t *testing.T) {
	for name, want := range headers {
		h := idempotency.NewHeader(want)
		got := h.HTTP()
		if len(got) != len(want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		for field, values := range want {
			if v, ok := got[field]; !ok || len(v)+len(values) > 0 && !reflect.DeepEqual(v, values) {
				t.Errorf("%s: %q became %q", name, values, v)
			}
		}
	}
}

func TestEmptyHeaderIsTheZeroHeader(t *testing.T) {
	for _, h := range []http.Header{nil, {}} {
		if got := idempotency.NewHeader(h); got != "" || len(got.HTTP()) != 0 {
			t.Errorf("got %q", got)
		}
	}
}

func TestValuesOfOneNameCannotReachThoseOfTheNext(t *testing.T) {
	h := idempotency.NewHeader(http.Header{"A": {"1"}, "B": {"2"}}).HTTP()
	h.Add("A", "other")
	if h.Get("B") != "2" {
		t.Errorf("got %q", h)
	}
}

func TestHeaderIsReadOffTheFront(t *testing.T) {
	for name, want := range headers {
		h := idempotency.NewHeader(want)
		got, rest, err := idempotency.ParseHeader([]byte(string(h) + "rest"))
		if got != h || string(rest) != "rest" || err != nil {
			t.Errorf("%s: got %q, %q, %v", name, got, rest, err)
		}
	}
	if got, rest, err := idempotency.ParseHeader([]byte("\x00rest")); got != "" || string(rest) != "rest" || err != nil {
		t.Errorf("empty: got %q, %q, %v", got, rest, err)
	}
}

func TestMalformedHeaderIsRefused(t *testing.T) {
	for name, h := range headers {
		whole := idempotency.NewHeader(h)
		for n := range len(whole) {
			if _, _, err := idempotency.ParseHeader([]byte(whole[:n])); !errors.Is(err, idempotency.ErrInvalidHeader) {
				t.Errorf("%s: the first %d bytes: %v", name, n, err)
			}
		}
	}
	for _, b := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x80", "\x01\x7f", "\xff\xff\xff\xff\x0f"} {
		if _, _, err := idempotency.ParseHeader([]byte(b)); !errors.Is(err, idempotency.ErrInvalidHeader) {
			t.Errorf("%q: %v", b, err)
		}
	}
}

// FuzzHeader: whatever is taken for a Header can be read.
func FuzzHeader(f *testing.F) {
	for _, h := range headers {
		f.Add([]byte(idempotency.NewHeader(h)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, rest, err := idempotency.ParseHeader(b)
		if err != nil {
			return
		}
		if string(h)+string(rest) != string(b) && (h != "" || len(b) != len(rest)+1) {
			t.Fatalf("%q became %q and %q", b, h, rest)
		}
		for range h.All() {
		}
	})
}
