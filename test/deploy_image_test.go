//go:build linux

package test

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// dockerfile has what the tests take from the Dockerfile.
type dockerfile struct {
	build       string // the command that builds the program
	entrypoint  []string
	command     []string
	healthcheck []string
	env         []string
}

func readDockerfile(t *testing.T) dockerfile {
	t.Helper()
	text := strings.ReplaceAll(read(t, deploy+"/Dockerfile"), "\\\n", "")
	line := func(pattern string) string {
		m := regexp.MustCompile(`(?m)^\s*` + pattern + `$`).FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return m[1]
	}
	list := func(pattern string) (args []string) {
		if err := json.Unmarshal([]byte(line(pattern)), &args); err != nil {
			t.Fatal(err)
		}
		return args
	}
	if user := line(`USER (.*)`); user != "65532:65532" {
		t.Fatalf("its user is %s", user)
	}
	return dockerfile{
		build:       line(`RUN (.*go build.*)`),
		entrypoint:  list(`ENTRYPOINT (.*)`),
		command:     list(`CMD (.*)`),
		healthcheck: list(`HEALTHCHECK .*CMD (.*)`),
		env:         strings.Fields(line(`ENV (.*)`)),
	}
}

// TestTheImageNeedsNothingButItself builds the program by the Dockerfile's own
// command, and runs it as the image would: alone in a file system that cannot be
// written to but for its volumes, as its user.
func TestTheImageNeedsNothingButItself(t *testing.T) {
	t.Parallel()
	image := readDockerfile(t)
	root := mount(t, "-t", "tmpfs", "tmpfs")
	program := filepath.Join(root, "genesys-sidecar")
	build := exec.Command("sh", "-c", strings.Replace(image.build, "-o /genesys-sidecar", "-o "+program, 1))
	build.Dir = ".."
	build.Env = append(os.Environ(), "TARGETOS=", "TARGETARCH=", "VERSION=v1.2.3")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}

	p := newPlatform(t, sandbox.Config{})
	s := &sidecar{platform: p, dir: filepath.Join(root, "data"), address: freeAddress(t), admin: freeAddress(t), client: &http.Client{}}
	for _, dir := range []string{"data", "config", "etc/caddy"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/caddy/Caddyfile"), []byte(read(t, "../Caddyfile")), 0o644); err != nil { //nolint:gosec // as in the image
		t.Fatal(err)
	}
	for _, volume := range []string{"data", "config"} {
		mountAt(t, filepath.Join(root, volume), "-t", "tmpfs", "-o", "uid=65532,gid=65532,mode=0700", "tmpfs")
	}
	remount(t, root, "ro")

	inside := func(args ...string) *exec.Cmd {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		cmd.Dir = "/"
		cmd.Env = append(slices.Clip(image.env),
			"GENESYSCLOUD_API_URL="+p.url, "GENESYSCLOUD_OAUTHCLIENT_ID=sandbox", "GENESYSCLOUD_OAUTHCLIENT_SECRET="+secret,
			"GENESYS_SIDECAR_PORT="+port(s.address), "CADDY_ADMIN="+s.admin)
		return cmd
	}
	if out, err := inside(image.entrypoint[0], "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "genesys-sidecar v1.2.3, Caddy v2") {
		t.Fatalf("version: %v: %s", err, out)
	}

	var first answer
	for range 2 { // the second time, as a container that is restarted
		s.launch(t, inside(slices.Concat(image.entrypoint, image.command)...))
		a := s.send(t, keyed(1))
		if a.status != 200 || first.body != "" && a.body != first.body {
			t.Errorf("got %+v, first %+v", a, first)
		}
		first = a
		if out, err := inside(image.healthcheck...).CombinedOutput(); err != nil {
			t.Errorf("the health check of one that runs: %v: %s", err, out)
		}
		s.stop(t)
		if out, err := inside(image.healthcheck...).CombinedOutput(); err == nil {
			t.Errorf("the health check of one that does not run: %s", out)
		}
	}
	p.wantEffects(t, 1)
	s.checkLog(t)
}
