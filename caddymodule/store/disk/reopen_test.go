package disk

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// lockedLog is a log that can be read while it is written to.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// wantLog fails the test unless the log has so many lines of a level.
func (l *lockedLog) wantLog(t *testing.T, level string, n int) {
	t.Helper()
	if got := strings.Count(l.String(), "level="+level); got != n {
		t.Errorf("%d lines of level %s, want %d, in\n%s", got, level, n, l)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

// serves tells whether the store reads and writes.
func serves(s *Store) bool {
	rec := claim("does it serve?")
	if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err != nil {
		return false
	}
	return s.Release(ctx, rec.ID, rec.Owner) == nil
}

// large returns rec as done with an answer so large that a few fill a table.
func large(rec *idempotency.Record) *idempotency.Record {
	d := answered(rec)
	d.Answer.Body = bytes.Repeat([]byte(rec.Key), 256<<10/len(rec.Key))
	return d
}

// writes is what became of changes that were made while a disk broke.
type writes struct {
	mu       sync.Mutex
	finished []*idempotency.Record // acknowledged
	claimed  []*idempotency.Record // acknowledged, with their outcomes refused
	refused  []*idempotency.Record // claims
	errs     []error
}

// until writes from several goroutines until each of them is refused.
func (w *writes) until(t *testing.T, s *Store) {
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := 0; i < 1000; i++ {
				rec := claim(fmt.Sprint("writer ", g, "-", i))
				_, err := s.Claim(ctx, rec, idempotency.Owner{})
				claimed := err == nil
				done := large(rec)
				if claimed {
					err = s.Finish(ctx, done)
				}
				w.mu.Lock()
				switch {
				case err == nil:
					w.finished = append(w.finished, done)
				case claimed:
					w.claimed = append(w.claimed, done)
				default:
					w.refused = append(w.refused, rec)
				}
				if err != nil {
					w.errs = append(w.errs, err)
				}
				w.mu.Unlock()
				if err != nil {
					return
				}
			}
			t.Error("the disk broke, and nobody noticed")
		})
	}
	all.Wait()
}

func wantDone(t *testing.T, s *Store, recs []*idempotency.Record) {
	t.Helper()
	for _, rec := range recs {
		got, err := s.Get(ctx, rec.ID)
		if err != nil || got == nil || got.State != idempotency.Done || !bytes.Equal(got.Answer.Body, rec.Answer.Body) {
			t.Errorf("%s is not as it was: %+v, %v", rec.Key, got, err)
		}
	}
}

// TestAStoreServesAgainOnceItsDiskDoes breaks the disk in each way, under writers,
// and mends it.
func TestAStoreServesAgainOnceItsDiskDoes(t *testing.T) {
	for name, broken := range disturbances {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(broken.fails)}
			var log lockedLog
			opts := Options{Logger: log.logger(), reopenDelay: 5 * time.Millisecond}
			s, err := open(dir, opts, errorfs.Wrap(vfs.Default, toggle))
			if err != nil {
				t.Fatal(err)
			}
			before := claim("before")
			before.Adoption = idempotency.AdoptionID{7}
			mustClaim(t, s, before)

			toggle.On()
			var w writes
			w.until(t, s)
			for _, err := range w.errs {
				if !errors.Is(err, ErrFailed) || !errors.Is(err, broken.err) || !strings.Contains(err.Error(), dir) ||
					!strings.Contains(err.Error(), adviceOn(broken.err)) {
					t.Errorf("got %q, want it to tell what failed, where, and what to do", err)
				}
			}
			wantEveryMethod(t, s, before, ErrFailed)
			if _, err := s.Claim(ctx, claim("refused"), idempotency.Owner{}); !errors.Is(err, idempotency.ErrNotMade) {
				t.Errorf("a claim that is refused: %v", err)
			}
			if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
				t.Errorf("another could open the directory: %v", err)
			}

			toggle.Off()
			eventually(t, "the store to serve again", func() bool { return serves(s) })
			log.wantLog(t, "ERROR", 1)
			log.wantLog(t, "INFO", 1)
			wantDone(t, s, w.finished)
			if unsettled, err := s.Unsettled(ctx, before.Adoption); err != nil || len(unsettled) != 1 {
				t.Errorf("unsettled: %v, %v", unsettled, err)
			}
			for _, rec := range w.claimed { // an outcome may have been recorded, and is recorded again
				if err := s.Finish(ctx, rec); err != nil {
					t.Errorf("recording the outcome of %s late: %v", rec.Key, err)
				}
			}
			for _, rec := range w.refused { // a claim may have been made
				if err := s.Release(ctx, rec.ID, rec.Owner); err != nil {
					t.Errorf("releasing %s, which was refused: %v", rec.Key, err)
				}
				mustClaim(t, s, claim(rec.Key))
			}
			if err := s.Finish(ctx, answered(before)); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir, Options{})
			wantDone(t, s, append(append(w.finished, w.claimed...), answered(before)))
		})
	}
}

func TestAFileThatCannotBeRemovedDoesNotFailTheStore(t *testing.T) {
	dir := t.TempDir()
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(disturbance{[]errorfs.OpKind{errorfs.OpRemove}, "*.log", syscall.EIO}.fails)}
	s, err := open(dir, Options{}, errorfs.Wrap(vfs.Default, toggle))
	if err != nil {
		t.Fatal(err)
	}
	names := fill(t, s, 100)
	toggle.On()
	for i := range 3 {
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		mustClaim(t, s, claim(fmt.Sprint("after ", i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := missing(mustOpen(t, dir, Options{}), names); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
}

// failedStore returns a store that has failed and tries to come back, and how to
// mend its disk.
func failedStore(t *testing.T, dir string, log *lockedLog) (s *Store, names []string, mend func()) {
	t.Helper()
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(disturbances["anything"].fails)}
	s, err := open(dir, Options{Logger: log.logger(), reopenDelay: 5 * time.Millisecond}, errorfs.Wrap(vfs.Default, toggle))
	if err != nil {
		t.Fatal(err)
	}
	names = fill(t, s, 10)
	toggle.On()
	if _, err := s.Claim(ctx, claim("too many"), idempotency.Owner{}); err == nil {
		t.Fatal("the disk did not break")
	}
	return s, names, toggle.Off
}

func TestAStoreThatIsBrokenAgainAndAgainServesInTheEnd(t *testing.T) {
	dir := t.TempDir()
	var log lockedLog
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(disturbances["anything"].fails)}
	s, err := open(dir, Options{Logger: log.logger(), reopenDelay: time.Millisecond}, errorfs.Wrap(vfs.Default, toggle))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 5 {
		rec := claim(fmt.Sprint("round ", i))
		mustClaim(t, s, rec)
		if err := s.Finish(ctx, answered(rec)); err != nil {
			t.Fatal(err)
		}
		names = append(names, rec.Key)
		toggle.On()
		eventually(t, "the store to fail", func() bool { return !serves(s) })
		toggle.Off()
		eventually(t, "the store to serve again", func() bool { return serves(s) })
		if n, err := missing(s, names); n > 0 || err != nil {
			t.Errorf("%d records are gone, %v", n, err)
		}
	}
	log.wantLog(t, "ERROR", 5)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsTheAttemptsToComeBack(t *testing.T) {
	dir := t.TempDir()
	s, names, mend := failedStore(t, dir, new(lockedLog))
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("closing: %v", err)
	}
	mend()
	if n, err := missing(mustOpen(t, dir, Options{}), names); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
}

// A store that has lost its directory while it was failed must not begin anew:
// it had answers.
func TestAStoreThatComesBackNeverBeginsWithAnEmptyOne(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"its database is removed": func(t *testing.T, dir string) {
			if err := os.Rename(filepath.Join(dir, dbName), dir+".away"); err != nil {
				t.Fatal(err)
			}
		},
		"its directory is replaced": func(t *testing.T, dir string) {
			if err := os.Rename(dir, dir+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"its seal is flipped": func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, dbName, sealName), flipped)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "store")
			var log lockedLog
			s, _, mend := failedStore(t, dir, &log)
			lose(t, dir)
			mend()
			eventually(t, "another reason to be told", func() bool { return strings.Count(log.String(), "level=ERROR") >= 2 })
			_, err := s.Get(ctx, claim("name 1").ID)
			if !errors.Is(err, ErrFailed) || strings.Contains(log.String(), "level=INFO") {
				t.Errorf("got %v, and the log\n%s", err, &log)
			}
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("closing: %v", err)
			}
		})
	}
}

// Another process may have got what was mounted into the directory's place. It
// has it before it is there, or the store would have it first.
func TestAStoreThatComesBackTellsThatAnotherHasItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	cmd, _ := startChild(t, "hold", dir+".other")
	var log lockedLog
	s, _, mend := failedStore(t, dir, &log)
	for _, move := range [][2]string{{dir, dir + ".away"}, {dir + ".other", dir}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	mend()
	eventually(t, "the lock to be noticed", func() bool {
		_, err := s.Get(ctx, claim("name 1").ID)
		return errors.Is(err, ErrLocked) && strings.Contains(err.Error(), fmt.Sprint("process ", cmd.Process.Pid))
	})
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("closing: %v", err)
	}
}

// Otherwise each attempt would eat up what room somebody makes.
func TestAnAttemptToOpenThatFailsLeavesNoTablesBehind(t *testing.T) {
	dir, _ := filledDir(t, true)
	tables := func() int {
		names, err := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	before := tables()
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(disturbances["syncing a table"].fails))
	for range 3 {
		if _, err := open(dir, Options{}, disk); !errors.Is(err, syscall.EIO) {
			t.Fatalf("got %v", err)
		}
	}
	if got := tables(); got != before {
		t.Errorf("there are %d tables, there were %d", got, before)
	}
	mustOpen(t, dir, Options{})
}

// What cannot be read is not absent, and reading does not fail the store.
func TestAReadErrorIsToldAndPasses(t *testing.T) {
	dir, names := filledDir(t, false)
	toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(disturbance{[]errorfs.OpKind{errorfs.OpFileReadAt, errorfs.OpFileRead}, "*.sst", syscall.EIO}.fails)}
	s, err := open(dir, Options{}, errorfs.Wrap(vfs.Default, toggle))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	toggle.On()
	_, err = missing(s, names)
	_, claimErr := s.Claim(ctx, claim(names[3]), idempotency.Owner{})
	for _, err := range []error{err, claimErr} {
		if !errors.Is(err, syscall.EIO) || errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), dir) ||
			!strings.Contains(err.Error(), advice[syscall.EIO]) {
			t.Errorf("got %v", err)
		}
	}
	if !errors.Is(claimErr, idempotency.ErrNotMade) {
		t.Errorf("got %v", claimErr)
	}
	toggle.Off()
	if n, err := missing(s, names); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
}

// Where a volume is not mounted any more, what was there before it may come to light.
func TestAStoreThatComesBackTakesNoOlderOneForItsOwn(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir+".before", os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	var log lockedLog
	s, _, mend := failedStore(t, dir, &log)
	for _, move := range [][2]string{{dir, dir + ".away"}, {dir + ".before", dir}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
	mend()
	eventually(t, "it to be refused", func() bool { return strings.Count(log.String(), "level=ERROR") >= 2 })
	if _, err := s.Get(ctx, claim("name 1").ID); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "one from before") {
		t.Errorf("got %v, and the log\n%s", err, &log)
	}
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("closing: %v", err)
	}
}
