package disk

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// childEnv names what TestMain does instead of running tests, and where.
const childEnv = "GENESYS_DISK_TEST_CHILD"

func TestMain(m *testing.M) {
	if job, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		child(job, dir)
	}
	os.Exit(m.Run())
}

// startChild starts the test binary to do job in dir, and returns its output
// after it has written its first line.
func startChild(t *testing.T, job, dir string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+job+":"+dir)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	r := bufio.NewReader(stdout)
	if line, err := r.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the child wrote %q, %v", line, err)
	}
	return cmd, r
}

func wantLocked(t *testing.T, dir, by string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err == nil {
		t.Fatal(errors.Join(errors.New("the directory was opened twice"), s.Close()))
	}
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), by) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %q, want it to tell that %s is locked by %s", err, dir, by)
	}
}

func TestADirectoryInUseByAnotherProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := startChild(t, "hold", dir)
	by := "another process"
	if runtime.GOOS == "linux" {
		by = fmt.Sprintf("another process (%s, process %d)", comm(t, cmd.Process.Pid), cmd.Process.Pid)
	}
	wantLocked(t, dir, by+"; if that is this sidecar already running, use 'caddy reload'")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	mustOpen(t, dir, Options{})
}

// comm returns what Linux calls the program of a process.
func comm(t *testing.T, pid int) string {
	t.Helper()
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(name))
}

func TestADirectoryInUseByThisProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	wantLocked(t, dir, "this process")

	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	wantLocked(t, link, "this process")

	rec := claim("a")
	mustClaim(t, s, rec)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, link, Options{})
}

func TestAForeignDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Open(dir, Options{})
	if err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Errorf("got %v", err)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 {
		t.Errorf("the directory holds %d files now", len(entries))
	}
}

func TestACreationThatWasCutShortIsStartedAgain(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, newDBName), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, newDBName, "MANIFEST-000001"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, dir, Options{})
	fill(t, s, 1)
}

func TestAStoreOfANewerVersionIsRefused(t *testing.T) {
	t.Run("layout", func(t *testing.T) {
		dir := t.TempDir()
		s := mustOpen(t, dir, Options{})
		if err := s.db.Set(formatKey, binary.AppendUvarint(nil, formatRecent+1), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		wantNewer(t, dir)
	})
	t.Run("pebble", func(t *testing.T) {
		dir := t.TempDir()
		if err := mustOpen(t, dir, Options{}).Close(); err != nil {
			t.Fatal(err)
		}
		markers, err := filepath.Glob(filepath.Join(dir, dbName, "marker.format-version.*"))
		if err != nil || len(markers) != 1 {
			t.Fatal(markers, err)
		}
		newer := strings.TrimSuffix(markers[0], filepath.Ext(markers[0])) + ".999"
		if err := os.Rename(markers[0], newer); err != nil {
			t.Fatal(err)
		}
		wantNewer(t, dir)
	})
}

func TestAStoreOfAnOlderVersionIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	names := fill(t, s, 3)
	b := s.db.NewBatch()
	for _, err := range []error{ // format 1 had no indexes of listings
		b.DeleteRange([]byte{keyspaceStarted}, []byte{keyspaceStarted + 1}, nil),
		b.Set(formatKey, binary.AppendUvarint(nil, 1), nil),
		b.Commit(pebble.Sync),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = mustOpen(t, dir, Options{})
	if n, err := missing(s, names); n > 0 || err != nil {
		t.Errorf("%d records are gone, %v", n, err)
	}
	value, err := s.get(formatKey)
	if v, _ := binary.Uvarint(value); v != format || err != nil {
		t.Errorf("the format is %d, want %d so that an older version refuses what it does not know; %v", v, format, err)
	}
}

func wantNewer(t *testing.T, dir string) {
	t.Helper()
	_, err := Open(dir, Options{})
	if err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v, want it to tell of a newer version", err)
	}
}
