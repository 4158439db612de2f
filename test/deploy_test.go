package test

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"genesys-sidecar/caddymodule/sandbox"
)

const deploy = "../deploy"

// TestWhatCannotBeRunHereIsReadByThoseItIsFor has BuildKit's linter and
// Kubernetes' own types look at what is meant for them.
func TestWhatCannotBeRunHereIsReadByThoseItIsFor(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "run", "-C", "manifests", ".", "../"+deploy+"/Dockerfile", "../"+deploy+"/kubernetes/sidecar.yaml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestDeployedCaddyfilesAreFormatted(t *testing.T) {
	for file, text := range map[string]string{
		"systemd/Caddyfile":       read(t, deploy+"/systemd/Caddyfile"),
		"fleet/Caddyfile":         read(t, deploy+"/fleet/Caddyfile"),
		"kubernetes/sidecar.yaml": configMap(t),
	} {
		if formatted := string(caddyfile.Format([]byte(text))); formatted != text {
			t.Errorf("%s is not formatted; it should be:\n%s", file, formatted)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// configMap returns the Caddyfile of the Kubernetes manifest.
func configMap(t *testing.T) string {
	t.Helper()
	_, block, ok := strings.Cut(read(t, deploy+"/kubernetes/sidecar.yaml"), "\n  Caddyfile: |\n")
	if !ok {
		t.Fatal("the manifest has no Caddyfile")
	}
	var b strings.Builder
	for line := range strings.Lines(block) {
		rest, ok := strings.CutPrefix(line, "    ")
		if !ok && line != "\n" {
			break
		}
		b.WriteString(rest)
	}
	return b.String()
}

func TestTheManifestsCaddyfileServesCallsAndProbes(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := &sidecar{platform: p, dir: t.TempDir(), address: freeAddress(t), admin: freeAddress(t), client: &http.Client{}}
	probes := freeAddress(t)
	for name, content := range map[string]string{"id": "sandbox", "secret": secret} {
		writeFile(t, filepath.Join(s.dir, name), content+"\n")
	}
	s.env = []string{"CADDY_ADMIN=" + s.admin}
	writeFile(t, s.config(), strings.NewReplacer(
		"region eu-west-1 # yours", "api_url "+p.url,
		"/run/secrets/genesys", s.dir,
		":8080 ", ":"+port(s.address)+" ",
		":8081 {", ":"+port(probes)+" {\n\tbind 127.0.0.1", // the kubelet would reach it from elsewhere
	).Replace(configMap(t)))
	s.run(t)

	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Errorf("a call: %+v", a)
	}
	for _, path := range []string{"/genesys/health", "/genesys/ready"} {
		s.address = probes
		if a := s.send(t, request{method: http.MethodGet, path: path}); a.status != 200 {
			t.Errorf("%s: %+v", path, a)
		}
	}
	if a := s.send(t, keyed(1)); a.status == 200 && a.body != "" {
		t.Errorf("the probes' port takes calls: %+v", a)
	}
}

// needs skips a test where a program is missing, unless the environment variable
// says that this must not be.
func needs(t *testing.T, program, variable string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		if os.Getenv(variable) != "" {
			t.Fatalf("%s is set, and there is no %s", variable, program)
		}
		t.Skipf("there is no %s here", program)
	}
}

const unitFile = deploy + "/systemd/genesys-sidecar.service"

func TestTheUnitIsSoundAndHardened(t *testing.T) {
	needs(t, "systemd-analyze", "GENESYS_SIDECAR_NEED_SYSTEMD")
	const installed = "/usr/local/bin/genesys-sidecar"
	text := strings.ReplaceAll(read(t, unitFile), installed, binary)
	if !strings.Contains(text, "ExecStart="+binary) {
		t.Fatalf("the unit does not start %s", installed)
	}
	file := filepath.Join(t.TempDir(), "genesys-sidecar.service")
	writeFile(t, file, text)
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("verify: %v: %s", err, out)
	}
	// An exposure of 1.5 of 10 at most. A service that does nothing about it has 9.6.
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", file).CombinedOutput(); err != nil {
		t.Errorf("security: %v: %s", err, out)
	}
}

// TestTheUnitsCaddyfileRunsAsTheUnitHasIt stands in for systemd: a directory for
// the credential, one for the state, and a socket to say "ready" to.
func TestTheUnitsCaddyfileRunsAsTheUnitHasIt(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	dir, credentials := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(credentials, "client_secret"), secret+"\n")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()

	s := &sidecar{platform: p, dir: dir, address: freeAddress(t), admin: freeAddress(t), client: &http.Client{}}
	writeFile(t, s.config(), read(t, deploy+"/systemd/Caddyfile"))
	arguments := func(directive string) []string {
		m := regexp.MustCompile(`(?m)^` + directive + `=/usr/local/bin/genesys-sidecar (.*)$`).FindStringSubmatch(read(t, unitFile))
		if m == nil {
			t.Fatalf("the unit has no %s", directive)
		}
		return strings.Fields(strings.ReplaceAll(m[1], "/etc/genesys-sidecar/Caddyfile", s.config()))
	}
	unit := func(directive string) *exec.Cmd {
		cmd := exec.Command(binary, arguments(directive)...)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir,
			"CREDENTIALS_DIRECTORY=" + credentials, "NOTIFY_SOCKET=" + notify.LocalAddr().String(),
			"GENESYSCLOUD_API_URL=" + p.url, "GENESYSCLOUD_OAUTHCLIENT_ID=sandbox",
			"GENESYS_SIDECAR_PORT=" + port(s.address), "CADDY_ADMIN=" + s.admin,
		}
		return cmd
	}
	awaitNotice := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(buf[:n]), want) {
				return
			}
		}
	}

	s.launch(t, unit("ExecStart"))
	awaitNotice("READY=1")
	first := s.send(t, keyed(1))
	if first.status != 200 {
		t.Errorf("got %+v", first)
	}
	if out, err := unit("ExecReload").CombinedOutput(); err != nil {
		t.Errorf("reloading: %v: %s", err, out)
	}
	awaitNotice("RELOADING=1")
	awaitNotice("READY=1")
	if a := s.send(t, keyed(1)); !a.replayed() || a.body != first.body {
		t.Errorf("after the reload: %+v", a)
	}
	s.stop(t)
	awaitNotice("STOPPING=1")
	p.wantEffects(t, 1)
	s.checkLog(t)
}
