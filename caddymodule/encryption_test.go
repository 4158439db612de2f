package caddymodule

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

func encryptionKey(n byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n, 77}, 16))
}

func TestAnEncryptionKeyThatIsNoneIsRefusedAtItsLine(t *testing.T) {
	short := strings.TrimRight(encryptionKey(1), "=")[:30]
	for args, want := range map[string]string{
		"":                                   "a key is missing",
		short:                                "key 1 of 1: it has 22 bytes and must have 32",
		encryptionKey(1) + " correct-horse!": "key 2 of 2: it is neither base64",
		encryptionKey(1) + " " + encryptionKey(1): "the same as key 1",
		`""`: "is empty",
	} {
		input := "{\n\tgenesys {\n\t\tencryption_key " + args + "\n\t}\n}\n"
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "Caddyfile:3") {
			t.Errorf("%q: got %v, want it to tell %q", args, err, want)
			continue
		}
		for _, key := range strings.Fields(args) {
			if len(key) > 2 && strings.Contains(err.Error(), key) {
				t.Errorf("the error repeats a key: %v", err)
			}
		}
	}
}

func TestEncryptionKeysAreReadFromFilesAndTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(encryptionKey(1)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GENESYS_TEST_KEY", encryptionKey(2))
	a := &App{EncryptionKeys: []string{"{file." + file + "}", "{env.GENESYS_TEST_KEY}"}}
	if err := a.provisionKeys(); err != nil {
		t.Fatal(err)
	}
	b := &App{EncryptionKeys: []string{encryptionKey(1), encryptionKey(2)}}
	if err := b.provisionKeys(); err != nil {
		t.Fatal(err)
	}
	if !a.keyring.Equal(b.keyring) {
		t.Errorf("got the keys %s, want %s", a.keyring, b.keyring)
	}
}

func TestAnEncryptionKeyThatIsNotThereIsAnError(t *testing.T) {
	t.Setenv("GENESYS_TEST_KEY", "")
	for _, text := range []string{"{env.GENESYS_TEST_KEY}", "{file." + filepath.Join(t.TempDir(), "none") + "}", "{" + encryptionKey(3) + "}", ""} {
		a := &App{EncryptionKeys: []string{encryptionKey(1), text}}
		err := a.provisionKeys()
		if err == nil || !strings.Contains(err.Error(), "2 of 2") || !strings.Contains(err.Error(), "openssl rand -base64 32") {
			t.Errorf("%q: got %v", text, err)
		}
		if err != nil && strings.Contains(err.Error(), encryptionKey(3)) {
			t.Errorf("the error repeats a key: %v", err)
		}
	}
}

// A configuration that fails after its Start may have had records encrypted with
// its own key.
func TestARevertedConfigurationsRecordsStayReadable(t *testing.T) {
	storage := &DiskStorage{dir: t.TempDir()}
	ring := func(numbers ...byte) *store.Keyring {
		a := new(App)
		for _, n := range numbers {
			a.EncryptionKeys = append(a.EncryptionKeys, encryptionKey(n))
		}
		if err := a.provisionKeys(); err != nil {
			t.Fatal(err)
		}
		return a.keyring
	}
	former := &settings{storage: storage, keyring: ring(1)}
	b, err := loadBackend(storage.Identity(), storage, former.keyring)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.gate.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := b.init(former); err != nil {
		t.Fatal(err)
	}
	failing := &settings{storage: storage, keyring: ring(2, 1)}
	replaced, err := b.apply(failing)
	if err != nil || replaced != former {
		t.Fatalf("got %v, %v", replaced, err)
	}
	rec := &idempotency.Record{
		ID: idempotency.NewID("", "", "a"), State: idempotency.Started, Owner: idempotency.NewProcess().NewOwner(),
		Started: time.Now(), Expires: time.Now().Add(time.Hour),
	}
	if standing, err := b.store.Claim(t.Context(), rec, idempotency.Owner{}); standing != nil || err != nil {
		t.Fatalf("claiming: %v, %v", standing, err)
	}
	if err := b.revert(failing, replaced); err != nil {
		t.Fatal(err)
	}
	if got, err := b.store.Get(t.Context(), rec.ID); got == nil || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}
