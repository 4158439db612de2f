package caddymodule

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"genesys-sidecar/caddymodule/store"
)

// provisionKeys reads the encryption keys. Errors contain nothing of one.
func (a *App) provisionKeys() (err error) {
	repl := caddy.NewReplacer()
	texts := make([]string, len(a.EncryptionKeys))
	for i, text := range a.EncryptionKeys {
		// What the replacer complains of, it repeats.
		if texts[i], err = repl.ReplaceOrErr(text, true, true); err != nil {
			return fmt.Errorf("reading encryption_key %d of %d: %s Make a key with: %s",
				i+1, len(texts), standsForNothing, store.HowToMakeAKey)
		}
	}
	if a.keyring, err = store.ParseKeyring(texts); err != nil {
		return fmt.Errorf("reading encryption_key: %w", err)
	}
	return nil
}

// parseKeys parses the option encryption_key, and finds what is no key while its
// line is known.
func (a *App) parseKeys(d *caddyfile.Dispenser) error {
	a.EncryptionKeys = d.RemainingArgs()
	if len(a.EncryptionKeys) == 0 {
		return d.Errf("encryption_key: a key is missing, as in: encryption_key {file./run/secrets/genesys-key}; make one with: %s", store.HowToMakeAKey)
	}
	if slices.ContainsFunc(a.EncryptionKeys, func(text string) bool { return strings.Contains(text, "{") }) {
		return nil
	}
	if _, err := store.ParseKeyring(a.EncryptionKeys); err != nil {
		return d.Errf("encryption_key: %v", err)
	}
	return nil
}
