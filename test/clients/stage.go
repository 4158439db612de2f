package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

const (
	clientID     = "sandbox"
	clientSecret = "sandbox-secret"
)

// stage is a sandbox with a sidecar in front of it.
type stage struct {
	dir     string
	sandbox *sandbox.Sandbox
	server  *http.Server
	direct  string // the sandbox's address
	sidecar string // the sidecar's
	token   string // for the sandbox

	cmd    *exec.Cmd
	exited chan error

	mu     sync.Mutex
	faults map[string]string // by action
	seen   map[string]int    // requests at the sandbox, by action
}

// newStage starts both, the sidecar from the program binary, with its store in
// dir.
func newStage(ctx context.Context, dir, binary string) (*stage, error) {
	s := &stage{dir: dir, faults: make(map[string]string), seen: make(map[string]int), exited: make(chan error, 1)}
	var err error
	if s.sandbox, err = sandbox.New(sandbox.Config{ClientID: clientID, ClientSecret: clientSecret}); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	s.direct = ln.Addr().String()
	s.server = s.sandbox.Server()
	s.server.Handler = http.HandlerFunc(s.serve)
	go func() { _ = s.server.Serve(ln) }()
	if err := errors.Join(s.logIn(ctx), s.startSidecar(ctx, binary)); err != nil {
		_ = s.close()
		return nil, err
	}
	return s, nil
}

// serve counts what comes to the sandbox, and has it fail as the scenario of the
// action wants it. To the client it is the action that fails: it asks for
// nothing.
func (s *stage) serve(w http.ResponseWriter, r *http.Request) {
	if id := actionOf(r.URL.Path); id != "" {
		s.mu.Lock()
		s.seen[id]++
		if fault := s.faults[id]; fault != "" {
			r.Header.Set("Sandbox-Fault", fault)
			r.Header.Set("Sandbox-Call", id)
		}
		s.mu.Unlock()
	}
	s.sandbox.ServeHTTP(w, r)
}

// actionOf returns the id of the action in a path, or nothing.
func actionOf(path string) string {
	_, rest, ok := strings.Cut(path, "/actions/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

func (s *stage) setFault(id, fault string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[id] = fault
}

func (s *stage) logIn(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.direct+"/oauth/token",
		strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		return err
	}
	req.SetBasicAuth(clientID, clientSecret)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	defer resp.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		return fmt.Errorf("logging in: %s: %w", resp.Status, err)
	}
	s.token = answer.Token
	return nil
}

// startSidecar starts the sidecar and waits until it listens. Its Caddyfile is
// the shipped one but for addresses, and for a log of the requests it gets.
func (s *stage) startSidecar(ctx context.Context, binary string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("looking for a free port: %w", err)
	}
	s.sidecar = ln.Addr().String()
	if err := ln.Close(); err != nil {
		return err
	}
	_, port, _ := net.SplitHostPort(s.sidecar)
	text := fmt.Sprintf(`{
	admin off
	genesys {
		store disk %s
	}
}
:%s {
	bind 127.0.0.1
	log {
		output file %s
		format json
	}
	genesys_cloud
}
`, filepath.Join(s.dir, "store"), port, s.accessLog())
	config := filepath.Join(s.dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(binary, "run", "--config", config, "--adapter", "caddyfile")
	s.cmd.Env = append(plainEnvironment(),
		"GENESYSCLOUD_API_URL=http://"+s.direct, "GENESYSCLOUD_LOGIN_URL=",
		"GENESYSCLOUD_OAUTHCLIENT_ID="+clientID, "GENESYSCLOUD_OAUTHCLIENT_SECRET="+clientSecret,
		"XDG_DATA_HOME="+s.dir, "XDG_CONFIG_HOME="+s.dir, "GORACE=atexit_sleep_ms=50")
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = s.dir, log, log, childAttributes()
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return fmt.Errorf("starting the sidecar: %w", err)
	}
	go func(cmd *exec.Cmd) { s.exited <- cmd.Wait() }(s.cmd)
	for ctx.Err() == nil {
		conn, err := net.Dial("tcp", s.sidecar)
		if err == nil {
			return conn.Close()
		}
		select {
		case err := <-s.exited:
			s.cmd = nil
			return fmt.Errorf("starting the sidecar: it ended: %w\n%s", err, s.log())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return ctx.Err()
}

func (s *stage) accessLog() string { return filepath.Join(s.dir, "access.log") }

func (s *stage) log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(b)
}

// warm has the sidecar keep a connection to the sandbox, which the next call may
// use.
func (s *stage) warm(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.sidecar+execute.path("custom_-_warm"), strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("warming the sidecar: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// stop ends the sidecar, which waits for the calls under way: after it the
// ledger is complete.
func (s *stage) stop() error {
	if s.cmd == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	var err error
	select {
	case err = <-s.exited:
	case <-time.After(time.Minute):
		_ = s.cmd.Process.Kill()
		err = errors.Join(errors.New("it still ran after a minute"), <-s.exited)
	}
	s.cmd = nil
	if err != nil {
		return fmt.Errorf("stopping the sidecar: %w\n%s", err, s.log())
	}
	for _, bad := range []string{"DATA RACE", "panic: "} {
		if log := s.log(); strings.Contains(log, bad) {
			return fmt.Errorf("the sidecar's log has %q: %s", bad, log)
		}
	}
	return nil
}

func (s *stage) close() error {
	err := s.stop()
	return errors.Join(err, s.sandbox.Close(), s.server.Close())
}

// counts are what became of an order.
type counts struct {
	sent     int // by the client: requests that came to whom it talked to
	upstream int // requests that came to the sandbox
	executed int
}

// count returns the counts by action. The sidecar has to be stopped.
func (s *stage) count() (map[string]counts, error) {
	all := make(map[string]counts)
	s.mu.Lock()
	for id, n := range s.seen {
		c := all[id]
		c.sent, c.upstream = n, n
		all[id] = c
	}
	s.mu.Unlock()
	for _, e := range s.sandbox.Ledger(sandbox.Filter{}).Effects {
		c := all[e.Action]
		c.executed++
		all[e.Action] = c
	}
	b, err := os.ReadFile(s.accessLog())
	if err != nil {
		return nil, fmt.Errorf("reading the sidecar's access log: %w", err)
	}
	through := make(map[string]int)
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var line struct {
			Request struct {
				URI string `json:"uri"`
			} `json:"request"`
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("reading the sidecar's access log: %w", err)
		}
		path, _, _ := strings.Cut(line.Request.URI, "?")
		if id := actionOf(path); id != "" {
			through[id]++
		}
	}
	for id, n := range through {
		c := all[id]
		c.sent = n
		all[id] = c
	}
	return all, nil
}

// plainEnvironment returns the environment without what leads HTTP clients
// elsewhere.
func plainEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasSuffix(strings.ToLower(name), "_proxy") && !strings.HasPrefix(name, "GENESYS") {
			env = append(env, v)
		}
	}
	return env
}
