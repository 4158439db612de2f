package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/wal"
)

// filledDir returns a directory with a store that is closed and holds names, in
// tables. With crashed it is as a crash leaves it, with the last names in logs.
func filledDir(t *testing.T, crashed bool) (dir string, names []string) {
	t.Helper()
	dir = t.TempDir()
	s := mustOpen(t, dir, Options{})
	names = fill(t, s, 500)
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"late 1", "late 2", "late 3", "late 4"} {
		rec := claim(name)
		mustClaim(t, s, rec)
		if err := s.Finish(ctx, answered(rec)); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if crashed {
		dir = copyDir(t, dir)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, names
}

// copyDir copies dir, in which a store may be at work: it begins again where a file
// that it has seen is not there any more.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	for again := 100; ; again-- {
		to := t.TempDir()
		err := os.CopyFS(to, os.DirFS(dir))
		if err == nil {
			return to
		}
		if again == 0 || !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// only returns the one file in dir's database that matches pattern.
func only(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, dbName, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[len(names)-1]
}

// logs returns the names of the logs in dir.
func logs(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, dbName, "*.log"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func wantDamaged(t *testing.T, dir string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err == nil {
		t.Fatal(errors.Join(errors.New("a damaged store was opened"), s.Close()))
	}
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "opening store "+dir) ||
		!strings.Contains(err.Error(), "restore it from a copy, or move the directory away") {
		t.Errorf("got %v", err)
	}
	// It must not be mended by the attempt.
	if s, err := Open(dir, Options{}); err == nil {
		t.Error(errors.Join(errors.New("the second attempt succeeded"), s.Close()))
	}
}

// rewrite replaces the contents of a file.
func rewrite(t *testing.T, name string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, change(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func half(b []byte) []byte    { return b[:len(b)/2] }
func nothing([]byte) []byte   { return nil }
func zeroes(b []byte) []byte  { return make([]byte, len(b)) }
func flipped(b []byte) []byte { b[len(b)/2] ^= 0x10; return b }

func TestADamagedDatabaseIsRefused(t *testing.T) {
	whole, _ := filledDir(t, false)
	crashed, _ := filledDir(t, true)
	for _, pattern := range []string{"MANIFEST-*", "marker.manifest.*", "marker.format-version.*", "*.sst", "*.log", sealName} {
		t.Run("missing "+pattern, func(t *testing.T) {
			for _, dir := range []string{whole, crashed} {
				dir = copyDir(t, dir)
				names, _ := filepath.Glob(filepath.Join(dir, dbName, pattern))
				for _, name := range names {
					if err := os.Remove(name); err != nil {
						t.Fatal(err)
					}
				}
				wantDamaged(t, dir)
			}
		})
	}
	for _, pattern := range []string{"MANIFEST-*", "*.sst", sealName} {
		for name, change := range map[string]func([]byte) []byte{
			"empty": nothing, "zeroed": zeroes, "truncated": half, "flipped": flipped,
		} {
			if pattern == "*.sst" && (name == "flipped" || name == "zeroed") {
				continue // detected when it is read: see below
			}
			t.Run(name+" "+pattern, func(t *testing.T) {
				dir := copyDir(t, whole)
				rewrite(t, only(t, dir, pattern), change)
				wantDamaged(t, dir)
			})
		}
	}
	for _, log := range logs(t, crashed) {
		t.Run("missing "+log, func(t *testing.T) {
			dir := copyDir(t, crashed)
			if err := os.Remove(filepath.Join(dir, dbName, log)); err != nil {
				t.Fatal(err)
			}
			wantDamaged(t, dir)
		})
	}
	t.Run("everything but the directory", func(t *testing.T) {
		dir := copyDir(t, whole)
		if err := os.RemoveAll(filepath.Join(dir, dbName)); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, dbName), 0o700); err != nil {
			t.Fatal(err)
		}
		wantDamaged(t, dir)
	})
}

// TestAFlippedManifestByteNeverLosesARecord flips every byte in turn: the store
// may open, but not without its records.
func TestAFlippedManifestByteNeverLosesARecord(t *testing.T) {
	dir, names := filledDir(t, true)
	manifest := only(t, dir, "MANIFEST-*")
	data, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if testing.Short() {
		step = 37
	}
	for i := 0; i < len(data); i += step {
		dir := copyDir(t, dir)
		rewrite(t, filepath.Join(dir, dbName, filepath.Base(manifest)), func(b []byte) []byte { b[i] ^= 0x40; return b })
		wantWholeOrRefused(t, dir, names)
	}
}

// wantWholeOrRefused fails the test if dir opens without names.
func wantWholeOrRefused(t *testing.T, dir string, names []string) (opened bool) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("got %v, want damage", err)
		}
		return false
	}
	defer s.Close()
	if n, err := missing(s, names); err == nil && n > 0 {
		t.Errorf("%d records are gone, and nobody tells", n)
	}
	return true
}

func TestAFlippedTableFailsWhatReadsIt(t *testing.T) {
	whole, names := filledDir(t, false)
	for name, change := range map[string]func([]byte) []byte{"flipped": flipped, "zeroed": zeroes} {
		t.Run(name, func(t *testing.T) {
			dir := copyDir(t, whole)
			tables, _ := filepath.Glob(filepath.Join(dir, dbName, "*.sst"))
			for _, table := range tables {
				rewrite(t, table, change)
			}
			s, err := Open(dir, Options{})
			if err == nil {
				defer s.Close()
				_, err = missing(s, names)
			}
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrFailed) {
				t.Errorf("got %v, want damage", err)
			}
		})
	}
}

// TestAFlippedLogByteIsNoTornTail flips bytes in the log of a store that
// crashed: wherever something that was synced later follows, the log cannot
// have ended there.
func TestAFlippedLogByteIsNoTornTail(t *testing.T) {
	crashed, names := filledDir(t, true)
	log := only(t, crashed, "*.log")
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	num, _, _ := wal.ParseLogFilename(filepath.Base(log))
	end, synced := logEnd(data, uint32(num))
	if synced == 0 || uint64(end) <= synced {
		t.Fatalf("the log ends at %d and is known to be synced up to %d", end, synced)
	}
	for i := range 20 {
		at := i * int(synced) / 20
		dir := copyDir(t, crashed)
		rewrite(t, filepath.Join(dir, dbName, filepath.Base(log)), func(b []byte) []byte { b[at] ^= 1; return b })
		wantDamaged(t, dir)
	}
	// Behind that, only the last record is at stake.
	for at := int(synced); at < end; at += 31 {
		dir := copyDir(t, crashed)
		rewrite(t, filepath.Join(dir, dbName, filepath.Base(log)), func(b []byte) []byte { b[at] ^= 1; return b })
		wantWholeOrRefused(t, dir, names[:len(names)-1])
	}
}

// TestATornTailIsAccepted cuts the log of a store that crashed wherever a crash
// might have: all but what was cut off is there.
func TestATornTailIsAccepted(t *testing.T) {
	crashed, names := filledDir(t, true)
	log := filepath.Base(only(t, crashed, "*.log"))
	data, err := os.ReadFile(filepath.Join(crashed, dbName, log))
	if err != nil {
		t.Fatal(err)
	}
	end := len(strings.TrimRight(string(data), "\x00"))
	for _, n := range []int{end - 1, end - 10, end - 100, end - 200} {
		for _, change := range []func([]byte) []byte{
			func(b []byte) []byte { return b[:n] },
			func(b []byte) []byte { clear(b[n:]); return b },
		} {
			dir := copyDir(t, crashed)
			rewrite(t, filepath.Join(dir, dbName, log), change)
			s := mustOpen(t, dir, Options{})
			if gone, err := missing(s, names[:len(names)-1]); gone > 0 || err != nil {
				t.Errorf("cut at %d of %d: %d records are gone, %v", n, end, gone, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
