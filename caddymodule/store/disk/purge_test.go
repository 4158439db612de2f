package disk

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// secret is found in bodies as secretBody makes them, however they are compressed.
var secret = []byte("\xfesecret\xff")

// secretBody returns a body that does not compress, with the secret all over it.
func secretBody() []byte {
	body := make([]byte, 4096)
	_, _ = rand.Read(body)
	for at := 0; at < len(body); at += 512 {
		copy(body[at:], secret)
	}
	return body
}

// secretIn returns how many files of a store's directory with that extension, or
// with any where it is empty, have the secret in them.
func secretIn(t *testing.T, dir, ext string) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() || ext != "" && filepath.Ext(path) != ext {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // Pebble has just removed it
		}
		if bytes.Contains(data, secret) {
			files++
			if ext == "" {
				t.Logf("it is in %s, of %d bytes, at %d", path, len(data), bytes.Index(data, secret))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// tellSecrets finishes records with a secret, which then are at the bottom, in a
// memtable, and in logs, of which some wait to be written over.
func tellSecrets(t *testing.T, s *Store) (recs []*idempotency.Record) {
	t.Helper()
	for round := range 6 {
		for i := range 20 - 3*round { // so that the ends of logs that were written over stay
			rec := claim(fmt.Sprintf("secret %d-%d", round, i))
			mustClaim(t, s, rec)
			d := answered(rec)
			d.Answer.Body = secretBody()
			if err := s.Finish(ctx, d); err != nil {
				t.Fatal(err)
			}
			recs = append(recs, d)
		}
		if round == 5 {
			break // these are in a memtable
		}
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
		if round == 4 { // what is at the bottom, Pebble leaves alone for long
			if err := s.db.Compact(ctx, []byte{0}, []byte{0xff}, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if logs, tables := secretIn(t, s.dir, ".log"), secretIn(t, s.dir, ".sst"); logs < 2 || tables < 1 {
		t.Fatalf("the secret is in %d logs and %d tables only", logs, tables)
	}
	return recs
}

// erase erases the answers of recs, of each second one only if that is to be, and
// removes the others.
func erase(t *testing.T, s *Store, recs []*idempotency.Record, everySecond bool) {
	t.Helper()
	for i, rec := range recs {
		var err error
		if i%2 == 0 || !everySecond {
			erased := *rec
			erased.Answer = nil
			err = s.Finish(ctx, &erased)
		} else {
			err = s.Release(ctx, rec.ID, rec.Owner)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestNothingOfWhatWasErasedIsInAnyFileAfterAPurge(t *testing.T) {
	// Pebble compacts by itself where many records were removed.
	for name, removed := range map[string]bool{"answers": false, "answers and records": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir, Options{SweepInterval: -1})
			kept := fill(t, s, 100)
			recs := tellSecrets(t, s)
			erase(t, s, recs, removed)
			if secretIn(t, dir, ".log") == 0 || secretIn(t, dir, ".sst") == 0 {
				t.Error("it is gone without a purge, which this test says nothing of")
			}
			if err := s.Purge(ctx); err != nil {
				t.Fatal(err)
			}
			if secretIn(t, dir, "") > 0 {
				t.Error("it is still there")
			}
			check := func() {
				t.Helper()
				if n, err := missing(s, kept); n > 0 || err != nil {
					t.Errorf("%d records that were to be kept are gone, %v", n, err)
				}
				for i, rec := range recs {
					got, err := s.Get(ctx, rec.ID)
					if err != nil || (got == nil) != (removed && i%2 == 1) || got != nil && (got.State != idempotency.Done || got.Answer != nil) {
						t.Fatalf("got %+v, %v", got, err)
					}
				}
				wantIndexes(t, s)
			}
			check()
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = mustOpen(t, dir, Options{SweepInterval: -1})
			check()
			if secretIn(t, dir, "") > 0 {
				t.Error("it is there again")
			}
			if err := s.Purge(ctx); err != nil {
				t.Errorf("purging again: %v", err)
			}
		})
	}
}

func TestCallsGoOnDuringAPurge(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{SweepInterval: -1})
	erase(t, s, tellSecrets(t, s), true)
	var (
		wg    sync.WaitGroup
		stop  atomic.Bool
		calls [4][]string
	)
	for w := range calls {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				rec := claim(fmt.Sprint("call ", w, "-", i))
				standing, err := s.Claim(ctx, rec, idempotency.Owner{})
				if err == nil {
					err = s.Finish(ctx, answered(rec))
				}
				if standing != nil || err != nil {
					t.Errorf("a call failed: %v, %v", standing, err)
					return
				}
				calls[w] = append(calls[w], rec.Key)
			}
		})
	}
	for range 2 { // at a time
		wg.Go(func() {
			if err := s.Purge(ctx); err != nil {
				t.Error(err)
			}
			if secretIn(t, dir, "") > 0 {
				t.Error("it is still there")
			}
			stop.Store(true)
		})
	}
	wg.Wait()
	for _, names := range calls {
		if n, err := missing(s, names); n > 0 || err != nil || len(names) == 0 {
			t.Errorf("%d of %d calls are gone, %v", n, len(names), err)
		}
	}
}

// A purge that a failure does not end would keep the store from coming back.
func TestAPurgeEndsWhereTheDiskFails(t *testing.T) {
	for name, d := range disturbances {
		t.Run(name, func(t *testing.T) {
			toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(d.fails)}
			s, err := open(t.TempDir(), Options{SweepInterval: -1, reopenDelay: time.Millisecond}, errorfs.Wrap(vfs.Default, toggle))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			recs := tellSecrets(t, s)
			erase(t, s, recs, true)
			toggle.On()
			err = s.Purge(ctx)
			toggle.Off()
			if err == nil {
				t.Error("a purge that had to write to that disk says that it has succeeded")
			}
			eventually(t, "the store to serve again", func() bool { return serves(s) })
			if err := s.Purge(ctx); err != nil {
				t.Errorf("purging again: %v", err)
			}
			if secretIn(t, s.dir, "") > 0 {
				t.Error("it is still there")
			}
		})
	}
}

func TestAPurgeEndsWithItsContextAndWithTheStore(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	fill(t, s, 10)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Purge(cancelled); !errors.Is(err, context.Canceled) {
		t.Errorf("got the error %v, want %q", err, context.Canceled)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Purge(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("got the error %v, want %q", err, ErrClosed)
	}
}

// slowRemoveFS is long about removing tables, which Pebble does in the background.
type slowRemoveFS struct{ vfs.FS }

func (f slowRemoveFS) Remove(name string) error {
	if filepath.Ext(name) == ".sst" {
		time.Sleep(20 * time.Millisecond)
	}
	return f.FS.Remove(name)
}

func TestAPurgeWaitsForTablesToBeRemoved(t *testing.T) {
	s, err := open(t.TempDir(), Options{SweepInterval: -1}, slowRemoveFS{vfs.Default})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	erase(t, s, tellSecrets(t, s), true)
	if err := s.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	if secretIn(t, s.dir, "") > 0 {
		t.Error("it is still there")
	}
}
