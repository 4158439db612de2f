package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/store"
)

// DefaultSweepInterval is how often expired records are removed. They count as
// absent before, so this bounds only how much room they take.
const DefaultSweepInterval = time.Minute

// Names within the directory.
const (
	lockName  = "LOCK"
	dbName    = "records"
	newDBName = "records.new"
)

// Options are the options of a Store. The zero value is ready for use.
type Options struct {
	// Logger is told what Pebble and the sweep do and what goes wrong in the
	// background, at debug and error level. nil: nobody is.
	Logger *slog.Logger

	// Now tells the time that records expire by. It must be safe for
	// concurrent use. nil: a clock of the store's own, which the wall clock's
	// being set does not disturb.
	Now func() time.Time

	// SweepInterval is how often expired records are removed. 0:
	// DefaultSweepInterval. Negative: never, for tests.
	SweepInterval time.Duration

	// Keyring encrypts records from now on; those that are there stay as they
	// are. Open refuses a store with records that need a key that it does not
	// have. nil: they are not encrypted.
	Keyring *store.Keyring

	// For tests.
	reopenDelay time.Duration
	machine     func() (wall time.Time, boot string, uptime time.Duration)
}

var (
	// ErrDamaged is what errors wrap that are due to a database that has lost
	// or changed something.
	ErrDamaged = errors.New("the database is damaged")

	// ErrLocked is what Open's errors wrap where the directory is in use.
	ErrLocked = errors.New("locked")

	// ErrFailed is what errors wrap once a write has failed, until the store has
	// opened its directory anew.
	ErrFailed = errors.New("the store has failed and refuses everything until it can be opened anew, which is tried by itself")

	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the store is closed")
)

// Open opens the store in dir, and makes it where dir is empty or does not
// exist. It refuses a directory that is in use, holds something else, or holds
// a damaged database.
func Open(dir string, opts Options) (*Store, error) {
	return open(dir, opts, vfs.Default)
}

// open is Open on a file system that tests choose.
func open(dir string, opts Options, fsys vfs.FS) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.machine == nil {
		opts.machine = readMachine
	}
	if opts.SweepInterval == 0 {
		opts.SweepInterval = DefaultSweepInterval
	}
	if opts.reopenDelay == 0 {
		opts.reopenDelay = reopenDelay
	}
	s, err := openStore(dir, opts, fsys)
	if err != nil {
		return nil, fmt.Errorf("opening store %s: %w", dir, withAdvice(err))
	}
	return s, nil
}

func openStore(dir string, opts Options, fsys vfs.FS) (_ *Store, err error) {
	dir, err = prepareDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{fs: fsys, options: opts, logger: opts.Logger, stop: make(chan struct{})}
	if s.lock, err = takeLock(dir, fsys); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.lock.Close())
		}
	}()

	db := filepath.Join(dir, dbName)
	if _, err := os.Stat(db); errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, opts.Logger, fsys); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if s.dbLock, err = takeLock(db, fsys); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dbLock.Close())
		}
	}()

	d, err := openDatabase(dir, opts.Logger, fsys)
	if err != nil {
		return nil, err
	}
	s.install(d)
	if opts.Now == nil {
		if err := errors.Join(s.startClock(), s.failed()); err != nil {
			return nil, errors.Join(err, closeDB(s.db))
		}
	}
	if err := s.checkKeys(); err != nil {
		return nil, errors.Join(err, closeDB(s.db))
	}
	s.background.Go(func() { s.run(opts.SweepInterval) })
	return s, nil
}

// prepareDir makes dir where it does not exist, and returns its real path, so
// that one directory has one lock whatever it is called. It refuses a directory
// with anything in it that is not ours.
func prepareDir(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		return "", err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	ours := slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == dbName && e.IsDir() })
	for _, e := range entries {
		switch e.Name() {
		case lockName, newDBName, probeName, "lost+found": // the latter comes with a file system of its own
		default:
			if !ours {
				return "", fmt.Errorf("the directory holds %q and no store; name one that is empty or does not exist", e.Name())
			}
		}
	}
	// A volume may be someone else's to change. What is within is not.
	_ = chmod(dir, dirPerm)
	return dir, nil
}

// create makes an empty database in dir.
func create(dir string, logger *slog.Logger, fsys vfs.FS) error {
	part := filepath.Join(dir, newDBName)
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.Mkdir(part, dirPerm); err != nil {
		return err
	}
	guard := newGuard()
	db, err := openDB(part, &guardedFS{FS: fsys, guard: guard, seal: newSeal(fsys, part)}, logger, false)
	if err != nil {
		return err
	}
	err = errors.Join(
		db.Set(formatKey, binary.AppendUvarint(nil, format), pebble.NoSync),
		db.Set(indexedKey, nil, pebble.Sync),
		db.Flush(),
		db.Close(),
		guard.failure(),
	)
	if err != nil {
		return err
	}
	if err := fsys.Rename(part, filepath.Join(dir, dbName)); err != nil {
		return err
	}
	return errors.Join(syncDir(fsys, dir), syncDir(fsys, filepath.Dir(dir)))
}

// damage returns err, which Pebble returned when it opened an existing
// database or looked at it: as it is where the operating system gave a reason, else as damage,
// for nothing else keeps a database that was whole from opening.
func damage(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != syscall.ENOENT {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

const (
	// memTableSize is how much is gathered in memory, in bytes, before it is
	// written to a table. The larger it is, the less often the same range of
	// IDs is compacted: with 4 MiB a call costs a third more CPU.
	memTableSize = 8 << 20

	// l0Tables is how many tables, of the size of a memory table each, gather before
	// they are compacted into what is there already. The more there are, the less often
	// that is rewritten. But a read asks a filter of each, and they are not compressed
	// yet. With 16 a call costs 5 % more CPU, and an answer from disk 6 % less, where all
	// of them are there.
	l0Tables = 32

	// blockCacheSize is what tables' filters, indexes and hottest blocks may
	// take in memory, in bytes.
	blockCacheSize = 8 << 20

	// blockSize is how much of a table is compressed and written at a time, and read
	// to find one record, in bytes. With Pebble's 4 KiB a call costs 3 % more CPU, an
	// answer from a table that is in no cache 2 microseconds less.
	blockSize = 8 << 10
)

// databaseOptions returns options for a process that is small and shares its
// machine: about 30 MiB at most, where Pebble would take what a database server
// may.
func databaseOptions(fsys *guardedFS, logger *slog.Logger, exists bool) *pebble.Options {
	opts := &pebble.Options{
		FS:                          fsys,
		Logger:                      pebbleLogger{logger, fsys.guard},
		EventListener:               eventListener(logger),
		ErrorIfNotExists:            exists,
		FormatMajorVersion:          pebble.FormatNewest, // at least FormatWALSyncChunks: see tail.go
		MemTableSize:                memTableSize,
		MemTableStopWritesThreshold: 4,
		CacheSize:                   2*memTableSize + blockCacheSize, // Pebble takes memtables from it: one in use, one being written
		L0CompactionThreshold:       l0Tables,
		L0StopWritesThreshold:       3 * l0Tables,
		MaxOpenFiles:                256,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
	}
	opts.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }     // soon rewritten
	opts.Levels[1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression } // and of those below
	for i := range opts.Levels {
		opts.Levels[i].BlockSize = blockSize
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // most IDs that are claimed are new
	}
	return opts
}

// chmod gives name the permissions perm, unless it has none beyond them.
func chmod(name string, perm fs.FileMode) error {
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // on a file system that tests chose
	}
	if err != nil {
		return err
	}
	if info.Mode().Perm()&^perm == 0 {
		return nil
	}
	return os.Chmod(name, perm)
}
