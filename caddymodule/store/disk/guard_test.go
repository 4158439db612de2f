package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// faultFS is a file system whose writes to files with the extension ext fail
// once broken is set: with ENOSPC, or with EIO when they are synced.
type faultFS struct {
	vfs.FS
	ext    string
	broken atomic.Bool
	syncs  atomic.Int64 // of logs
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.breaks(name) {
		return nil, syscall.ENOSPC
	}
	file, err := f.FS.Create(name, c)
	return &faultFile{file, f, name}, err
}

func (f *faultFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if f.breaks(to) {
		return nil, syscall.ENOSPC
	}
	file, err := f.FS.ReuseForWrite(from, to, c)
	return &faultFile{file, f, to}, err
}

func (f *faultFS) breaks(name string) bool {
	return f.broken.Load() && filepath.Ext(name) == f.ext
}

type faultFile struct {
	vfs.File
	fs   *faultFS
	name string
}

func (f *faultFile) Write(p []byte) (int, error) {
	if f.fs.breaks(f.name) {
		return 0, syscall.ENOSPC
	}
	return f.File.Write(p)
}

func (f *faultFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *faultFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *faultFile) sync(sync func() error) error {
	if f.fs.breaks(f.name) {
		return syscall.EIO
	}
	if filepath.Ext(f.name) == ".log" {
		f.fs.syncs.Add(1)
	}
	return sync()
}

// TestAFailingDiskFailsTheStore breaks the disk under many writers. All of them
// get errors, none hangs, and what was acknowledged before is there afterwards.
func TestAFailingDiskFailsTheStore(t *testing.T) {
	for _, ext := range []string{".log", ".sst"} {
		t.Run(ext, func(t *testing.T) {
			dir := t.TempDir()
			disk := &faultFS{FS: vfs.Default, ext: ext}
			s, err := open(dir, Options{}, disk)
			if err != nil {
				t.Fatal(err)
			}
			rec := claim("before")
			mustClaim(t, s, rec)

			var (
				wg           sync.WaitGroup
				mu           sync.Mutex
				acknowledged []string
			)
			for w := range 32 {
				wg.Go(func() {
					for i := 0; ; i++ {
						rec := claim(fmt.Sprint(w, "-", i))
						_, err := s.Claim(ctx, rec, idempotency.Owner{})
						if err == nil {
							err = s.Finish(ctx, answered(rec))
						}
						if err != nil {
							if !errors.Is(err, ErrFailed) {
								t.Errorf("got %v, want %q", err, ErrFailed)
							}
							return
						}
						mu.Lock()
						acknowledged = append(acknowledged, rec.Key)
						if len(acknowledged) == 200 {
							disk.broken.Store(true)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			wantEveryMethod(t, s, rec, ErrFailed)
			if err := s.Close(); !errors.Is(err, ErrFailed) {
				t.Errorf("closing: %v", err)
			}

			s = mustOpen(t, dir, Options{})
			if n, err := missing(s, acknowledged); n > 0 || err != nil {
				t.Errorf("of %d records %d are gone, %v", len(acknowledged), n, err)
			}
		})
	}
}

func TestAFailingDiskFailsOpen(t *testing.T) {
	for _, ext := range []string{".log", ".sst", ""} {
		dir := t.TempDir()
		if err := mustOpen(t, dir, Options{}).Close(); err != nil {
			t.Fatal(err)
		}
		disk := &faultFS{FS: vfs.Default, ext: ext}
		disk.broken.Store(true)
		if s, err := open(dir, Options{}, disk); err == nil {
			// Nothing needs a table to be written.
			if ext != ".sst" {
				t.Errorf("%q: the store was opened", ext)
			}
			s.Close()
		} else if errors.Is(err, ErrDamaged) || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EIO) {
			t.Errorf("%q: got %v", ext, err)
		}
		mustOpen(t, dir, Options{})
	}
}

// TestFatalIsNotFatal calls what Pebble calls where it gives up.
func TestFatalIsNotFatal(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{})
	rec := claim("a")
	mustClaim(t, s, rec)
	pebbleLogger{s.logger, s.guard}.Fatalf("giving up: %d", 42)
	wantEveryMethod(t, s, rec, ErrFailed)
	if err := s.Close(); !errors.Is(err, ErrFailed) {
		t.Errorf("closing: %v", err)
	}
}
