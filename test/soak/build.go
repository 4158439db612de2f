package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// build builds the sidecar into dir, with the race detector where that can be
// had, and returns its path and what it is.
func build(ctx context.Context, dir string) (binary, what string, err error) {
	binary = filepath.Join(dir, "genesys-sidecar")
	args := []string{"build", "-tags", "nobadger,nomysql,nopgx", "-o", binary}
	env := os.Environ()
	if _, err := exec.LookPath("gcc"); err == nil {
		args, env, what = append(args, "-race"), append(env, "CGO_ENABLED=1"), "built with the race detector"
	} else {
		what = "built without the race detector, for which there is no gcc"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "genesys-sidecar/cmd/genesys-sidecar")...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("building the sidecar: %w", err)
	}
	return binary, what, nil
}
