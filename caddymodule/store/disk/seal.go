package disk

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

const (
	// sealName is the file in which the seal is kept, within records/.
	sealName = "seal"

	// sealTitle is its first line.
	sealTitle = "genesys-sidecar records 1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal knows what of the database must be there, whatever Pebble makes of what
// is there: of each manifest, how much had been synced and its checksum, and
// the names of the logs. What is new is sealed as soon as it is there, and what
// is to be removed is unsealed before, so a crash at any moment leaves a seal
// that holds: there may be more than it says, but never less.
//
// Manifests and logs change rarely (once in several MiB of writes), so the
// file is written anew each time.
type seal struct {
	fs  vfs.FS // not guarded: the guard calls
	dir string

	mu        sync.Mutex
	manifests map[string]*manifestSum // by base name
	logs      map[string]struct{}     // by base name
}

// manifestSum is the length and CRC-32C of the start of a manifest.
type manifestSum struct {
	written, synced prefix
}

type prefix struct {
	size int64
	sum  uint32
}

func newSeal(fs vfs.FS, dir string) *seal {
	return &seal{
		fs:        fs,
		dir:       dir,
		manifests: make(map[string]*manifestSum),
		logs:      make(map[string]struct{}),
	}
}

func isManifest(base string) bool { return strings.HasPrefix(base, "MANIFEST-") }

func isLog(base string) bool {
	_, _, ok := wal.ParseLogFilename(base)
	return ok
}

// created notes that the file name was created.
func (s *seal) created(name string) error {
	base := filepath.Base(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if isManifest(base) {
		s.manifests[base] = new(manifestSum)
		return nil
	}
	if !isLog(base) {
		return nil
	}
	s.logs[base] = struct{}{}
	return s.writeLocked()
}

// writing notes that p is about to be appended to the file name.
func (s *seal) writing(name string, p []byte) {
	base := filepath.Base(name)
	if !isManifest(base) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.manifests[base]; m != nil {
		m.written.size += int64(len(p))
		m.written.sum = crc32.Update(m.written.sum, castagnoli, p)
	}
}

// synced notes that what was written to the file name is on the disk.
func (s *seal) synced(name string) error {
	base := filepath.Base(name)
	if !isManifest(base) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.manifests[base]
	if m == nil || m.synced == m.written {
		return nil
	}
	m.synced = m.written
	return s.writeLocked()
}

// removing notes that the file name is about to be removed or renamed.
func (s *seal) removing(name string) error {
	base := filepath.Base(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.manifests, base) // need not be written: only the current one counts
	if _, ok := s.logs[base]; !ok {
		return nil
	}
	delete(s.logs, base)
	return s.writeLocked()
}

// writeLocked replaces the seal's file.
func (s *seal) writeLocked() error {
	var b bytes.Buffer
	fmt.Fprintln(&b, sealTitle)
	for base, m := range s.manifests {
		fmt.Fprintln(&b, "manifest", base, m.synced.size, m.synced.sum)
	}
	for base := range s.logs {
		fmt.Fprintln(&b, "log", base)
	}
	fmt.Fprintln(&b, "sum", crc32.Checksum(b.Bytes(), castagnoli))

	name := filepath.Join(s.dir, sealName)
	if err := writeFile(s.fs, name+".new", b.Bytes()); err != nil {
		return fmt.Errorf("writing seal: %w", err)
	}
	if err := s.fs.Rename(name+".new", name); err != nil {
		return fmt.Errorf("writing seal: %w", err)
	}
	if err := syncDir(s.fs, s.dir); err != nil {
		return fmt.Errorf("writing seal: %w", err)
	}
	return nil
}

// verify reads the seal's file and checks that the database is what it tells.
// Errors that are due to damage wrap ErrDamaged.
func (s *seal) verify() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := readFile(s.fs, filepath.Join(s.dir, sealName), -1)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: its file %s is missing", ErrDamaged, sealName)
	case err != nil:
		return err
	}
	if err := s.parseLocked(data); err != nil {
		return fmt.Errorf("%w: its file %s: %w", ErrDamaged, sealName, err)
	}
	if err := s.checkNewer(); err != nil {
		return err
	}
	desc, err := pebble.Peek(s.dir, s.fs)
	switch {
	case err != nil:
		return damage(err)
	case !desc.Exists:
		return fmt.Errorf("%w: the marker that names its manifest is missing", ErrDamaged)
	case desc.FormatMajorVersion == pebble.FormatDefault:
		return fmt.Errorf("%w: the marker that names its format is missing", ErrDamaged)
	}
	base := filepath.Base(desc.ManifestFilename)
	want := s.manifests[base]
	if want == nil || want.synced.size == 0 {
		return fmt.Errorf("%w: its file %s is not the one it was last written with", ErrDamaged, base)
	}
	data, err = readFile(s.fs, desc.ManifestFilename, want.synced.size)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: its file %s is missing", ErrDamaged, base)
	case err != nil:
		return err
	}
	if got := (prefix{int64(len(data)), crc32.Checksum(data, castagnoli)}); got != want.synced {
		return fmt.Errorf("%w: its file %s is not what was written", ErrDamaged, base)
	}
	for base := range s.logs {
		_, err := s.fs.Stat(filepath.Join(s.dir, base))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("%w: its file %s is missing", ErrDamaged, base)
		case err != nil:
			return err
		}
	}
	return nil
}

// checkNewer returns an error if a Pebble newer than ours wrote the database.
func (s *seal) checkNewer() error {
	marker, value, err := atomicfs.LocateMarker(s.fs, s.dir, "format-version")
	if err != nil {
		return err
	}
	if v, err := strconv.ParseUint(value, 10, 64); err == nil && v > uint64(pebble.FormatNewest) {
		err := fmt.Errorf("it was written by a newer version (its Pebble format is %d, the newest known is %d)", v, pebble.FormatNewest)
		return errors.Join(err, marker.Close())
	}
	return marker.Close()
}

// parseLocked takes the seal from data.
func (s *seal) parseLocked(data []byte) error {
	end := bytes.LastIndex(data, []byte("sum "))
	var sum uint32
	if end < 0 {
		return errors.New("it has no checksum")
	}
	if _, err := fmt.Sscanf(string(data[end:]), "sum %d\n", &sum); err != nil || sum != crc32.Checksum(data[:end], castagnoli) {
		return errors.New("its checksum does not match")
	}
	lines := strings.Split(strings.TrimSuffix(string(data[:end]), "\n"), "\n")
	if lines[0] != sealTitle {
		return fmt.Errorf("it starts with %q", lines[0])
	}
	for _, line := range lines[1:] {
		var base string
		m := new(manifestSum)
		if n, _ := fmt.Sscanf(line, "manifest %s %d %d", &base, &m.synced.size, &m.synced.sum); n == 3 {
			m.written = m.synced
			s.manifests[base] = m
		} else if n, _ := fmt.Sscanf(line, "log %s", &base); n == 1 {
			s.logs[base] = struct{}{}
		} else {
			return fmt.Errorf("it has a line %q", line)
		}
	}
	// It may name no log: while a database is opened, those that have been read
	// are removed, and the next one may not be there yet.
	return nil
}

// writeFile makes or replaces the file name and syncs it.
func writeFile(fs vfs.FS, name string, data []byte) error {
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if err := chmod(name, filePerm); err != nil {
		return errors.Join(err, f.Close())
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Sync(); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

// readFile returns the first n bytes of the file name, or as many as it has, or
// all of them where n is negative.
func readFile(fs vfs.FS, name string, n int64) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n < 0 {
		return io.ReadAll(f)
	}
	return io.ReadAll(io.LimitReader(f, n))
}

// syncDir syncs the names in dir.
func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
