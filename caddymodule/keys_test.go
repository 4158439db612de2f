package caddymodule

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

func TestWhatMayBeAdoptedIsKeptForAsLong(t *testing.T) {
	for _, c := range []struct{ retention, window, want time.Duration }{
		{2 * time.Second, 2 * time.Minute, 2 * time.Minute},
		{24 * time.Hour, 2 * time.Minute, 24 * time.Hour},
	} {
		h := &Handler{Retention: caddy.Duration(c.retention)}
		var err error
		if h.keys, err = newKeySources([]KeySource{{Adopt: caddy.Duration(c.window)}}); err != nil {
			t.Fatal(err)
		}
		id, err := h.identify(nil, nil)
		if err != nil || id.adopt != c.window || id.retention != c.want {
			t.Errorf("retention %v, window %v: got %+v, %v", c.retention, c.window, id, err)
		}
	}
}
