package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// database is what a store has of its directory from one opening of it to the
// next: after a failed write everything that is known of it is read anew.
type database struct {
	dir       string // of the store
	logger    *slog.Logger
	db        *pebble.DB
	guard     *guard
	logs      *retiredLogs
	unsettled *tally
	recent    *atomic.Bool // its format is formatRecent
	queue     *queue
	filter    *filter
}

// openDatabase checks and opens the database of the store in dir, whose locks
// are held.
func openDatabase(dir string, logger *slog.Logger, fsys vfs.FS) (_ database, err error) {
	name := filepath.Join(dir, dbName)
	d := database{dir: dir, logger: logger, guard: newGuard(), logs: new(retiredLogs), unsettled: new(tally), recent: new(atomic.Bool), filter: new(filter)}
	seal := newSeal(fsys, name)
	if err := seal.verify(); err != nil {
		return database{}, err
	}
	if err := checkTail(fsys, name); err != nil {
		return database{}, err
	}
	guarded := &guardedFS{FS: fsys, guard: d.guard, seal: seal, locked: true, opening: new(opening), logs: d.logs}
	defer func() {
		if err != nil {
			guarded.opening.undo(fsys)
		}
		guarded.opening.end()
	}()
	if d.db, err = openDB(name, guarded, logger, true); err != nil {
		return database{}, err
	}
	if err := errors.Join(d.checkFormat(), d.loadIndexed(), d.loadTally(), d.loadTickets(), d.guard.failure()); err != nil {
		return database{}, errors.Join(err, closeDB(d.db))
	}
	return d, nil
}

// openDB opens the database in dir. Unless exists is true, it makes it.
func openDB(dir string, fsys *guardedFS, logger *slog.Logger, exists bool) (db *pebble.DB, err error) {
	// Pebble panics on some of the damage it meets.
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%w: %v", ErrDamaged, r)
			if failure := fsys.guard.failure(); failure != nil {
				err = failure // it met what the guard had not written
			}
		}
	}()
	db, err = pebble.Open(dir, databaseOptions(fsys, logger, exists))
	if failure := fsys.guard.failure(); failure != nil {
		if db != nil {
			_ = closeDB(db) // closes files that are frozen
		}
		db, err = nil, failure
	}
	switch {
	case err == nil:
		return db, nil
	case exists:
		return nil, damage(err)
	default:
		return nil, err
	}
}

// closeDB closes db. On a file system that is frozen it may find anything.
func closeDB(db *pebble.DB) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("closing database: %v", r)
		}
	}()
	return db.Close()
}

// checkFormat checks that the database is of a layout that we know, and makes it
// one that has all indexes. What formats 1 and 2 have written is taken as it is.
func (d *database) checkFormat() error {
	value, err := d.get(formatKey)
	if err != nil {
		return err
	}
	v, n := binary.Uvarint(value)
	switch {
	case n <= 0:
		return fmt.Errorf("%w: it does not tell its format", ErrDamaged)
	case v > formatRecent:
		return fmt.Errorf("it was written by a newer version (its format is %d, the newest known is %d)", v, formatRecent)
	case v < format:
		return d.takeOver()
	}
	d.recent.Store(v == formatRecent)
	return nil
}

// loadIndexed reads whether the index of all records has each of them.
func (d *database) loadIndexed() error {
	value, err := d.get(indexedKey)
	d.filter.indexed = value != nil
	return err
}

// admit makes sure that the database has a format that rec can be in.
func (d *database) admit(rec *idempotency.Record) error {
	if d.recent.Load() || !store.IsRecent(rec) {
		return nil
	}
	err := d.db.Set(formatKey, binary.AppendUvarint(nil, formatRecent), pebble.Sync)
	if failed := d.failed(); failed != nil {
		return failed
	}
	if err == nil {
		d.recent.Store(true)
	}
	return err
}

// get returns a copy of the value of key, or nil where there is none.
func (d *database) get(key []byte) ([]byte, error) {
	value, closer, err := d.db.Get(key)
	if err := d.readError(err); err != nil || closer == nil {
		return nil, err
	}
	return append([]byte{}, value...), closer.Close()
}

// readError returns what to make of err, with which Pebble has read something.
func (d *database) readError(err error) error {
	switch failed := d.failed(); {
	case failed != nil:
		return failed
	case err == nil || errors.Is(err, pebble.ErrNotFound):
		return nil
	case pebble.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("store %s: %w", d.dir, withAdvice(fmt.Errorf("%w: %w", ErrDamaged, err)))
	default:
		return fmt.Errorf("store %s: %w", d.dir, withAdvice(err))
	}
}

// failed returns an error if a write has failed. Whatever Pebble says counts
// only if this returns nil afterwards.
func (d *database) failed() error {
	if err := d.guard.failure(); err != nil {
		return fmt.Errorf("store %s: %w: %w", d.dir, ErrFailed, withAdvice(err))
	}
	return nil
}
