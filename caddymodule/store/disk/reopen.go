package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// How long a store that has failed waits before it tries to open its directory
// anew, at first and at most.
const (
	reopenDelay    = time.Second
	reopenDelayMax = 15 * time.Second
)

// recover brings a store that has failed back: what a crash at the failure would
// have left is opened as after a crash. Until then every method refuses. It
// returns false if the store is closed first.
func (s *Store) recover() bool {
	began := time.Now()
	s.logger.Error("the store has failed; calls are refused until it can be opened anew, which is tried by itself",
		slog.Any("error", s.guard.failure()), slog.String("dir", s.dir), slog.String("advice", adviceOn(s.guard.failure())))
	s.retire()
	reason := reasonOf(s.guard.failure())
	for delay := s.options.reopenDelay; ; delay = min(2*delay, max(s.options.reopenDelay, reopenDelayMax)) {
		select {
		case <-s.stop:
			return false
		case <-time.After(delay):
		}
		err := s.reopen()
		if err == nil {
			s.logger.Info("the store serves again", slog.String("dir", s.dir), slog.Duration("after", time.Since(began)))
			return true
		}
		if now := reasonOf(err); now != reason { // the same again is no news
			s.logger.Error("opening the failed store anew, which is tried again", slog.Any("error", err))
			reason = now
		} else {
			s.logger.Debug("opening the failed store anew", slog.Any("error", err))
		}
	}
}

// retire takes the failed database away, and closes it once no method uses it.
// All its writes are dropped, so that it cannot come into the way of the next.
func (s *Store) retire() {
	s.use.Lock()
	db := s.db
	s.down = s.failed()
	s.db = nil
	s.use.Unlock()
	if err := closeDB(db); err != nil {
		s.logger.Debug("closing the failed database", slog.Any("error", err))
	}
}

// reopen opens the directory anew. The locks are held all the time, and what the
// store keeps in memory of the database is made from it again: a change that was
// reported as failed may have been made.
func (s *Store) reopen() error {
	next, err := s.openAgain()
	s.use.Lock()
	defer s.use.Unlock()
	if err != nil {
		s.down = fmt.Errorf("store %s: %w: %w; opening it anew: %w", s.dir, ErrFailed, s.guard.failure(), err)
		return err
	}
	s.install(next)
	s.notify() // of tickets of which it was not known whether they are there
	return nil
}

func (s *Store) openAgain() (database, error) {
	for _, l := range []*lock{s.lock, s.dbLock} {
		if err := l.renew(s.fs); err != nil {
			return database{}, withAdvice(err)
		}
	}
	if err := probe(s.fs, s.dir); err != nil {
		return database{}, withAdvice(err)
	}
	d, err := openDatabase(s.dir, s.logger, s.fs)
	if err != nil {
		return database{}, withAdvice(err)
	}
	if err := s.checkAge(d); err != nil {
		return database{}, errors.Join(withAdvice(err), closeDB(d.db))
	}
	// A write tells whether it can be written to.
	if err := errors.Join(d.db.LogData(nil, pebble.Sync), d.guard.failure()); err != nil {
		return database{}, errors.Join(withAdvice(err), closeDB(d.db))
	}
	return d, nil
}

// install makes d the store's database. Whoever calls it holds use, unless
// nobody else has the store yet.
func (s *Store) install(d database) {
	s.database = d
	s.groups.db, s.groups.guard = d.db, d.guard
	for i := range s.stripes {
		s.stripes[i].running = nil
	}
	s.down = nil
}

// probeName is the file, in the store's directory, that tells whether the disk
// can be written to: an attempt to open the database that fails may leave more
// behind.
const (
	probeName = "probe"
	probeSize = 256 << 10
)

func probe(fsys vfs.FS, dir string) error {
	name := filepath.Join(dir, probeName)
	data := make([]byte, probeSize)
	for i := range data {
		data[i] = byte(i * i >> 8) // no file system keeps it for nothing
	}
	err := writeFile(fsys, name, data)
	if removeErr := fsys.Remove(name); err == nil {
		err = removeErr
	}
	if err != nil {
		return fmt.Errorf("trying to write: %w", err)
	}
	return nil
}

// reasonOf tells apart why a directory cannot be opened.
func reasonOf(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, ErrDamaged):
		return ErrDamaged.Error()
	case errors.Is(err, ErrLocked):
		return ErrLocked.Error()
	case errors.As(err, &errno):
		return errno.Error()
	default:
		return ""
	}
}
