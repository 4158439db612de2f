package test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// newPatient returns a sidecar that is configured but does not run.
func newPatient(t *testing.T, p *platform, o options) *sidecar {
	t.Helper()
	s := &sidecar{platform: p, dir: t.TempDir(), address: freeAddress(t), admin: freeAddress(t)}
	s.configure(t, o)
	return s
}

// diagnosis is the doctor's report.
type diagnosis struct {
	ended
	Problems int
	Warnings int
	Findings []struct{ Check, Level, Found, Advice string }
}

// doctor has the doctor look at the sidecar's configuration, in an environment
// with more in it.
func (s *sidecar) doctor(t *testing.T, env ...string) diagnosis {
	t.Helper()
	look := func(args ...string) *exec.Cmd {
		cmd := s.command(append([]string{"genesys", "doctor", "--config", s.config()}, args...)...)
		cmd.Env = append(append(cmd.Env, "HTTPS_PROXY=", "HTTP_PROXY=", "https_proxy=", "http_proxy="), env...)
		return cmd
	}
	var d diagnosis
	e := finish(t, look("--json"))
	if err := json.Unmarshal([]byte(e.out), &d); err != nil {
		t.Fatalf("%v: %+v", err, e)
	}
	if e.err != "" {
		t.Errorf("said aside: %s", e.err)
	}
	want := 0
	if d.Problems > 0 {
		want = 1
	}
	if e.code != want {
		t.Errorf("exits with %d with %d problems", e.code, d.Problems)
	}
	d.ended = finish(t, look())
	if d.code != want || strings.Count(d.out, "\nproblem ") != d.Problems {
		t.Errorf("exits with %d and says %s", d.code, d.out)
	}
	return d
}

// want checks that there is a finding of that level whose text or advice has
// text.
func (d *diagnosis) want(t *testing.T, check, level, text string) {
	t.Helper()
	for _, f := range d.Findings {
		if f.Check == check && f.Level == level && strings.Contains(f.Found+" → "+f.Advice, text) {
			if level != "ok" && f.Advice == "" {
				t.Errorf("no advice: %+v", f)
			}
			return
		}
	}
	t.Errorf("no %s of %s with %q: %s", level, check, text, d.out)
}

func TestTheDoctorFindsNothingWhereAllIsWell(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newPatient(t, p, options{})
	d := s.doctor(t)
	for _, check := range []string{"configuration", "sidecar", "credentials", "API", "role", "clock", "store", "listeners", "proxy"} {
		d.want(t, check, "ok", "")
	}
	if d.Problems != 0 {
		t.Errorf("got %s", d.out)
	}
	p.wantEffects(t, 0)
	entries, err := os.ReadDir(s.dir)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "store" }) {
		t.Errorf("the store was made: %v, %v", entries, err)
	}
}

func TestTheDoctorAndTheCredentials(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newPatient(t, p, options{})
	nobody := "http://" + freeAddress(t)
	for _, test := range []struct{ env, check, want string }{
		{"GENESYSCLOUD_OAUTHCLIENT_SECRET=wrong-one", "credentials", "check client_secret"},
		{"GENESYSCLOUD_OAUTHCLIENT_ID=somebody", "credentials", "one region only"},
		{"GENESYSCLOUD_OAUTHCLIENT_ID=", "configuration", "no OAuth client"},
		{"GENESYSCLOUD_LOGIN_URL=" + nobody, "credentials", "refuses the connection"},
		{"GENESYSCLOUD_API_URL=" + nobody, "API", "refuses the connection"},
		{"GENESYSCLOUD_API_URL=https" + strings.TrimPrefix(p.url, "http"), "API", "does not speak TLS"},
	} {
		d := s.doctor(t, test.env)
		d.want(t, test.check, "problem", test.want)
		if strings.Contains(d.out, "wrong-one") {
			t.Errorf("the secret is told: %s", d.out)
		}
	}
}

func TestTheDoctorNoticesACertificateThatIsNotTrusted(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	server := httptest.NewTLSServer(p.Sandbox)
	t.Cleanup(server.Close)
	s := newPatient(t, p, options{})
	d := s.doctor(t, "GENESYSCLOUD_API_URL="+server.URL)
	d.want(t, "credentials", "problem", "not trusted")
	d.want(t, "API", "problem", "tls_trust_pool")
}

func TestTheDoctorNoticesAMissingPermission(t *testing.T) {
	p := newPlatform(t, sandbox.Config{Forbidden: true})
	d := newPatient(t, p, options{}).doctor(t)
	d.want(t, "role", "problem", "integrations:action:execute")
}

func TestTheDoctorNoticesAClockThatIsWrong(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	to, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(-5*time.Minute).UTC().Format(http.TimeFormat))
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	d := newPatient(t, p, options{}).doctor(t, "GENESYSCLOUD_API_URL="+server.URL)
	d.want(t, "clock", "warning", "ahead of")
}

func TestTheDoctorAndTheStoresDirectory(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newPatient(t, p, options{global: "store disk " + filepath.Join(file, "store")}).doctor(t)
	d.want(t, "store", "problem", "is no directory")

	open := t.TempDir()
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	d = newPatient(t, p, options{global: "store disk " + open}).doctor(t)
	d.want(t, "store", "warning", "chmod 700")

	if _, err := os.Stat("/dev/shm"); err == nil {
		d = newPatient(t, p, options{global: "store disk /dev/shm/genesys-sidecar-test"}).doctor(t)
		d.want(t, "store", "warning", "tmpfs")
	}

	readOnly := mount(t, "-t", "tmpfs", "-o", "size=1m", "none")
	d = newPatient(t, p, options{global: "store disk " + readOnly}).doctor(t)
	d.want(t, "store", "problem", "make room")
	remount(t, readOnly, "ro")
	d = newPatient(t, p, options{global: "store disk " + readOnly}).doctor(t)
	d.want(t, "store", "problem", "make its file system writable")
}

func TestTheDoctorAsksTheSidecarThatRuns(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	s.send(t, keyed(1))
	d := s.doctor(t)
	d.want(t, "sidecar", "ok", "answers at "+s.admin)
	d.want(t, "store", "ok", "the running sidecar has it open")
	if d.Problems != 0 {
		t.Errorf("got %s", d.out)
	}
	if a := s.send(t, keyed(1)); a.status != 200 || !a.replayed() {
		t.Errorf("a call after the doctor: %+v", a)
	}

	other := newPatient(t, p, options{global: "store disk " + filepath.Join(s.dir, "store")})
	d = other.doctor(t)
	d.want(t, "store", "warning", "no sidecar answers")

	p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
	p.control(t, "POST", "/sandbox/tokens/revoke", "")
	s.send(t, keyed(2))
	s.send(t, keyed(3))
	d = s.doctor(t)
	d.want(t, "sidecar", "problem", "has no token")
	d.want(t, "credentials", "problem", "503")
}

func TestTheDoctorTakesTheConfigurationThatRuns(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	cmd := s.command("genesys", "doctor", "--address", s.admin)
	cmd.Dir = t.TempDir()
	if e := finish(t, cmd); e.code != 0 || !strings.Contains(e.out, "the configuration of the sidecar that runs") {
		t.Errorf("got %+v", e)
	}
	cmd = s.command("genesys", "doctor", "--address", freeAddress(t))
	cmd.Dir = t.TempDir()
	if e := finish(t, cmd); e.code != 2 || !strings.Contains(e.err, "nothing to look at") {
		t.Errorf("got %+v", e)
	}
}

func TestTheDoctorNoticesAConfigurationThatDoesNotLoad(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newPatient(t, p, options{block: "nosuch option"})
	d := s.doctor(t)
	d.want(t, "configuration", "problem", "nosuch")
	if err := os.WriteFile(s.config(), []byte(":8080 {\n\trespond ok\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = s.doctor(t)
	d.want(t, "configuration", "problem", "no app genesys")
}

func TestTheDoctorAndRedis(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	durable := redistest.New(t, redistest.Options{Password: "pw-of-redis", Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	lazy := redistest.New(t, redistest.Options{Args: []string{"--maxmemory-policy", "allkeys-lru"}})

	d := newPatient(t, p, options{global: "store redis " + durable.URL()}).doctor(t)
	d.want(t, "store", "ok", "answers")
	if d.Problems != 0 || d.Warnings != 0 || strings.Contains(d.out, "pw-of-redis") {
		t.Errorf("got %s", d.out)
	}
	d = newPatient(t, p, options{global: "store redis " + lazy.URL()}).doctor(t)
	d.want(t, "store", "warning", "set it to noeviction")
	d.want(t, "store", "warning", "appendonly is no")

	d = newPatient(t, p, options{global: "store redis redis://:wrong-one@" + durable.Addr()}).doctor(t)
	d.want(t, "store", "problem", "WRONGPASS")
	if strings.Contains(d.out, "wrong-one") {
		t.Errorf("the password is told: %s", d.out)
	}
	d = newPatient(t, p, options{global: "store redis redis://" + freeAddress(t)}).doctor(t)
	d.want(t, "store", "problem", "does not serve")
}
