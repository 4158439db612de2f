package test

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// keyFile writes an encryption key to a file, and returns a placeholder for it.
func keyFile(t *testing.T, n byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(encryptionKey(n)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return "{file." + name + "}"
}

func encryptionKey(n byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{n, 0xfb}, 16))
}

// tryReload is reload, which may be refused.
func (s *sidecar) tryReload() (output string, err error) {
	out, err := s.command("reload", "--config", s.config(), "--adapter", "caddyfile", "--address", s.admin, "--force").CombinedOutput()
	return string(out), err
}

// failToStart starts a sidecar that is to end at once, and returns its output.
func (s *sidecar) failToStart(t *testing.T) string {
	t.Helper()
	out, err := s.command("run", "--config", s.config(), "--adapter", "caddyfile").CombinedOutput()
	if err == nil {
		t.Fatalf("it started: %s", out)
	}
	return string(out)
}

const canary = "canary-c4f1"

// leaveCanaries has the sidecar record a call, and returns texts out of what it
// keeps of that: key, action, header and body.
func leaveCanaries(t *testing.T, s *sidecar) []string {
	t.Helper()
	a := s.send(t, request{
		path: strings.Replace(execute, "custom_-_", "custom_-_"+canary, 1), body: `{}`,
		header: []string{"Idempotency-Key", canary + "-key"},
	})
	correlation := a.header.Get("ININ-Correlation-Id")
	if a.status != http.StatusOK || len(a.body) < 12 || len(correlation) < 12 {
		t.Fatalf("got %+v", a)
	}
	return []string{canary + "-key", "custom_-_" + canary, correlation, a.body}
}

// holds returns which of texts are in a file below dir.
func holds(t *testing.T, dir string, texts []string) (found []string) {
	t.Helper()
	var all []byte
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all = append(all, data...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if bytes.Contains(all, []byte(text)) {
			found = append(found, text)
		}
	}
	return found
}

func TestEncryptionLeavesNothingReadableOnDisk(t *testing.T) {
	for name, test := range map[string]struct {
		global string
		want   bool
	}{"encrypted": {"encryption_key " + keyFile(t, 1), false}, "not encrypted": {"", true}} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s := newSidecar(t, p, options{global: test.global})
			texts := leaveCanaries(t, s)
			s.kill(t) // what it knew then is in its log
			want := texts
			if !test.want {
				want = nil
			}
			if found := holds(t, filepath.Join(s.dir, "store"), texts); !slices.Equal(found, want) {
				t.Errorf("%q can be read, want %q", found, want)
			}
		})
	}
}

func TestEncryptionLeavesNothingReadableInRedis(t *testing.T) {
	for name, test := range map[string]struct {
		global string
		want   bool
	}{"encrypted": {"encryption_key " + keyFile(t, 1), false}, "not encrypted": {"", true}} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			r := newRedis(t)
			s := newSidecar(t, p, options{global: test.global + "\nstore redis " + r.URL()})
			texts := leaveCanaries(t, s)
			want := texts
			if !test.want {
				want = nil
			}
			// Its append-only file has all that it was ever told.
			if found := holds(t, r.Dir(), texts); !slices.Equal(found, want) {
				t.Errorf("%q can be read, want %q", found, want)
			}
		})
	}
}

func TestEncryptionKeysRotateByReload(t *testing.T) {
	old, next := keyFile(t, 1), keyFile(t, 2)
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "cache off\n\t\tencryption_key " + old})
	first := s.send(t, keyed(1))
	wantFirst := func() {
		t.Helper()
		wantReplay(t, s.send(t, keyed(1)), first)
	}

	s.configure(t, options{global: "cache off\n\t\tencryption_key " + next + " " + old})
	s.reload(t)
	wantFirst()
	second := s.send(t, keyed(2))

	s.configure(t, options{global: "cache off\n\t\tencryption_key " + next})
	out, err := s.tryReload()
	if err == nil || !strings.Contains(out, "it is encrypted with key ") || !strings.Contains(out, "1 record needs it") {
		t.Errorf("a key in use was taken away: %v, %s", err, out)
	}
	wantFirst()
	wantReplay(t, s.send(t, keyed(2)), second)

	s.stop(t)
	if out := s.failToStart(t); !strings.Contains(out, "opening store "+filepath.Join(s.dir, "store")+": it is encrypted with key ") {
		t.Errorf("without the key it says: %s", out)
	}
	s.configure(t, options{global: "cache off"})
	if out := s.failToStart(t); !strings.Contains(out, "(1 record needs it") {
		t.Errorf("without any key it says: %s", out)
	}
	s.configure(t, options{global: "cache off\n\t\tencryption_key " + next + " " + old})
	s.start(t)
	wantFirst()
	wantReplay(t, s.send(t, keyed(2)), second)
	p.wantEffects(t, 2)
	for _, key := range []string{encryptionKey(1), encryptionKey(2)} {
		if strings.Contains(s.log(t), key) {
			t.Error("the log has a key")
		}
	}
}

func TestEncryptionAKeyIsAddedToAPlainStore(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "cache off"})
	first := s.send(t, keyed(1))
	s.configure(t, options{global: "cache off\n\t\tencryption_key " + keyFile(t, 1)})
	s.reload(t)
	wantReplay(t, s.send(t, keyed(1)), first)
	second := s.send(t, keyed(2))
	s.stop(t)
	s.start(t)
	wantReplay(t, s.send(t, keyed(1)), first)
	wantReplay(t, s.send(t, keyed(2)), second)
	p.wantEffects(t, 2)
}

// A reload that fails after it has changed the key leaves what can be read.
func TestEncryptionARejectedReloadKeepsTheKeys(t *testing.T) {
	old := keyFile(t, 1)
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "cache off\n\t\tencryption_key " + old})
	first := s.send(t, keyed(1))
	good, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.Replace(string(good), old, keyFile(t, 2)+" "+old, 1) +
		"http://" + strings.TrimPrefix(p.url, "http://") + " {\n\tbind 127.0.0.1\n\trespond ok\n}\n"
	if err := os.WriteFile(s.config(), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.tryReload(); err == nil {
		t.Fatalf("the reload was accepted: %s", out)
	}
	wantReplay(t, s.send(t, keyed(1)), first)
	second := s.send(t, keyed(2))
	if err := os.WriteFile(s.config(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.reload(t)
	s.stop(t)
	s.start(t)
	wantReplay(t, s.send(t, keyed(1)), first)
	wantReplay(t, s.send(t, keyed(2)), second)
}

func TestEncryptionAWrongKeyOnRedisRefusesCallsUntilItIsMended(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	config := func(keys string) options {
		return options{global: "cache off\n\t\tencryption_key " + keys + "\n\t\tstore redis " + r.URL()}
	}
	old, next := keyFile(t, 1), keyFile(t, 2)
	a := newSidecar(t, p, config(old))
	first := a.send(t, keyed(1))
	b := newSidecar(t, p, config(next))
	got := b.send(t, keyed(1))
	if got.status != http.StatusServiceUnavailable || !strings.Contains(got.body, "store-unavailable") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if log := b.log(t); !strings.Contains(log, "it is encrypted with key ") || !strings.Contains(log, "add that key to encryption_key") {
		t.Errorf("the log does not say why: %s", log)
	}
	b.configure(t, config(next+" "+old))
	b.reload(t)
	waitFor(t, func() bool { return b.send(t, keyed(1)).status == first.status })
	wantReplay(t, b.send(t, keyed(1)), first)
	p.wantEffects(t, 1)
}
