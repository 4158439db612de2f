package redis_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// patience is how long is waited for what has to happen.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// serves tells whether the store answers.
func serves(s *redis.Store) bool {
	_, err := s.Get(context.Background(), idempotency.ID{})
	return err == nil
}

func started(name string) *idempotency.Record {
	now := time.Now()
	return &idempotency.Record{
		ID:          idempotency.NewID("org", "scope", name),
		State:       idempotency.Started,
		Owner:       idempotency.NewProcess().NewOwner(),
		Fingerprint: idempotency.Request{Path: "/" + name}.Fingerprint(),
		Key:         name,
		Started:     now,
		Expires:     now.Add(time.Hour),
	}
}

func done(rec *idempotency.Record, size int) *idempotency.Record {
	d := *rec
	d.State = idempotency.Done
	d.Finished = time.Now()
	d.Answer = &idempotency.Answer{Status: http.StatusOK, Body: bytes.Repeat([]byte("x"), size)}
	return &d
}

// claim claims rec, and returns whether that was made, and the error.
func claim(s *redis.Store, rec *idempotency.Record) (bool, error) {
	standing, err := s.Claim(context.Background(), rec, idempotency.Owner{})
	return standing == nil && err == nil, err
}

func mustClaim(t *testing.T, s *redis.Store, rec *idempotency.Record) {
	t.Helper()
	if made, err := claim(s, rec); !made || err != nil {
		t.Fatalf("claiming: %v, %v", made, err)
	}
}

// wantState fails the test unless the record is in state; zero: it is not there.
// Right after an outage, the store may be gone again for a moment.
func wantState(t *testing.T, s *redis.Store, id idempotency.ID, state idempotency.State) {
	t.Helper()
	var rec *idempotency.Record
	eventually(t, "getting the record", func() bool {
		var err error
		rec, err = s.Get(context.Background(), id)
		return err == nil
	})
	if rec == nil && state != 0 || rec != nil && rec.State != state {
		t.Errorf("the record is %v, want %v", rec, state)
	}
}

func opened(t *testing.T, o redis.Options) *redis.Store {
	t.Helper()
	s := open(t, o)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestWhatWasAcknowledgedIsThereAfterRedisWasKilled(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: safe})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	a, b := started("a"), started("b")
	mustClaim(t, s, a)
	mustClaim(t, s, b)
	if err := s.Finish(t.Context(), done(b, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "claims are refused", func() bool {
		made, err := claim(s, started("c"))
		return !made && errors.Is(err, idempotency.ErrNotMade)
	})
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store serves again", func() bool { return serves(s) })
	wantState(t, s, a.ID, idempotency.Started)
	wantState(t, s, b.ID, idempotency.Done)
	wantState(t, s, started("c").ID, 0)
}

func TestAStoreIsOpenedBeforeRedisIsThere(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	if made, err := claim(s, started("a")); made || !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("a claim without Redis: %v, %v", made, err)
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store serves", func() bool { return serves(s) })
	mustClaim(t, s, started("a"))
}

func TestARedisThatStandsStillIsGivenUpInTime(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), CommandTimeout: 200 * time.Millisecond})
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	rec := started("a")
	made, err := claim(s, rec)
	if made || err == nil {
		t.Fatal("a claim was made with Redis standing still")
	}
	if errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("it is not known whether the claim is made, but: %v", err)
	}
	eventually(t, "claims are refused at once", func() bool {
		_, err := claim(s, started("b"))
		return errors.Is(err, idempotency.ErrNotMade)
	})
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store serves again", func() bool { return serves(s) })
	if err := s.Release(t.Context(), rec.ID, rec.Owner); err != nil {
		t.Errorf("giving back the claim: %v", err)
	}
	wantState(t, s, rec.ID, 0)
}

// command returns a predicate for requests that have the text in them.
func command(text string) func([]byte) bool {
	return func(request []byte) bool { return bytes.Contains(request, []byte(text)) }
}

func TestALostReplyIsFoundOut(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Addr())
	s := opened(t, redis.Options{Endpoint: endpoint(t, proxy.URL())})

	// Only what is about the record has its ID's key in it.
	rec, other := started("a"), started("a")
	lose := func() <-chan struct{} {
		return proxy.LoseReply(func(request []byte) bool {
			return command("EVAL")(request) && command(":r:")(request)
		})
	}
	lost := lose()
	mustClaim(t, s, rec)
	<-lost
	standing, err := s.Claim(t.Context(), other, idempotency.Owner{})
	if err != nil || standing == nil || standing.Owner != rec.Owner {
		t.Fatalf("another claim: %v, %v", standing, err)
	}

	lost = lose()
	if err := s.Finish(t.Context(), done(rec, 10)); err != nil {
		t.Errorf("finishing: %v", err)
	}
	<-lost
	wantState(t, s, rec.ID, idempotency.Done)

	lost = lose()
	standing, err = s.Claim(t.Context(), other, idempotency.Owner{})
	if err != nil || standing == nil || standing.State != idempotency.Done {
		t.Errorf("claiming what is done: %v, %v", standing, err)
	}
	<-lost

	lost = lose()
	if err := s.Release(t.Context(), rec.ID, rec.Owner); err != nil {
		t.Errorf("releasing: %v", err)
	}
	<-lost
	wantState(t, s, rec.ID, 0)
}

func TestAFullRedisTakesNoClaimsButAnswers(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--maxmemory-policy", "noeviction"}})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	rec := started("a")
	rec.Adoption = idempotency.NewAdoptionID("org", "scope", rec.Fingerprint)
	mustClaim(t, s, rec)
	if _, err := server.Do("CONFIG", "SET", "maxmemory", "1mb"); err != nil {
		t.Fatal(err)
	}
	if made, err := claim(s, started("b")); made || !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("a claim: %v, %v", made, err)
	}
	if err := s.Finish(t.Context(), done(rec, 4000)); err != nil {
		t.Errorf("finishing: %v", err)
	}
	if err := s.Settle(t.Context(), rec.ID, rec.Owner); err != nil {
		t.Errorf("settling: %v", err)
	}
	wantState(t, s, rec.ID, idempotency.Done)
	if err := s.Release(t.Context(), rec.ID, rec.Owner); err != nil {
		t.Errorf("releasing: %v", err)
	}
	if _, err := server.Do("CONFIG", "SET", "maxmemory", "0"); err != nil {
		t.Fatal(err)
	}
	mustClaim(t, s, started("b"))
}

func TestAFullRedisIsNotFilledByWhatItRefuses(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--maxmemory", "1mb", "--maxmemory-policy", "noeviction"}})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	rec := started("a")
	rec.Adoption = idempotency.NewAdoptionID("org", "scope", rec.Fingerprint)
	if made, err := claim(s, rec); made || !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("a claim: %t, %v", made, err)
	}
	if n, err := server.Do("DBSIZE"); n != int64(0) || err != nil {
		t.Errorf("there are %v keys, %v", n, err)
	}
}

func TestAReadOnlyRedisTakesNoClaims(t *testing.T) {
	master := redistest.New(t, redistest.Options{})
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	s.Join(idempotency.NewProcess(), nothing)
	if err := server.Follow(master); err != nil {
		t.Fatal(err)
	}
	eventually(t, "claims are refused", func() bool {
		_, err := claim(s, started("a"))
		return errors.Is(err, idempotency.ErrNotMade)
	})
	if err := server.Promote(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "claims are made again", func() bool {
		made, _ := claim(s, started("b"))
		return made
	})
}

func TestScriptsThatRedisHasForgottenAreSentAgain(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	mustClaim(t, s, started("a"))
	if _, err := server.Do("SCRIPT", "FLUSH"); err != nil {
		t.Fatal(err)
	}
	mustClaim(t, s, started("b"))
}

func TestAPasswordIsReadAgain(t *testing.T) {
	server := redistest.New(t, redistest.Options{Args: []string{"--user", "app", "on", ">one", "~*", "&*", "+@all"}})
	var mu sync.Mutex
	password := "none"
	var log logBuffer
	s := opened(t, redis.Options{
		Endpoint: endpoint(t, server.URL()),
		Credentials: func() (string, string, error) {
			mu.Lock()
			defer mu.Unlock()
			return "app", password, nil
		},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if serves(s) {
		t.Fatal("the store serves with a wrong password")
	}
	if text := log.String(); !strings.Contains(text, "WRONGPASS") || strings.Contains(text, "none") {
		t.Errorf("the log says %s", text)
	}
	mu.Lock()
	password = "one"
	mu.Unlock()
	eventually(t, "the store serves", func() bool { return serves(s) })
	mustClaim(t, s, started("a"))
}

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
