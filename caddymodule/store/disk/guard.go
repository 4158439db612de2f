package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Permissions of what is in the directory, and of the directory.
const (
	filePerm fs.FileMode = 0o600
	dirPerm  fs.FileMode = 0o700
)

// guard remembers the first failed write of a store.
//
// Pebble does not survive a failed write: it calls Logger.Fatalf, and where
// that returns it reports success to some callers, panics in others with the
// commit lock held, and leaves the rest waiting forever. So Pebble is never
// told. The first failure freezes the file system: from then on every change
// is dropped and reported as done, Pebble goes on without harm to anything,
// and the store asks the guard before it believes a word of it.
type guard struct {
	once   sync.Once
	err    error         // set before failed is closed
	failed chan struct{} // closed by the first failure
}

func newGuard() *guard { return &guard{failed: make(chan struct{})} }

// fail freezes the file system because of err, unless it is frozen already.
func (g *guard) fail(err error) {
	g.once.Do(func() {
		g.err = err
		close(g.failed)
	})
}

// failure returns what froze the file system, or nil.
func (g *guard) failure() error {
	select {
	case <-g.failed:
		return g.err
	default:
		return nil
	}
}

// try makes a change of the file system, unless it is frozen. It returns nil
// whatever comes of it: that is what Pebble is to hear.
func (g *guard) try(change func() error) error {
	if g.failure() != nil {
		return nil
	}
	if err := change(); err != nil {
		g.fail(err)
	}
	return nil
}

// guardedFS is the file system that Pebble sees: files are their owner's alone,
// the seal learns of manifests and logs, and writing never fails.
type guardedFS struct {
	vfs.FS
	guard *guard
	seal  *seal

	locked  bool         // the store has the database's lock already
	opening *opening     // nil: the database is new
	logs    *retiredLogs // nil: there are none
}

var _ vfs.FS = (*guardedFS)(nil)

// opening notes which tables are made while a database is opened. If it cannot
// be opened, they are removed again: on a disk that is almost full, attempt after
// attempt would else eat up what room somebody makes. Nothing refers to them
// before a marker is moved to a new manifest.
type opening struct {
	mu     sync.Mutex
	over   bool     // guarded by mu
	marked bool     // guarded by mu; a marker may have been moved
	tables []string // guarded by mu
}

// creating notes that the file name is about to be made.
func (o *opening) creating(name string) {
	if o == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch base := filepath.Base(name); {
	case o.over:
	case strings.HasPrefix(base, "marker."):
		o.marked = true
	case filepath.Ext(base) == ".sst":
		o.tables = append(o.tables, name)
	}
}

// undo removes what was made in vain. The database must be closed.
func (o *opening) undo(fsys vfs.FS) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.marked {
		return
	}
	for _, name := range o.tables {
		_ = fsys.Remove(name) // one too many does no harm
	}
}

// end ends the noting.
func (o *opening) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over, o.tables = true, nil
}

// open makes a file for writing. Pebble leaves permissions to the umask.
func (f *guardedFS) open(name string, open func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	_ = f.guard.try(func() error {
		f.opening.creating(name)
		opened, err := open()
		if err != nil {
			return err
		}
		if err := chmod(name, filePerm); err != nil {
			return errors.Join(err, opened.Close())
		}
		if err := f.seal.created(name); err != nil {
			return errors.Join(err, opened.Close())
		}
		file = opened
		return nil
	})
	if file == nil {
		file = sink{name: name}
	}
	guarded := &guardedFile{File: file, guard: f.guard, seal: f.seal, name: name}
	if isLog(filepath.Base(name)) {
		guarded.zeros = newZeros(file)
	}
	return guarded, nil
}

func (f *guardedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *guardedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.open(name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, opts...) })
}

func (f *guardedFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.open(to, func() (vfs.File, error) {
		if err := f.seal.removing(from); err != nil {
			return nil, err
		}
		return f.logs.reuse(from,
			func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) },
			func() (vfs.File, error) {
				if err := f.FS.Remove(from); err != nil {
					return nil, err
				}
				return f.FS.Create(to, c)
			})
	})
}

func (f *guardedFS) OpenDir(name string) (vfs.File, error) {
	dir, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: dir, guard: f.guard, seal: f.seal, name: name}, nil
}

func (f *guardedFS) Link(from, to string) error {
	return f.guard.try(func() error { return f.FS.Link(from, to) })
}

func (f *guardedFS) Rename(from, to string) error {
	return f.guard.try(func() error {
		f.opening.creating(to)
		return f.FS.Rename(from, to)
	})
}

func (f *guardedFS) MkdirAll(dir string, _ os.FileMode) error {
	return f.guard.try(func() error { return f.FS.MkdirAll(dir, dirPerm) })
}

// Remove may fail: Pebble expects that of files that are gone already, and a
// file too many does no harm.
func (f *guardedFS) Remove(name string) error {
	if f.guard.failure() != nil {
		return nil
	}
	_ = f.guard.try(func() error { return f.seal.removing(name) })
	if f.guard.failure() != nil {
		return nil
	}
	return f.FS.Remove(name)
}

func (f *guardedFS) RemoveAll(name string) error {
	if f.guard.failure() != nil {
		return nil
	}
	return f.FS.RemoveAll(name)
}

func (f *guardedFS) Lock(name string) (io.Closer, error) {
	if f.locked {
		return io.NopCloser(nil), nil
	}
	lock, err := f.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	if err := chmod(name, filePerm); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

func (f *guardedFS) Unwrap() vfs.FS { return f.FS }

// guardedFile is a file of a guardedFS.
type guardedFile struct {
	vfs.File
	guard *guard
	seal  *seal
	name  string
	zeros *zeros // nil: it is no log
}

func (f *guardedFile) Write(p []byte) (int, error) {
	_ = f.guard.try(func() error {
		f.seal.writing(f.name, p)
		if f.zeros != nil {
			f.zeros.before(f.File, len(p))
		}
		_, err := f.File.Write(p)
		return err
	})
	return len(p), nil
}

func (f *guardedFile) WriteAt(p []byte, off int64) (int, error) {
	_ = f.guard.try(func() error {
		_, err := f.File.WriteAt(p, off)
		return err
	})
	return len(p), nil
}

func (f *guardedFile) Sync() error { return f.sync(f.File.Sync) }

func (f *guardedFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *guardedFile) sync(sync func() error) error {
	return f.guard.try(func() error {
		if err := sync(); err != nil {
			return err
		}
		return f.seal.synced(f.name)
	})
}

func (f *guardedFile) SyncTo(length int64) (full bool, err error) {
	_ = f.guard.try(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, nil
}

// Preallocate is no more than a hint: a disk that is full will say so again
// when it is written to.
func (f *guardedFile) Preallocate(offset, length int64) error {
	if f.guard.failure() == nil {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

func (f *guardedFile) Close() error {
	if err := f.File.Close(); err != nil {
		f.guard.fail(err)
	}
	return nil
}

// sink stands for a file that was to be made when the file system was frozen.
type sink struct{ name string }

var _ vfs.File = sink{}

func (sink) Close() error                           { return nil }
func (sink) Read([]byte) (int, error)               { return 0, io.EOF }
func (sink) ReadAt([]byte, int64) (int, error)      { return 0, io.EOF }
func (sink) Write(p []byte) (int, error)            { return len(p), nil }
func (sink) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (sink) Preallocate(int64, int64) error         { return nil }
func (s sink) Stat() (vfs.FileInfo, error)          { return sinkInfo(s), nil }
func (sink) Sync() error                            { return nil }
func (sink) SyncTo(int64) (bool, error)             { return false, nil }
func (sink) SyncData() error                        { return nil }
func (sink) Prefetch(int64, int64) error            { return nil }
func (sink) Fd() uintptr                            { return vfs.InvalidFd }

type sinkInfo sink

func (i sinkInfo) Name() string         { return filepath.Base(i.name) }
func (sinkInfo) Size() int64            { return 0 }
func (sinkInfo) Mode() fs.FileMode      { return filePerm }
func (sinkInfo) ModTime() time.Time     { return time.Time{} }
func (sinkInfo) IsDir() bool            { return false }
func (sinkInfo) Sys() any               { return nil }
func (sinkInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
