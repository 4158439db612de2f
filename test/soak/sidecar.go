package main

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
	"syscall"
	"time"

	"genesys-sidecar/test/child"
)

// patience is how long the sidecar may take to start or to stop.
const patience = time.Minute

// sidecar is the process that is soaked.
type sidecar struct {
	*child.Process
	address string
	admin   string
	config  string // its Caddyfile
	log     string // the file
}

// caddyfile is the sidecar's: its admin endpoint, store and address, and how long
// answers are kept and calls may take. The cache is small, so that it is full, and has
// to make room, before the warm-up is over.
const caddyfile = `{
	admin %s
	genesys {
		cache 2MiB
		store %s
	}
	log {
		level WARN
	}
}
http://%s {
	bind 127.0.0.1
	genesys_cloud {
		key header Idempotency-Key
		key adopt %v
		retention %[4]v
		wait 60s
		backoff 20ms 200ms
		timeout %v
		deadline %[5]v
	}
}
`

// startSidecar starts the sidecar in dir, with a store as the Caddyfile has it.
func startSidecar(ctx context.Context, set settings, dir, store string, env []string) (*sidecar, error) {
	s := &sidecar{config: filepath.Join(dir, "Caddyfile"), log: filepath.Join(dir, "log")}
	binary, err := filepath.Abs(set.binary)
	if err != nil {
		return nil, fmt.Errorf("finding the sidecar: %w", err)
	}
	if s.address, err = child.FreeAddress(); err != nil {
		return nil, err
	}
	if s.admin, err = child.FreeAddress(); err != nil {
		return nil, err
	}
	text := fmt.Sprintf(caddyfile, s.admin, store, s.address, set.retention(), set.deadline())
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring the sidecar: %w", err)
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "--config", s.config, "--adapter", "caddyfile")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, env...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if s.Process, err = child.Start(cmd, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("starting the sidecar: %w", err)
	}
	if err := s.await(ctx); err != nil {
		s.Crash()
		return nil, fmt.Errorf("starting the sidecar: %w\n%s", err, s.logTail())
	}
	return s, nil
}

// await waits until it listens.
func (s *sidecar) await(ctx context.Context) error {
	for end := time.Now().Add(patience); ; {
		conn, err := net.DialTimeout("tcp", s.address, time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(end) {
			return err
		}
		select {
		case <-s.Ended():
			return errors.Join(errors.New("it ended"), s.Wait())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop asks it to end, and waits until it has, as it should.
func (s *sidecar) stop() error {
	select {
	case <-s.Ended():
		return fmt.Errorf("the sidecar ended by itself: %w\n%s", errors.Join(s.Wait()), s.logTail())
	default:
	}
	if err := s.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stopping the sidecar: %w", err)
	}
	select {
	case <-s.Ended():
	case <-time.After(patience):
		s.Crash()
		return fmt.Errorf("stopping the sidecar: it still ran after %v", patience)
	}
	if err := s.Wait(); err != nil {
		return fmt.Errorf("stopping the sidecar: it ended with %w\n%s", err, s.logTail())
	}
	return nil
}

// reload has it take over its Caddyfile anew, though nothing in it has changed.
func (s *sidecar) reload(ctx context.Context) (int, error) {
	text, err := os.ReadFile(s.config)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.admin+"/load", strings.NewReader(string(text)))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	req.Header.Set("Cache-Control", "must-revalidate")
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}

// logTail returns the end of its log.
func (s *sidecar) logTail() string {
	log, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-2000):])
}
