// Package overlay builds the sidecar from sources that differ from those in the
// tree, which stay as they are: so that a test can have it fail on purpose, and
// what is shipped holds no trace of that.
package overlay

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Edit replaces a text in a file of the module. The text must be there once: an
// edit whose place has changed is to be looked at again.
type Edit struct {
	File string // from the module's root, with slashes
	Old  string
	New  string
}

// Build builds the sidecar with edits as binary; race has it built with the race
// detector. It uses dir, which must be there, for files of its own. It needs Go
// and, for the race detector, a C compiler.
func Build(ctx context.Context, dir, binary string, race bool, edits ...Edit) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	texts := make(map[string]string)
	for _, e := range edits {
		if texts[e.File] == "" {
			text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(e.File)))
			if err != nil {
				return fmt.Errorf("reading source: %w", err)
			}
			texts[e.File] = string(text)
		}
		if n := strings.Count(texts[e.File], e.Old); n != 1 {
			return fmt.Errorf("editing %s: it has %d times what is to be replaced once: %s", e.File, n, e.Old)
		}
		texts[e.File] = strings.Replace(texts[e.File], e.Old, e.New, 1)
	}
	replaced := make(map[string]string)
	for name, text := range texts {
		file, err := os.CreateTemp(dir, "*-"+filepath.Base(name))
		if err != nil {
			return fmt.Errorf("writing edited source: %w", err)
		}
		_, err = file.WriteString(text)
		if closeErr := file.Close(); err != nil || closeErr != nil {
			return fmt.Errorf("writing edited source: %w", err)
		}
		replaced[filepath.Join(root, filepath.FromSlash(name))] = file.Name()
	}
	return build(ctx, root, dir, binary, race, replaced)
}

func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "genesys-sidecar").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

func build(ctx context.Context, root, dir, binary string, race bool, replaced map[string]string) error {
	// As it is shipped, but for the race detector, so that what is compiled serves
	// both; and for what a debugger needs, which takes as long to link as all else.
	args := []string{"build", "-tags", "nobadger,nomysql,nopgx", "-ldflags", "-w", "-o", binary}
	env := os.Environ()
	if race {
		args, env = append(args, "-race"), append(env, "CGO_ENABLED=1")
	} else {
		args, env = append(args, "-trimpath"), append(env, "CGO_ENABLED=0")
	}
	if len(replaced) > 0 {
		text, err := json.Marshal(map[string]any{"Replace": replaced})
		if err != nil {
			return fmt.Errorf("writing overlay: %w", err)
		}
		file := filepath.Join(dir, filepath.Base(binary)+"-overlay.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return fmt.Errorf("writing overlay: %w", err)
		}
		args = append(args, "-overlay", file)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/genesys-sidecar")...)
	cmd.Dir, cmd.Env = root, env
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the sidecar: %w\n%s", err, out)
	}
	return nil
}
