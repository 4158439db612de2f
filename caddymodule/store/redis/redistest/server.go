package redistest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Options are the options of a server. The zero value is ready for use: a
// server that keeps its data in memory only.
type Options struct {
	// Args are further settings as on redis-server's command line, such as
	// "--appendonly", "yes". They win over the settings made here.
	Args []string

	// Password is what clients have to log in with. Empty: none.
	Password string

	// TLS has the server speak TLS, and nothing else, with a certificate that
	// is made for it. Clients need none unless Args say otherwise.
	TLS bool

	// ReplicaOf is the server to copy, which must not use TLS. nil: none.
	ReplicaOf *Server
}

// Server is a redis-server.
type Server struct {
	bin      string
	dir      string
	addr     string
	args     []string
	password string
	certs    *certificates // nil: no TLS

	mu   sync.Mutex
	proc *process
}

// ErrNotInstalled is returned where there is no redis-server.
var ErrNotInstalled = errors.New("redis-server is not installed")

// errPortTaken: another process took the port before the server could.
var errPortTaken = errors.New("the port is taken")

// Start starts a server and waits until it answers. The caller closes it.
func Start(opts Options) (*Server, error) {
	if opts.ReplicaOf != nil && opts.ReplicaOf.certs != nil {
		return nil, errors.New("starting redis-server: a replica of a server with TLS is not supported")
	}
	return launch(opts.Password, func(s *Server, port int) error {
		s.args = []string{
			"--bind", "127.0.0.1",
			"--save", "",
			"--enable-debug-command", "local",
			"--repl-diskless-sync-delay", "0",
		}
		if opts.Password != "" {
			s.args = append(s.args, "--requirepass", opts.Password)
		}
		if master := opts.ReplicaOf; master != nil {
			host, port, err := net.SplitHostPort(master.Addr())
			if err != nil {
				return err
			}
			s.args = append(s.args, "--replicaof", host, port)
			if master.password != "" {
				s.args = append(s.args, "--masterauth", master.password)
			}
		}
		if opts.TLS {
			var err error
			if s.certs, err = makeCertificates(s.dir); err != nil {
				return err
			}
			s.args = append(s.args, s.certs.args(port)...)
		} else {
			s.args = append(s.args, "--port", strconv.Itoa(port))
		}
		s.args = append(s.args, opts.Args...)
		return nil
	})
}

// launch starts a server whose args configure sets, on a port that is free.
func launch(password string, configure func(s *Server, port int) error) (*Server, error) {
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, ErrNotInstalled
	}
	for range 20 {
		var s *Server
		s, err = launchOnce(bin, password, configure)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	return nil, fmt.Errorf("starting redis-server: %w", err)
}

func launchOnce(bin, password string, configure func(s *Server, port int) error) (*Server, error) {
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, dir: dir, password: password}
	port, err := freePort()
	if err == nil {
		s.addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		err = configure(s, port)
	}
	if err == nil {
		err = s.Restart()
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// freePort returns a port on which nothing listens at the moment. It is none
// of those that systems give to outgoing connections: such a connection could
// take the port while the server is down, and a client that keeps dialing the
// port could even be connected to itself.
func freePort() (int, error) {
	l, err := listen()
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func listen() (net.Listener, error) {
	var err error
	for range 100 {
		var l net.Listener
		l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000))))
		if err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("looking for a free port: %w", err)
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return s.addr }

// URL returns the server's address as a URL, with the password, if any.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.addr}
	if s.certs != nil {
		u.Scheme = "rediss"
	}
	if s.password != "" {
		u.User = url.UserPassword("", s.password)
	}
	return u.String()
}

// Dir returns the server's working directory, where it keeps its data.
func (s *Server) Dir() string { return s.dir }

// Log returns the end of what the server has printed, over all its restarts.
func (s *Server) Log() string {
	b, _ := os.ReadFile(s.logFile()) // there may be none yet
	return string(b[max(0, len(b)-4096):])
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// Restart starts the server again on the same port and data, and waits until
// it has loaded these and answers. A server that still runs is stopped first.
func (s *Server) Restart() error {
	if err := s.Stop(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := startProcess(s.bin, s.args, s.dir, s.logFile())
	if err != nil {
		return fmt.Errorf("starting redis-server: %w", err)
	}
	s.proc = p
	if err := s.waitReady(p); err != nil {
		return fmt.Errorf("waiting for redis-server to answer: %w", err)
	}
	return nil
}

// waitReady waits until the process p answers.
func (s *Server) waitReady(p *process) error {
	var last error
	err := poll(func() (bool, error) {
		if !p.running() {
			log := s.Log()
			if strings.Contains(log, "Address already in use") {
				return false, errPortTaken
			}
			return false, fmt.Errorf("it ended, saying\n%s", log)
		}
		if _, last = s.Do("PING"); last != nil { // also while it loads its data
			return false, nil
		}
		// Another's server may have taken the port, and answer there.
		var info map[string]string
		info, last = s.Info("server")
		return info["process_id"] == strconv.Itoa(p.pid()), nil
	})
	if err != nil && last != nil && !errors.Is(err, errPortTaken) {
		return fmt.Errorf("%w; its last error was: %w", err, last)
	}
	return err
}

// Kill ends the server at once, as kill -9 does, and waits for its end.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

// Stop has the server shut down in good order and waits for its end.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

func (s *Server) end(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	return s.proc.end(sig)
}

// Pause stops the server's process where it is: connections stay open, new
// ones are made, and nothing is answered until Resume.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.signal(sig)
}

// Close kills the server, paused or not, and removes its directory. It may be
// called more than once.
func (s *Server) Close() error {
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}

// Do sends the server one command, over a connection of its own, and returns
// the answer: a string, an int64, nil, or a []any of these and of Error. The
// error is an Error where the server answered one.
func (s *Server) Do(args ...string) (any, error) {
	answer, err := do(s.addr, s.password, s.tlsConfig(), args...)
	if err != nil {
		return nil, fmt.Errorf("sending %s: %w", args[0], err)
	}
	return answer, nil
}

func (s *Server) tlsConfig() *tls.Config {
	if s.certs == nil {
		return nil
	}
	return s.certs.config
}

// Info returns a section of what INFO tells, by field.
func (s *Server) Info(section string) (map[string]string, error) { return s.fields("INFO", section) }

// fields sends a command whose answer is lines of "field:value".
func (s *Server) fields(args ...string) (map[string]string, error) {
	answer, err := s.Do(args...)
	if err != nil {
		return nil, err
	}
	text, _ := answer.(string)
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}
