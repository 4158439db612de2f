package caddymodule

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestAScopeThatIsOnePlaceholderIsWhatReplacingItGives(t *testing.T) {
	repl := caddy.NewReplacer()
	repl.Set("user", "ada")
	repl.Set("number", 17)
	r := httptest.NewRequest("POST", "/", nil)
	r = r.WithContext(context.WithValue(r.Context(), caddy.ReplacerCtxKey, repl))
	for scope, alone := range map[string]bool{
		"{user}": true, "{number}": true, "{unknown}": true, "{env.HOME}": true,
		"x{user}": false, "{user}x": false, "{user}{number}": false, `{us\}er}`: false, "plain": false, "{user": false, "": false,
	} {
		h := &Handler{scopes: strings.Fields(scope)}
		want := h.scope(r)
		h.scoped = onlyPlaceholder(h.scopes)
		if got := h.scope(r); got != want || (h.scoped != "") != alone {
			t.Errorf("%q is %q by its name %q, want %q", scope, got, h.scoped, want)
		}
	}
}
