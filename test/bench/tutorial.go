package main

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"genesys-sidecar/test/child"
)

// tutorialProgram is a program such as tutorials show, in Python.
//
//go:embed tutorial/app.py
var tutorialProgram []byte

// startTutorial starts the tutorial's program in one worker, and returns nil
// where what it needs is not installed. As it is written, each call has an HTTP
// client and a token of its own; shared, they are kept.
func (b *bench) startTutorial(ctx context.Context, shared bool) (*server, error) {
	python := findPython(ctx)
	if python == "" {
		return nil, nil
	}
	dir, err := b.newDir("tutorial")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "app.py"), tutorialProgram, 0o644); err != nil {
		return nil, fmt.Errorf("writing the tutorial's program: %w", err)
	}
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, ownPort, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("configuring the tutorial's program: %w", err)
	}
	env := []string{
		"TUTORIAL_API=" + b.upstream.url(), "TUTORIAL_LOGIN=" + b.upstream.url(),
		"TUTORIAL_ACTION=custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11",
		"TUTORIAL_CLIENT_ID=bench", "TUTORIAL_CLIENT_SECRET=bench",
	}
	if shared {
		env = append(env, "TUTORIAL_SHARED=1")
	}
	p, err := b.start(ctx, "tutorial", dir, env, python, "-m", "uvicorn", "app:app",
		"--host", host, "--port", ownPort, "--workers", "1", "--log-level", "warning", "--no-access-log")
	if err != nil {
		return nil, err
	}
	s := &server{process: p, address: address, request: func(bodySize int) template {
		return newTemplate(address, "/invoke",
			`{"idempotency_key": "`+keyPlace+`", "input_payload": `+jsonBody(bodySize)+`}`)
	}}
	return s, p.await(ctx, address)
}

// findPython returns a Python that has what the tutorial's program imports.
// Debian's own comes first: its packages are what missingPackages names.
func findPython(ctx context.Context) string {
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.CommandContext(ctx, python, "-c", "import fastapi, httpx, uvicorn").Run() == nil {
			return python
		}
	}
	return ""
}

// tutorialVersions tells what the tutorial's program runs on.
func tutorialVersions(ctx context.Context) string {
	python := findPython(ctx)
	if python == "" {
		return ""
	}
	const script = `import sys, fastapi, httpx, uvicorn
print("Python %d.%d.%d" % sys.version_info[:3], "FastAPI", fastapi.__version__, "httpx", httpx.__version__, "uvicorn", uvicorn.__version__)`
	out, err := exec.CommandContext(ctx, python, "-c", script).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
