package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"genesys-sidecar/test/child"
)

// patience is how long a sidecar may take to start or to stop. A call takes up
// to its deadline of 15 s, and a stopping sidecar waits for it.
const patience = 60 * time.Second

// sidecar is one of the fleet, over all its restarts. Of its methods one may be
// called at a time.
type sidecar struct {
	number int
	binary string
	dir    string
	admin  string
	env    []string
	store  string // the option of that name, as the Caddyfile has it
	cache  string // likewise
	debug  bool
	moves  bool                        // it has a new address with each start
	moved  func()                      // called when it has
	ended  func(s *sidecar, err error) // called when it ends by itself

	at   atomic.Pointer[string] // its address
	proc *running
}

func (s *sidecar) address() string { return *s.at.Load() }

// move gives it another address.
func (s *sidecar) move() error {
	address, err := child.FreeAddress()
	if err != nil {
		return err
	}
	s.at.Store(&address)
	return s.configure()
}

// running is a process of a sidecar.
type running struct {
	*child.Process
	expected atomic.Bool // it is made to end
}

// configure writes the Caddyfile. Calls are over soon, so that chaos meets many.
func (s *sidecar) configure() error {
	level := "INFO"
	if s.debug {
		level = "DEBUG"
	}
	_, port, err := net.SplitHostPort(s.address())
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`{
	admin %s
	genesys {
		cache %s
		store %s
	}
	log {
		level %s
	}
}
:%s {
	bind 127.0.0.1
	genesys_cloud {
		wait 5s
		backoff 50ms 500ms
		timeout 5s
		deadline 15s
	}
}
`, s.admin, s.cache, s.store, level, port)
	return os.WriteFile(s.config(), []byte(text), 0o600)
}

func (s *sidecar) config() string  { return filepath.Join(s.dir, "Caddyfile") }
func (s *sidecar) logFile() string { return filepath.Join(s.dir, "log") }

// start starts the process and waits until it listens.
func (s *sidecar) start() error {
	if s.moves && s.proc != nil {
		if err := s.move(); err != nil {
			return fmt.Errorf("starting sidecar %d: %w", s.number, err)
		}
		s.moved()
	}
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("starting sidecar %d: %w", s.number, err)
	}
	defer log.Close()
	cmd := exec.Command(s.binary, "run", "--config", s.config(), "--adapter", "caddyfile")
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "XDG_DATA_HOME=" + s.dir, "XDG_CONFIG_HOME=" + s.dir,
		"GORACE=atexit_sleep_ms=50",
	}, s.env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	started, err := child.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("starting sidecar %d: %w", s.number, err)
	}
	p := &running{Process: started}
	go func() {
		if err := p.Wait(); !p.expected.Load() {
			s.ended(s, err)
		}
	}()
	s.proc = p
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", s.address(), time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.Ended():
			return fmt.Errorf("starting sidecar %d: it ended: %w", s.number, errors.Join(p.Wait(), errors.New("before it answered")))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("starting sidecar %d: %w", s.number, err)
		}
	}
}

// kill ends the process as a crash would.
func (s *sidecar) kill() {
	s.proc.expected.Store(true)
	s.proc.Crash()
}

// stop asks the process to end and waits until it has, as it should.
func (s *sidecar) stop() error {
	s.proc.expected.Store(true)
	if err := s.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.proc.Ended():
	case <-time.After(patience):
		s.kill()
		return fmt.Errorf("stopping sidecar %d: it still ran after %v", s.number, patience)
	}
	if err := s.proc.Wait(); err != nil {
		return fmt.Errorf("stopping sidecar %d: it ended with %w", s.number, err)
	}
	return nil
}

func (s *sidecar) signal(sig syscall.Signal) error {
	if err := s.proc.Signal(sig); err != nil {
		return fmt.Errorf("sidecar %d: %w", s.number, err)
	}
	return nil
}

// reload has the process take over its Caddyfile anew, as the command of that
// name does.
func (s *sidecar) reload() error {
	text, err := os.ReadFile(s.config())
	if err != nil {
		return fmt.Errorf("reloading sidecar %d: %w", s.number, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.admin+"/load", strings.NewReader(string(text)))
	if err != nil {
		return fmt.Errorf("reloading sidecar %d: %w", s.number, err)
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate") // though nothing has changed
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("reloading sidecar %d: %w", s.number, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("reloading sidecar %d: %s: %s", s.number, resp.Status, body)
	}
	return nil
}
