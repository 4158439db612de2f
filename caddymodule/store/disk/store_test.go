package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/storetest"
)

func TestConformance(t *testing.T) {
	dirs := make(map[*testing.T]string)
	open := func(t *testing.T, now func() time.Time) idempotency.Store {
		if dirs[t] == "" {
			dirs[t] = t.TempDir()
		}
		s, err := Open(dirs[t], Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return checkedStore{s, t}
	}
	storetest.Run(t, storetest.Harness{Open: open, Reopen: open})
	t.Run("backlog", func(t *testing.T) { storetest.RunBacklog(t, storetest.Harness{Open: open, Reopen: open}) })
}

var (
	ctx     = context.Background()
	process = idempotency.NewProcess()
)

func claim(name string) *idempotency.Record {
	return &idempotency.Record{
		ID:      idempotency.NewID("", "", name),
		State:   idempotency.Started,
		Owner:   process.NewOwner(),
		Key:     name,
		Started: time.Now(),
		Expires: time.Now().Add(time.Hour),
	}
}

// answered returns rec as done, with a body that tells the key.
func answered(rec *idempotency.Record) *idempotency.Record {
	d := *rec
	d.State = idempotency.Done
	d.Finished = time.Now()
	d.Answer = &idempotency.Answer{Status: 200, Body: bytes.Repeat([]byte(rec.Key), 100)}
	return &d
}

func mustOpen(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	s, err := Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Errorf("closing: %v", err)
		}
	})
	return s
}

func mustClaim(t testing.TB, s *Store, rec *idempotency.Record) {
	t.Helper()
	if standing, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil || standing != nil {
		t.Fatalf("claiming %s: %v, %v", rec.Key, standing, err)
	}
}

// fill claims and finishes records, enough of them for tables and logs both if
// n is in the thousands. It returns their names.
func fill(t testing.TB, s *Store, n int) (names []string) {
	t.Helper()
	for i := range n {
		rec := claim(fmt.Sprint("name ", i))
		mustClaim(t, s, rec)
		if err := s.Finish(ctx, answered(rec)); err != nil {
			t.Fatal(err)
		}
		names = append(names, rec.Key)
	}
	return names
}

// missing returns how many of names have no finished record.
func missing(s *Store, names []string) (n int, err error) {
	for _, name := range names {
		rec, err := s.Get(ctx, claim(name).ID)
		if err != nil {
			return n, err
		}
		if rec == nil || rec.State != idempotency.Done || rec.Answer == nil || len(rec.Answer.Body) != 100*len(name) {
			n++
		}
	}
	return n, nil
}

func TestEverythingIsTheOwnersAlone(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "a", "b")
	s := mustOpen(t, dir, Options{})
	fill(t, s, 10)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 0)
	files := 0
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Pebble has just removed it
		}
		if err != nil {
			return err
		}
		want := filePerm
		if e.IsDir() {
			want = dirPerm
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has the permissions %o, want %o", path, got, want)
		}
		files++
		return nil
	})
	if err != nil || files < 8 {
		t.Errorf("%d files were looked at, %v", files, err)
	}
}

func TestADirectoryThatIsOpenToOthersIsClosed(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, dir, Options{})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != dirPerm {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
}

func TestMethodsFailAfterClose(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	rec := claim("a")
	mustClaim(t, s, rec)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantEveryMethod(t, s, rec, ErrClosed)
	if err := s.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("closing again: %v", err)
	}
}

// wantEveryMethod fails the test unless every method fails with want.
func wantEveryMethod(t *testing.T, s *Store, rec *idempotency.Record, want error) {
	t.Helper()
	_, getErr := s.Get(ctx, rec.ID)
	_, claimErr := s.Claim(ctx, claim("another"), idempotency.Owner{})
	_, listErr := s.Unsettled(ctx, idempotency.AdoptionID{1})
	_, enqueueErr := s.Enqueue(ctx, queued("another"), idempotency.Owner{}, idempotency.Bounds{})
	_, _, partsErr := s.Parts(ctx)
	_, ticketsErr := s.Tickets(ctx, onlyPart, "", 1)
	_, depthErr := s.Depth(ctx)
	for method, err := range map[string]error{
		"Get":       getErr,
		"Claim":     claimErr,
		"Finish":    s.Finish(ctx, rec),
		"Release":   s.Release(ctx, rec.ID, rec.Owner),
		"Unsettled": listErr,
		"Settle":    s.Settle(ctx, rec.ID, rec.Owner),
		"Tell":      s.Tell(ctx, rec.ID, rec.Owner, time.Now()),
		"Purge":     s.Purge(ctx),
		"Enqueue":   enqueueErr,
		"Parts":     partsErr,
		"Tickets":   ticketsErr,
		"Dequeue":   s.Dequeue(ctx, store.NumberPlace(1)),
		"Depth":     depthErr,
	} {
		if !errors.Is(err, want) {
			t.Errorf("%s: got the error %v, want %q", method, err, want)
		}
	}
}
