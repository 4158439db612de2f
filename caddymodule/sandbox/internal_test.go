package sandbox

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOldAttemptsAreForgottenInOrder(t *testing.T) {
	l, err := openLedger("", nil)
	if err != nil {
		t.Fatal(err)
	}
	l.limit = 3
	for range 5 {
		l.arrive(&Attempt{})
	}
	_, attempts := l.list(Filter{})
	if len(attempts) != 3 || attempts[0].Number != 3 || attempts[2].Number != 5 {
		t.Errorf("attempts %+v, want numbers 3 to 5", attempts)
	}
	if sum := l.summary(); sum.Attempts != 5 || sum.ForgottenAttempts != 2 {
		t.Errorf("summary %+v, want 5 attempts, 2 of them forgotten", sum)
	}
}

func TestBrokenLedgerFileAcknowledgesNothing(t *testing.T) {
	s, err := New(Config{LedgerFile: filepath.Join(t.TempDir(), "ledger")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ledger.journal.file.Close(); err != nil {
		t.Fatal(err)
	}
	token := s.tokens.issue()
	for _, key := range []string{"a", "a"} {
		req := httptest.NewRequest("POST", "/api/v2/dataactions/actions/1/invoke", strings.NewReader(`{"input":{}}`))
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", key)
		res := httptest.NewRecorder()
		s.ServeHTTP(res, req)
		if res.Code != http.StatusInternalServerError || !strings.Contains(res.Body.String(), "ledger") {
			t.Errorf("answered %d %s", res.Code, res.Body)
		}
	}
	if err := s.Close(); err == nil {
		t.Error("closing says nothing of the lost lines")
	}
}

func TestExpiredKeysAreSwept(t *testing.T) {
	now := time.Now()
	k := newKeys(func() time.Time { return now })
	k.sweep = 2
	for _, key := range []string{"a", "b", "c"} {
		k.begin(key, "request")
		k.bind(key, remembered{Since: now.Add(-keyLife)})
	}
	if len(k.known) != 1 {
		t.Errorf("%d keys kept, want the newest alone", len(k.known))
	}
}
