package test

import (
	"os"
	"os/exec"
	"testing"
)

// envNeedMount makes tests fail that would be skipped because nothing can be
// mounted.
const envNeedMount = "GENESYS_SIDECAR_NEED_MOUNT"

// mount mounts something at a new directory, for as long as the test runs. It
// skips the test where that is not permitted.
func mount(t *testing.T, args ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	mountAt(t, dir, args...)
	return dir
}

// mountAt is mount at a directory that is there.
func mountAt(t *testing.T, dir string, args ...string) {
	t.Helper()
	out, err := exec.Command("mount", append(args, dir)...).CombinedOutput()
	if err != nil {
		if os.Getenv(envNeedMount) != "" {
			t.Fatalf("%s is set, and mounting failed: %v: %s", envNeedMount, err, out)
		}
		t.Skipf("a file system of its own cannot be mounted here (root may): %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("unmounting: %v: %s", err, out)
		}
	})
}

// remount changes how dir is mounted.
func remount(t *testing.T, dir, options string) {
	t.Helper()
	if out, err := exec.Command("mount", "-o", "remount,"+options, dir).CombinedOutput(); err != nil {
		t.Fatalf("mounting anew: %v: %s", err, out)
	}
}
