package overlay_test

import (
	"path/filepath"
	"strings"
	"testing"

	"genesys-sidecar/test/overlay"
)

func TestAnEditThatDoesNotFitItsPlaceOnceIsRefused(t *testing.T) {
	for name, old := range map[string]string{
		"gone":  "func nobodyHasWritten(",
		"twice": "caddy",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := overlay.Build(t.Context(), dir, filepath.Join(dir, "binary"), false,
				overlay.Edit{File: "cmd/genesys-sidecar/main.go", Old: old, New: ""})
			if err == nil || !strings.Contains(err.Error(), "editing cmd/genesys-sidecar/main.go") {
				t.Errorf("got %v", err)
			}
		})
	}
}
