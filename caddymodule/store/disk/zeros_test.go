package disk

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// lengthFS counts what is written to logs, and how much of that makes them longer.
type lengthFS struct {
	vfs.FS
	logs, writes, longer atomic.Int64
}

func (f *lengthFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.counted(name, file), err
}

func (f *lengthFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(from, to, c)
	return f.counted(to, file), err
}

func (f *lengthFS) counted(name string, file vfs.File) vfs.File {
	if filepath.Ext(name) != ".log" || file == nil {
		return file
	}
	f.logs.Add(1)
	return &lengthFile{File: file, fs: f}
}

type lengthFile struct {
	vfs.File
	fs *lengthFS
	at int64
}

func (f *lengthFile) Write(p []byte) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	f.at += int64(len(p))
	f.fs.writes.Add(1)
	if f.at > info.Size() {
		f.fs.longer.Add(1)
	}
	return f.File.Write(p)
}

func TestALogIsWrittenOverWhatIsThere(t *testing.T) {
	disk := &lengthFS{FS: vfs.Default}
	s, err := open(t.TempDir(), Options{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := 0; disk.logs.Load() < 8; i++ { // some of which Pebble takes up again
		rec := claim(fmt.Sprint(i))
		mustClaim(t, s, rec)
		end := answered(rec)
		end.Answer.Body = make([]byte, 64<<10)
		if err := s.Finish(ctx, end); err != nil {
			t.Fatal(err)
		}
	}
	if n := disk.longer.Load(); n > 0 {
		t.Errorf("%d of %d writes made a log longer", n, disk.writes.Load())
	}
}

func TestALogThatCannotBeFilledWithZerosServesAllTheSame(t *testing.T) {
	var failed atomic.Int64
	disk := errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpFileWriteAt || filepath.Ext(op.Path) != ".log" {
			return nil
		}
		failed.Add(1)
		return syscall.ENOSPC
	}))
	dir := t.TempDir()
	s, err := open(dir, Options{}, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rec := claim("a")
	mustClaim(t, s, rec)
	if err := s.Finish(ctx, answered(rec)); err != nil {
		t.Fatal(err)
	}
	if failed.Load() == 0 {
		t.Error("nothing was to be filled")
	}
	crashed := mustOpen(t, copyDir(t, dir), Options{})
	if gone, err := missing(crashed, []string{"a"}); gone > 0 || err != nil {
		t.Errorf("the record is gone, %v", err)
	}
}
