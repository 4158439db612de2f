package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

const (
	execute = "/api/v2/integrations/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/execute" // ignores keys
	invoke  = "/api/v2/dataactions/actions/custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11/invoke"   // honors keys
)

const secret = "sandbox-secret-Zm9vYmFy"

// platform is a sandbox that a sidecar can be put in front of.
type platform struct {
	*sandbox.Sandbox
	url string
}

func newPlatform(t *testing.T, cfg sandbox.Config) *platform {
	t.Helper()
	cfg.ClientSecret = secret
	s, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	server.Config = s.Server()
	server.Start()
	t.Cleanup(func() {
		_ = s.Close()
		server.CloseClientConnections()
		server.Close()
	})
	return &platform{s, server.URL}
}

// control uses one of the sandbox's controls.
func (p *platform) control(t *testing.T, method, path, body string) {
	t.Helper()
	req, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
}

// wantEffects checks how often something was executed.
func (p *platform) wantEffects(t *testing.T, want int) {
	t.Helper()
	if got := p.Summary().Effects; got != want {
		t.Errorf("the sandbox executed %d effects, want %d", got, want)
	}
}

// sidecar is the program under test, as a process.
type sidecar struct {
	platform *platform
	dir      string // of its store, log and configuration
	program  string // default: binary
	env      []string
	address  string
	admin    string
	cmd      *exec.Cmd
	ended    chan error
	client   *http.Client
}

// options are what a test changes about a sidecar's configuration.
type options struct {
	global string // further lines of the global option genesys; "store" replaces the default store
	block  string // lines of genesys_cloud
	site   string // lines before genesys_cloud
}

// newSidecar starts a sidecar in front of p.
func newSidecar(t *testing.T, p *platform, o options) *sidecar {
	t.Helper()
	return newSidecarOf(t, p, binary, o)
}

// newSidecarOf starts program as a sidecar, with more in its environment.
func newSidecarOf(t *testing.T, p *platform, program string, o options, env ...string) *sidecar {
	t.Helper()
	s := &sidecar{
		platform: p,
		dir:      t.TempDir(),
		program:  program,
		env:      env,
		address:  freeAddress(t),
		admin:    freeAddress(t),
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}},
	}
	s.configure(t, o)
	s.start(t)
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		s.stop(t)
		s.checkLog(t)
	})
	return s
}

// configure writes the sidecar's Caddyfile.
func (s *sidecar) configure(t *testing.T, o options) {
	t.Helper()
	if !strings.Contains(o.global, "store ") {
		o.global += "\n\t\tstore disk " + filepath.Join(s.dir, "store")
	}
	_, port, _ := net.SplitHostPort(s.address)
	text := fmt.Sprintf(`{
	admin %s
	genesys {
		%s
	}
	log {
		level DEBUG
	}
}
:%s {
	bind 127.0.0.1
	%s
	genesys_cloud {
		%s
	}
}
`, s.admin, o.global, port, o.site, o.block)
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *sidecar) config() string  { return filepath.Join(s.dir, "Caddyfile") }
func (s *sidecar) logFile() string { return filepath.Join(s.dir, "log") }

func (s *sidecar) command(args ...string) *exec.Cmd {
	program := s.program
	if program == "" {
		program = binary
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(append(os.Environ(), s.env...),
		"GENESYSCLOUD_API_URL="+s.platform.url,
		"GENESYSCLOUD_LOGIN_URL=",
		"GENESYSCLOUD_OAUTHCLIENT_ID=sandbox",
		"GENESYSCLOUD_OAUTHCLIENT_SECRET="+secret,
		"XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir,
		"GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE")) // a second else, with every stop
	return cmd
}

// start starts the process and waits until it answers.
func (s *sidecar) start(t testing.TB) {
	t.Helper()
	s.launch(t, s.command("run", "--config", s.config(), "--adapter", "caddyfile"))
}

// launch starts cmd as the process, and waits until it answers.
func (s *sidecar) launch(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = cmd
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.ended = make(chan error, 1)
	go func(cmd *exec.Cmd, ended chan error) { ended <- cmd.Wait() }(s.cmd, s.ended)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case err := <-s.ended:
			s.cmd = nil
			t.Fatalf("the sidecar ended: %v\n%s", err, s.log(t))
		case <-ctx.Done():
			t.Fatalf("the sidecar does not answer: %v\n%s", err, s.log(t))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill ends the process as a crash would.
func (s *sidecar) kill(t testing.TB) {
	t.Helper()
	_ = s.cmd.Process.Kill()
	<-s.ended
	s.cmd = nil
}

// stop asks the process to end, and waits for that.
func (s *sidecar) stop(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-s.ended; err != nil {
		t.Errorf("the sidecar ended with %v\n%s", err, s.log(t))
	}
	s.cmd = nil
}

// reload makes the process take over its Caddyfile anew.
func (s *sidecar) reload(t testing.TB) {
	t.Helper()
	out, err := s.command("reload", "--config", s.config(), "--adapter", "caddyfile", "--address", s.admin, "--force").CombinedOutput()
	if err != nil {
		t.Fatalf("reloading: %v\n%s\n%s", err, out, s.log(t))
	}
}

func (s *sidecar) log(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(s.logFile())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// checkLog looks for what must not be in any test's log.
func (s *sidecar) checkLog(t *testing.T) {
	t.Helper()
	log := s.log(t)
	for _, bad := range []string{secret, "Bearer ", "DATA RACE", "panic: "} {
		if i := strings.Index(log, bad); i >= 0 {
			t.Errorf("the log contains %q: %s", bad, log[max(0, i-200):min(len(log), i+2000)])
		}
	}
}

// answer is what a caller got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) replayed() bool { return a.header.Get("Idempotent-Replayed") == "true" }

// request describes a call. The zero headers send none.
type request struct {
	method string // default: POST
	path   string
	body   string
	header []string // name, value, …
}

// new returns the HTTP request, which no client can send twice by itself.
func (s *sidecar) newRequest(ctx context.Context, r request) *http.Request {
	if r.method == "" {
		r.method = http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "http://"+s.address, io.NopCloser(bytes.NewReader([]byte(r.body))))
	if err != nil {
		panic(err)
	}
	req.URL.Opaque = r.path // as it is, however disguised
	req.ContentLength = int64(len(r.body))
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(r.header); i += 2 {
		req.Header.Add(r.header[i], r.header[i+1])
	}
	return req
}

// try sends a request.
func (s *sidecar) try(ctx context.Context, r request) (answer, error) {
	resp, err := s.client.Do(s.newRequest(ctx, r))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body)}, err
}

// send sends a request that must be answered.
func (s *sidecar) send(t testing.TB, r request) answer {
	t.Helper()
	a, err := s.try(context.Background(), r)
	if err != nil {
		t.Fatalf("sending: %v\n%s", err, s.log(t))
	}
	return a
}

// leave sends a request and leaves as soon as the condition holds.
func (s *sidecar) leave(t testing.TB, r request, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := s.try(ctx, r); err == nil {
			t.Errorf("the caller was answered before it left: %+v", a)
		}
	})
	waitFor(t, condition)
	cancel()
	wg.Wait()
}

// waitFor waits until condition holds.
func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// freeAddress returns an address on which nothing listens, that no other test has
// got, and that systems do not give to outgoing connections.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		// Browsers refuse 10080, and no other of these.
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10100+rand.IntN(4900)))
		if _, taken := addresses.LoadOrStore(address, nil); taken {
			continue
		}
		t.Cleanup(func() { addresses.Delete(address) })
		if ln, err := net.Listen("tcp", address); err == nil {
			_ = ln.Close()
			return address
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// addresses are those that tests have got.
var addresses sync.Map
