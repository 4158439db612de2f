package sandbox_test

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestLedgerTellsEffectsAndAttempts(t *testing.T) {
	r := start(t, sandbox.Config{})
	id := r.post(executePath+"?flatten=false", `{"a":1}`, "Idempotency-Key", "k", "Sandbox-Call", "c").executionID()
	r.post(executePath, `{}`, "Sandbox-Fault", "503")
	var ledger sandbox.Ledger
	r.control("GET", "/ledger?key=k", "").decode(&ledger)
	if len(ledger.Effects) != 1 || len(ledger.Attempts) != 1 || ledger.Summary.Attempts != 2 {
		t.Fatalf("ledger %+v, want one of two attempts", ledger)
	}
	sum := sha256.Sum256([]byte(`{"a":1}`))
	e, a := ledger.Effects[0], ledger.Attempts[0]
	if e.ID != id || e.Action != "custom_-_1234" || e.Family != "integrations" || e.Operation != "execute" ||
		e.Path != executePath || e.Key != "k" || e.BodySHA256 != hex.EncodeToString(sum[:]) ||
		e.TokenDigest == "" || e.Started.IsZero() || e.Finished.Before(e.Started) || e.Attempt != a.Number {
		t.Errorf("effect %+v", e)
	}
	if a.Method != "POST" || a.Path != executePath+"?flatten=false" || a.Call != "c" || a.Status != 200 || a.Effect != id ||
		!a.Executed || a.Outcome != sandbox.OutcomeAnswered || a.RemotePort == "" || !a.TokenIssued || a.TokenDigest != e.TokenDigest {
		t.Errorf("attempt %+v", a)
	}
	if !slices.Contains(a.Headers, "Idempotency-Key") || !slices.Contains(a.Headers, "Authorization") {
		t.Errorf("headers %v", a.Headers)
	}
}

func TestLedgerHoldsNoSecrets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	r := start(t, sandbox.Config{LedgerFile: file})
	r.post(executePath, `{"pin":"4711-secret"}`, "Idempotency-Key", "k").wantStatus(200)
	r.post(executePath, `{}`, "Authorization", "Bearer stolen-token").wantStatus(401)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{r.token, "stolen-token", "4711-secret"} {
		if strings.Contains(r.control("GET", "/ledger", "").body+string(raw), secret) {
			t.Errorf("the ledger holds %q", secret)
		}
	}
	if r.lastAttempt().TokenIssued {
		t.Error("a stranger's token is called issued")
	}
}

func TestClearedLedgerStartsAnewAndKeepsKeys(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	r := start(t, sandbox.Config{LedgerFile: file})
	first := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID()
	var sum sandbox.Summary
	r.control("DELETE", "/ledger", "")
	r.control("GET", "/ledger/summary", "").decode(&sum)
	if sum.Effects != 0 || sum.Attempts != 0 || sum.TokensIssued != 0 || sum.TokenRequests != 0 {
		t.Errorf("summary %+v, want zeros", sum)
	}
	if got := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID(); got != first {
		t.Error("executed again after the ledger was cleared")
	}
	r.control("DELETE", "/sandbox/keys", "")
	second := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID()
	if second == first {
		t.Error("replayed a forgotten key")
	}
	_ = r.sandbox.Close()
	again := start(t, sandbox.Config{LedgerFile: file})
	if got := again.sandbox.Ledger(sandbox.Filter{}).Effects; len(got) != 1 || got[0].ID != second {
		t.Errorf("effects %+v after a restart, want %s alone", got, second)
	}
}

func TestLedgerFileSurvivesARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	const input = `{"input":{"html":"<&>", "n": 9007199254740993}}`
	r := start(t, sandbox.Config{LedgerFile: file})
	r.postBroken(invokePath, input, "Idempotency-Key", "k", "Sandbox-Fault", "execute-then-drop, large=10KiB")
	r.post(invokePath, input, "Idempotency-Key", "failed", "Sandbox-Fault", "fail")
	told := r.post(invokePath, input, "Idempotency-Key", "k").wantStatus(200)
	before := r.sandbox.Ledger(sandbox.Filter{}).Effects
	if err := r.sandbox.Close(); err != nil {
		t.Fatal(err)
	}

	r = start(t, sandbox.Config{LedgerFile: file})
	after := r.sandbox.Ledger(sandbox.Filter{}).Effects
	if len(after) != 1 || after[0].ID != before[0].ID || !after[0].Finished.Equal(before[0].Finished) {
		t.Fatalf("effects %+v, want %+v", after, before)
	}
	if again := r.post(invokePath, input, "Idempotency-Key", "k").wantStatus(200); again.body != told.body {
		t.Error("replayed another answer after the restart")
	}
	r.post(invokePath, input, "Idempotency-Key", "failed").wantCode(409, "idempotency.conflict")
	r.wantEffects(1)
	if r.lastAttempt().Number <= after[0].Attempt {
		t.Error("the attempts are numbered from the start again")
	}
}

func TestEffectIsOnDiskBeforeItsAnswer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	r := start(t, sandbox.Config{LedgerFile: file})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				res, err := r.send(r.request("POST", executePath, "{}"))
				if err != nil || res.status != 200 {
					t.Errorf("answered %d, %v", res.status, err)
					return
				}
				raw, err := os.ReadFile(file)
				if err != nil || !strings.Contains(string(raw), res.executionID()) {
					t.Errorf("%s is not in the file (%v)", res.executionID(), err)
				}
			}
		})
	}
	wg.Wait()
}

func TestUnfinishedLastLineIsCutOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	r := start(t, sandbox.Config{LedgerFile: file})
	r.post(executePath, "{}").wantStatus(200)
	_ = r.sandbox.Close()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(whole, `{"type":"effect","id":"to`...), 0o600); err != nil {
		t.Fatal(err)
	}
	r = start(t, sandbox.Config{LedgerFile: file})
	r.post(executePath, "{}").wantStatus(200)
	_ = r.sandbox.Close()
	r = start(t, sandbox.Config{LedgerFile: file})
	r.wantEffects(2)
}

func TestDamagedLedgerFileIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	if err := os.WriteFile(file, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sandbox.New(sandbox.Config{LedgerFile: file}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("error %v, want one that names the line", err)
	}
}

func TestLedgerFileIsReadableByItsOwnerAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	start(t, sandbox.Config{LedgerFile: file})
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLoadedKeysStillExpire(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ledger")
	c := newClock()
	r := start(t, sandbox.Config{LedgerFile: file, Now: c.now})
	first := r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID()
	_ = r.sandbox.Close()
	c.advance(25 * time.Hour)
	r = start(t, sandbox.Config{LedgerFile: file, Now: c.now})
	if r.post(invokePath, invokeBody, "Idempotency-Key", "k").executionID() == first {
		t.Error("replayed after 25 hours")
	}
}
