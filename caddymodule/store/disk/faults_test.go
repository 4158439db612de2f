package disk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// failsAt returns a disk of which one operation fails, that with index n.
func failsAt(n int64) (disk vfs.FS, failed *atomic.Bool) {
	var done atomic.Int64
	failed = new(atomic.Bool)
	return errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(errorfs.Op) error {
		if done.Add(1)-1 != n {
			return nil
		}
		failed.Store(true)
		return syscall.EIO
	})), failed
}

// TestAnyOneFaultOfTheDiskLosesNothing has operations fail in turn that opening,
// using and closing a store come to, and some of those that making one does.
// Whatever had been acknowledged is there when the disk is well again; one fault
// is no damage.
func TestAnyOneFaultOfTheDiskLosesNothing(t *testing.T) {
	for name, before := range map[string][]string{"a new store": nil, "a store with records": {"a", "b"}} {
		step := int64(2)
		if before == nil {
			step = 9
		}
		t.Run(name, func(t *testing.T) {
			template := t.TempDir()
			if before != nil {
				s := mustOpen(t, template, Options{})
				for _, key := range before {
					rec := claim(key)
					mustClaim(t, s, rec)
					if err := s.Finish(ctx, answered(rec)); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			for n := int64(0); ; n += step {
				dir := copyDir(t, template)
				disk, failed := failsAt(n)
				acknowledged := append([]string(nil), before...)
				s, err := open(dir, Options{}, disk)
				if err == nil {
					for _, key := range []string{"c", "d"} {
						rec := claim(key)
						if _, err := s.Claim(ctx, rec, idempotency.Owner{}); err == nil && s.Finish(ctx, answered(rec)) == nil {
							acknowledged = append(acknowledged, key)
						}
					}
					s.Close()
				}
				if err != nil && (!failed.Load() || errors.Is(err, ErrDamaged)) {
					t.Errorf("with fault %d: %v", n, err)
				}

				well, err := Open(dir, Options{})
				if err != nil {
					t.Fatalf("after fault %d it cannot be opened any more: %v", n, err)
				}
				if gone, err := missing(well, acknowledged); gone > 0 || err != nil {
					t.Errorf("after fault %d, %d of %d records are gone, %v", n, gone, len(acknowledged), err)
				}
				wantIndexes(t, well)
				if err := well.Close(); err != nil {
					t.Error(err)
				}
				if !failed.Load() {
					if n < 20 {
						t.Errorf("all came to %d operations", n)
					}
					return
				}
			}
		})
	}
}

// lateLogFS makes no log until all others are gone, and keeps a copy of the
// directory as a crash would leave it then.
type lateLogFS struct {
	vfs.FS
	dir  string
	none chan struct{} // closed when the seal names no log
	copy func()
}

func (f *lateLogFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if filepath.Ext(name) == ".log" {
		<-f.none
	}
	return f.FS.Create(name, c)
}

func (f *lateLogFS) Remove(name string) error {
	err := f.FS.Remove(name)
	data, _ := os.ReadFile(filepath.Join(f.dir, dbName, sealName))
	if filepath.Ext(name) == ".log" && !strings.Contains(string(data), "\nlog ") {
		f.copy()
		close(f.none)
	}
	return err
}

// Pebble removes the logs that it has read while it makes the next one.
func TestACrashBetweenTheLastLogAndTheNextIsNoDamage(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	rec := claim("a")
	mustClaim(t, s, rec)
	if err := errors.Join(s.Finish(ctx, answered(rec)), s.Close()); err != nil {
		t.Fatal(err)
	}

	var crashed string
	disk := &lateLogFS{FS: vfs.Default, dir: dir, none: make(chan struct{}), copy: func() { crashed = copyDir(t, dir) }}
	s, err := open(dir, Options{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(crashed, dbName, "*.log")); len(left) != 0 || err != nil {
		t.Fatalf("the copy has the logs %q, %v", left, err)
	}
	if n, err := missing(mustOpen(t, crashed, Options{}), []string{"a"}); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
}

// TestNothingIsWrittenOnceTheDiskHasFailed: Pebble goes on for a while, and must
// neither notice nor make it worse.
func TestNothingIsWrittenOnceTheDiskHasFailed(t *testing.T) {
	dir := t.TempDir()
	name := func(base string) string { return filepath.Join(dir, base) }
	g := newGuard()
	fs := &guardedFS{FS: vfs.Default, guard: g, seal: newSeal(vfs.Default, dir)}
	kept, err := fs.Create(name("kept"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kept.Write([]byte("before")); err != nil {
		t.Fatal(err)
	}
	g.fail(errors.New("no space left"))

	made, err := fs.Create(name("made"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fs.OpenReadWrite(name("kept"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	reused, err := fs.ReuseForWrite(name("kept"), name("reused"), vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []vfs.File{kept, made, again, reused} {
		if n, err := f.Write([]byte("after")); n != 5 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
		if n, err := f.WriteAt([]byte("after"), 0); n != 5 || err != nil {
			t.Errorf("WriteAt = %d, %v", n, err)
		}
		_, err := f.SyncTo(5)
		if err := errors.Join(err, f.Preallocate(0, 1<<20), f.Close()); err != nil {
			t.Error(err)
		}
	}
	if info, err := made.Stat(); err != nil || info.Name() != "made" || info.Size() != 0 || info.IsDir() || info.Mode() != filePerm ||
		!info.ModTime().IsZero() || info.Sys() != nil || info.DeviceID() != (vfs.DeviceID{}) {
		t.Errorf("what was not made is %+v, %v", info, err)
	}
	if n, err := made.ReadAt(make([]byte, 1), 0); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt = %d, %v", n, err)
	}
	if n, err := made.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read = %d, %v", n, err)
	}
	_ = fs.Link(name("kept"), name("linked"))
	_ = fs.Rename(name("kept"), name("renamed"))
	_ = fs.MkdirAll(name("directory"), dirPerm)
	if err := errors.Join(fs.Remove(name("kept")), fs.RemoveAll(name("kept"))); err != nil {
		t.Error(err)
	}

	names, err := vfs.Default.List(dir)
	if err != nil || len(names) != 1 || names[0] != "kept" {
		t.Errorf("the directory has %q, %v", names, err)
	}
	if data, err := readFile(vfs.Default, name("kept"), -1); string(data) != "before" || err != nil {
		t.Errorf("the file has %q, %v", data, err)
	}
}
