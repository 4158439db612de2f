package history

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
	"path/filepath"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

const clientSecret = "history-secret-Zm9vYmFy"

// upstream is the sandbox, which nothing happens to.
type upstream struct {
	*sandbox.Sandbox
	url    string
	file   string
	server *http.Server
}

func newUpstream(dir string) (*upstream, error) {
	u := &upstream{file: filepath.Join(dir, "ledger")}
	var err error
	if u.Sandbox, err = sandbox.New(sandbox.Config{ClientSecret: clientSecret, LedgerFile: u.file, Latency: 5 * time.Millisecond}); err != nil {
		return nil, fmt.Errorf("starting the sandbox: %w", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting the sandbox: %w", err), u.Close())
	}
	u.url, u.server = "http://"+ln.Addr().String(), u.Server()
	go func() { _ = u.server.Serve(ln) }()
	return u, nil
}

func (u *upstream) close() error {
	err := u.Close()
	return errors.Join(err, u.server.Close())
}

// environment is what a sidecar needs to find and use the upstream.
func (u *upstream) environment() []string {
	return []string{
		"GENESYSCLOUD_API_URL=" + u.url,
		"GENESYSCLOUD_OAUTHCLIENT_ID=sandbox",
		"GENESYSCLOUD_OAUTHCLIENT_SECRET=" + clientSecret,
	}
}

// ledgerReader reads the effects off the ledger's file as they are written. To
// ask the sandbox for them would copy the whole ledger each time.
type ledgerReader struct {
	file    *os.File
	reader  *bufio.Reader
	partial []byte // of a line that is not complete yet
	effects int
}

func (u *upstream) openLedger() (*ledgerReader, error) {
	file, err := os.Open(u.file)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	return &ledgerReader{file: file, reader: bufio.NewReaderSize(file, 256<<10)}, nil
}

// read calls ran with each effect that is new.
func (l *ledgerReader) read(ran func(sandbox.Effect)) error {
	for {
		text, err := l.reader.ReadBytes('\n')
		l.partial = append(l.partial, text...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the ledger: %w", err)
		}
		var line struct {
			Type string
			sandbox.Effect
		}
		if err := json.Unmarshal(bytes.TrimSpace(l.partial), &line); err != nil {
			return fmt.Errorf("reading the ledger: %w", err)
		}
		l.partial = l.partial[:0]
		if line.Type == "effect" {
			l.effects++
			ran(line.Effect)
		}
	}
}

// follow reads the ledger until ctx ends.
func (l *ledgerReader) follow(ctx context.Context, ran func(sandbox.Effect)) error {
	for sleep(ctx, 100*time.Millisecond) {
		if err := l.read(ran); err != nil {
			return err
		}
	}
	return nil
}
