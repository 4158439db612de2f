package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"genesys-sidecar/test/child"
)

// Sizes that hold where a section does not say otherwise.
const (
	requestSize = 300
	answerSize  = 1024
)

// bench is one run of the program: what it has built and started, and what it
// has found out so far.
type bench struct {
	settings
	dir      string // everything temporary
	binary   string // the sidecar
	upstream *upstream
	servers  []*process // those of the current section
	report   *report

	fullStore *filledStore // the largest one, once it is filled
}

// newBench builds the sidecar and starts the upstream.
func newBench(ctx context.Context, set settings) (_ *bench, err error) {
	if _, err := os.Stat(filepath.Join("cmd", "genesys-sidecar")); err != nil {
		return nil, fmt.Errorf("finding the sidecar: run this from the repository's root: %w", err)
	}
	b := &bench{settings: set}
	if b.dir, err = os.MkdirTemp("", "genesys-sidecar-bench-"); err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() {
		if err != nil {
			_ = b.close()
		}
	}()
	// nginx gives up root's rights for its workers, which have to get in.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, fmt.Errorf("opening the temporary directory: %w", err)
	}

	b.progress("== building the sidecar")
	b.binary = filepath.Join(b.dir, "genesys-sidecar")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "nobadger,nomysql,nopgx", "-o", b.binary, "./cmd/genesys-sidecar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the sidecar: %w\n%s", err, out)
	}

	if b.upstream, err = b.startUpstream(ctx); err != nil {
		return nil, err
	}
	b.report = &report{settings: set, machine: b.describeMachine(ctx), missing: missingPackages(ctx)}
	return b, nil
}

// close ends everything that was started, and removes everything temporary.
func (b *bench) close() error {
	b.stopServers()
	if b.upstream != nil {
		b.upstream.stop()
	}
	if b.keep {
		b.progress("kept %s", b.dir)
		return nil
	}
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("removing the temporary directory: %w", err)
	}
	return nil
}

// stopServers ends the servers of a section, and removes what they have left.
func (b *bench) stopServers() {
	for _, p := range slices.Backward(b.servers) {
		p.stop()
		if !b.keep {
			_ = os.RemoveAll(p.dir) // what stays, close removes
		}
	}
	b.servers = nil
}

// newDir makes a directory that is named after what it is for.
func (b *bench) newDir(name string) (string, error) {
	dir, err := os.MkdirTemp(b.dir, strings.ReplaceAll(name, " ", "-")+"-")
	if err != nil {
		return "", fmt.Errorf("making a directory for %s: %w", name, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", fmt.Errorf("opening the directory of %s: %w", name, err)
	}
	return dir, nil
}

// server is a running program, and how it is called.
type server struct {
	*process
	address string
	admin   string // Caddy's, if it is one
	request func(bodySize int) template

	// An answer that was told again has this header; others do not. Without a
	// header it is the upstream's count alone that tells.
	mark markHeader
}

type markHeader struct{ name, value string }

// await waits until somebody accepts connections at address.
func (p *process) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.Ended():
			return p.early()
		case <-ctx.Done():
			return fmt.Errorf("starting %s: %w; the end of its log:\n%s", p.name, context.Cause(ctx), p.logTail())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// early says why a program that should run has ended.
func (p *process) early() error {
	return fmt.Errorf("starting %s: it ended with %w; the end of its log:\n%s", p.name, p.Wait(), p.logTail())
}

// freeAddresses returns addresses on loopback that nobody listens on.
func freeAddresses(n int) ([]string, error) {
	addresses := make([]string, n)
	for i := range addresses {
		var err error
		if addresses[i], err = child.FreeAddress(); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}
