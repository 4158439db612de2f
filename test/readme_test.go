package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// blocks returns the README's code blocks in a language.
func blocks(t *testing.T, language string) []string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(readme), -1) {
		found = append(found, m[1])
	}
	return found
}

// Those that show a grammar have <placeholders>.
var grammar = regexp.MustCompile(`<[a-z]`)

func TestEveryCaddyfileOfTheREADMELoads(t *testing.T) {
	t.Parallel()
	loaded := 0
	for i, text := range blocks(t, "caddyfile") {
		if grammar.MatchString(text) {
			continue
		}
		loaded++
		t.Run(fmt.Sprint(i+1), func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := &sidecar{platform: p, dir: t.TempDir(), env: []string{
				"GENESYS_ENCRYPTION_KEY=" + strings.Repeat("0f", 32),
				"BILLING_PASSWORD_HASH=" + passwordHash, "SUPPORT_PASSWORD_HASH=" + passwordHash, "OPS_PASSWORD_HASH=" + passwordHash,
			}}
			secretFile := filepath.Join(s.dir, "secret")
			if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
			text = strings.NewReplacer("/run/secrets/genesys", secretFile, "/var/log/", s.dir+"/").Replace(text)
			if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := s.command("validate", "--config", s.config(), "--adapter", "caddyfile").CombinedOutput(); err != nil {
				t.Errorf("%v\n%s\n%s", err, text, out)
			}
		})
	}
	if loaded < 8 {
		t.Errorf("only %d blocks were found", loaded)
	}
}

// passwordHash is that of "password".
const passwordHash = "$2a$04$WxRR8MoyjzbcOyNVsuOiZOCEoWDEFBBNKxNuVrZbcmwVpVJSvk2bS"
