package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// stored returns the files of a sidecar's database that match pattern.
func (s *sidecar) stored(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.dir, "store", "records", pattern))
	must(t, err)
	if len(names) == 0 {
		t.Fatalf("no file %s in the store", pattern)
	}
	return names
}

// answeredSidecar returns a sidecar that has answered some calls.
func answeredSidecar(t *testing.T, p *platform, o options) (s *sidecar, told map[string]answer) {
	t.Helper()
	s = newSidecar(t, p, o)
	told = make(map[string]answer)
	for i := range 50 {
		key := fmt.Sprint("key-", i)
		told[key] = s.send(t, named(key))
	}
	return s, told
}

func TestADamagedFileKeepsTheSidecarFromStarting(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte { b[len(b)/3] ^= 4; return b }
	cut := func(b []byte) []byte { return b[:len(b)/2] }
	empty := func([]byte) []byte { return nil }
	for _, tt := range []struct {
		file   string
		killed bool // else it was stopped
		damage map[string]func([]byte) []byte
	}{
		{"MANIFEST-*", false, map[string]func([]byte) []byte{"flipped": flip, "cut": cut, "empty": empty}},
		{"seal", false, map[string]func([]byte) []byte{"flipped": flip, "cut": cut, "empty": empty}},
		{"*.sst", false, map[string]func([]byte) []byte{"cut": cut, "empty": empty}},
		{"*.log", true, map[string]func([]byte) []byte{"flipped": func(b []byte) []byte {
			b[len(strings.TrimRight(string(b), "\x00"))/3] ^= 4
			return b
		}}},
		{"MANIFEST-*", true, map[string]func([]byte) []byte{"flipped": flip}},
	} {
		t.Run(fmt.Sprintf("%s, killed: %v", tt.file, tt.killed), func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			s, told := answeredSidecar(t, p, options{})
			if tt.killed {
				s.kill(t)
			} else {
				s.stop(t)
			}
			store := filepath.Join(s.dir, "store")
			for name, damage := range tt.damage {
				whole := make(map[string][]byte)
				for _, file := range s.stored(t, tt.file) {
					data, err := os.ReadFile(file)
					must(t, err)
					whole[file] = data
					must(t, os.WriteFile(file, damage(append([]byte(nil), data...)), 0o600))
				}
				t.Log(name)
				wantNoStart(t, s, store, "damaged", "restore it from a copy, or move the directory away")
				for file, data := range whole { // it was not mended by the attempt
					must(t, os.WriteFile(file, data, 0o600))
				}
			}
			s.start(t)
			wantTheSame(t, s, told)
			p.wantEffects(t, len(told))
		})
	}
}

// A table is read when it is needed, so that the sidecar starts. What it cannot
// read it must not take for absent.
func TestACallWhoseRecordCannotBeReadIsRefusedAndNotRunAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s, told := answeredSidecar(t, p, options{global: "cache off"})
	s.stop(t)
	for _, file := range s.stored(t, "*.sst") {
		data, err := os.ReadFile(file)
		must(t, err)
		if len(data) < 8<<10 {
			continue // it is about the store itself, and needed at the start
		}
		for i := len(data) / 4; i < len(data)/2; i += 500 { // amid the records
			data[i] ^= 4
		}
		must(t, os.WriteFile(file, data, 0o600))
	}
	s.start(t)
	refused := 0
	for key, first := range told {
		for range 2 {
			a := s.send(t, named(key))
			if a.status == 503 {
				wantUnavailable(t, a)
				refused++
			} else if a.body != first.body || !a.replayed() {
				t.Errorf("%s: first %+v, now %+v", key, first, a)
			}
		}
	}
	if refused == 0 {
		t.Error("nothing of what was damaged was read")
	}
	p.wantEffects(t, len(told))
	log := s.log(t)
	for _, what := range []string{"the database is damaged", filepath.Join(s.dir, "store"), "restore it from a copy"} {
		if !strings.Contains(log, what) {
			t.Errorf("the log does not say %q", what)
		}
	}
}

func TestADirectoryThatCannotBeWrittenToKeepsTheSidecarFromStarting(t *testing.T) {
	disk := newSmallDisk(t)
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "store disk " + disk.store()})
	told := map[string]answer{"a": s.send(t, named("a"))}
	for name, end := range map[string]func(testing.TB){"stopped": s.stop, "killed": s.kill} {
		end(t)
		remount(t, disk.dir, "ro")
		t.Log(name)
		wantNoStart(t, s, disk.store(), "read-only file system", "make its file system writable")
		remount(t, disk.dir, "rw")
		s.start(t)
		wantTheSame(t, s, told)
	}
	p.wantEffects(t, 1)
}

func TestASecondSidecarOnADirectoryIsToldWhoHasIt(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	first := s.send(t, named("a"))
	wantNoStart(t, s, filepath.Join(s.dir, "store"), "locked by another process",
		fmt.Sprintf("(genesys-sidecar, process %d)", s.cmd.Process.Pid), "reload")
	if a := s.send(t, named("a")); a.body != first.body {
		t.Errorf("the first gives %+v", a)
	}
	p.wantEffects(t, 1)
}
