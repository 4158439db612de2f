package disk

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"genesys-sidecar/caddymodule/idempotency"
)

var _ idempotency.Purger = (*Store)(nil)

// Purge implements idempotency.Purger. It writes the whole database anew, while
// calls go on: it takes as long as that, and up to as much room on the disk again
// as the database has. After an error, call it again.
//
// Digests of what was removed may be left, as IDs in Pebble's manifest, and a
// disk may keep what its file system has let go.
func (s *Store) Purge(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.use.RLock()
	guard := s.guard
	s.use.RUnlock()
	done := make(chan struct{})
	defer close(done)
	go func() { // Pebble may wait forever for what the guard has dropped
		select {
		case <-guard.failed:
			cancel(ErrFailed)
		case <-s.stop:
			cancel(ErrClosed)
		case <-done:
		}
	}()
	err := s.purgeLogs(ctx)
	if err == nil {
		err = s.purgeTables(ctx)
	}
	if err == nil {
		err = guard.failure() // what has failed was reported as done
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("purging store: %w", err)
	}
	return nil
}

// during runs f on the database that is there now. f should take no longer than a
// Close or a failure may wait.
func (s *Store) during(ctx context.Context, f func(database) error) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer s.end()
	if err := f(s.database); err != nil {
		return err
	}
	return s.failed()
}

// purgeLogs has all that is in logs written to tables, and those logs removed.
//
// Pebble keeps a few logs whose contents are in tables, to write new ones over
// them, and what is behind the end of the new one stays in the file. One is
// taken up whenever a log is begun, and a log is begun with each flush, so that
// after some flushes all have been; see retiredLogs for what comes of them.
func (s *Store) purgeLogs(ctx context.Context) error {
	var logs *retiredLogs
	err := s.during(ctx, func(d database) error {
		logs = d.logs
		return logs.retire(s.fs, filepath.Join(d.dir, dbName))
	})
	if err != nil {
		return err
	}
	return goneSoon(ctx, func() ([]string, error) {
		var flushed <-chan struct{}
		err := s.during(ctx, func(d database) (err error) {
			flushed, err = d.db.AsyncFlush()
			return err
		})
		if err != nil {
			return nil, err
		}
		select {
		case <-flushed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var left []string
		err = s.during(ctx, func(d database) (err error) {
			left, err = logs.left(s.fs, filepath.Join(d.dir, dbName))
			return err
		})
		return left, err
	})
}

// purgeTables compacts all tables, by which what was removed or replaced goes, and
// has those removed that are not in use any more.
func (s *Store) purgeTables(ctx context.Context) error {
	for _, bounds := range purgeRanges() {
		err := s.during(ctx, func(d database) error {
			return d.db.Compact(ctx, bounds[0], bounds[1], false)
		})
		if err != nil {
			return err
		}
	}
	var old []string // with what was there before
	return goneSoon(ctx, func() (left []string, err error) {
		err = s.during(ctx, func(d database) error {
			there, err := s.fs.List(filepath.Join(d.dir, dbName))
			if err != nil {
				return err
			}
			there = slices.DeleteFunc(there, func(name string) bool { return filepath.Ext(name) != ".sst" })
			if old == nil {
				old = slices.Clone(there)
			}
			live, err := d.liveTables()
			if err != nil {
				return err
			}
			for _, name := range old {
				if slices.Contains(there, name) && !live[name] {
					left = append(left, name)
				}
			}
			return nil
		})
		return left, err
	})
}

// purgeRanges are ranges of keys that are all there are. Compacted one after the
// other, they let a Close or a failure in between.
func purgeRanges() (ranges [][2][]byte) {
	const step = 16 // of the first byte of an ID
	start := []byte{0}
	for first := 0; first < 256; first += step {
		end := []byte{keyspaceRecord, byte(first)}
		ranges = append(ranges, [2][]byte{start, end})
		start = end
	}
	return append(ranges, [2][]byte{start, {0xff}})
}

// liveTables returns the base names of the tables that the database is made of.
func (d *database) liveTables() (map[string]bool, error) {
	levels, err := d.db.SSTables()
	if err != nil {
		return nil, d.readError(err)
	}
	live := make(map[string]bool)
	for _, tables := range levels {
		for _, t := range tables {
			live[fmt.Sprintf("%s.sst", t.BackingSSTNum)] = true
		}
	}
	return live, nil
}

// purgePatience is how long it is waited for files to go that nothing needs any
// more.
const purgePatience = time.Minute

// goneSoon calls left, at growing intervals, until that names no file.
func goneSoon(ctx context.Context, left func() ([]string, error)) error {
	deadline := time.Now().Add(purgePatience)
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		names, err := left()
		switch {
		case err != nil || len(names) == 0:
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("%q, which nothing needs any more, is still there after %v", names[0], purgePatience)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// retiredLogs are the logs that no new one may be written over: that one would
// have the rest of the old behind its end. The new one becomes a file of its own,
// and the old is removed.
type retiredLogs struct {
	mu    sync.Mutex
	names map[string]struct{} // guarded by mu; by base name
}

// retire retires all logs that are in dir. It holds up the beginning of logs, of
// which it would else miss one that is taken up meanwhile.
func (l *retiredLogs) retire(fsys vfs.FS, dir string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := fsys.List(dir)
	if err != nil {
		return err
	}
	if l.names == nil {
		l.names = make(map[string]struct{})
	}
	for _, name := range all {
		if isLog(name) {
			l.names[name] = struct{}{}
		}
	}
	return nil
}

// left returns which retired logs are still in dir.
func (l *retiredLogs) left(fsys vfs.FS, dir string) (names []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all, err := fsys.List(dir)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(l.names, func(name string, _ struct{}) bool { return !slices.Contains(all, name) })
	return slices.Sorted(maps.Keys(l.names)), nil
}

// reuse has a log begun by over, in place of the log from, or by anew if that is
// retired.
func (l *retiredLogs) reuse(from string, over, anew func() (vfs.File, error)) (vfs.File, error) {
	if l == nil {
		return over()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, retired := l.names[filepath.Base(from)]; retired {
		return anew()
	}
	return over()
}
