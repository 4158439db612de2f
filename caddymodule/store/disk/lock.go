package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// lock is the right to use a file's directory.
type lock struct {
	io.Closer
	name string
	file fs.FileInfo // as it was when it was locked; nil where the system does not know it
}

// takeLock takes the lock of dir.
func takeLock(dir string, fsys vfs.FS) (*lock, error) {
	name := filepath.Join(dir, lockName)
	held, err := fsys.Lock(name)
	var (
		pathError *fs.PathError
		errno     syscall.Errno
	)
	switch {
	case err == nil:
		if err := chmod(name, filePerm); err != nil {
			return nil, errors.Join(err, held.Close())
		}
		file, _ := os.Stat(name)
		return &lock{held, name, file}, nil
	case errors.As(err, &pathError):
		return nil, err
	case !errors.As(err, &errno):
		return nil, fmt.Errorf("%w by this process: it is open already", ErrLocked)
	case errno == syscall.EAGAIN || errno == syscall.EACCES:
		return nil, fmt.Errorf("%w by another process%s; if that is this sidecar already running, use 'caddy reload' "+
			"to change its configuration, and stop it before 'caddy run' or 'caddy validate'", ErrLocked, holder(name))
	default:
		return nil, fmt.Errorf("locking %s: %w", name, err)
	}
}

// renew makes sure that the lock is that of the directory as it is now: another
// may have been mounted or moved into its place, which is not ours until we have
// locked it, too.
func (l *lock) renew(fsys vfs.FS) error {
	if l.file == nil {
		return nil
	}
	if l.Closer != nil {
		now, err := os.Stat(l.name)
		switch {
		case err == nil && os.SameFile(l.file, now):
			return nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return err
		}
		err = l.Closer.Close()
		l.Closer = nil
		if err != nil {
			return err
		}
	}
	next, err := takeLock(filepath.Dir(l.name), fsys)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("it is gone: %w; put it back, or start the sidecar again with an empty store, which forgets every answer", err)
	case err != nil:
		return fmt.Errorf("another directory has taken its place: %w", err)
	}
	*l = *next
	return nil
}

// Close gives the lock up.
func (l *lock) Close() error {
	if l.Closer == nil {
		return nil
	}
	return l.Closer.Close()
}
