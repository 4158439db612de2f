package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// readConfig reads a configuration and adapts it to JSON, as Caddy's own
// commands do, but without their log. "-" is the standard input.
func readConfig(file, adapter string) ([]byte, error) {
	var config []byte
	var err error
	if file == "-" {
		config, err = io.ReadAll(os.Stdin)
	} else {
		config, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	if adapter == "" && isCaddyfile(file) {
		adapter = "caddyfile"
	}
	if adapter == "" {
		if !json.Valid(config) {
			return nil, errors.New("reading configuration: it is no JSON; --adapter says what it is")
		}
		return config, nil
	}
	a := caddyconfig.GetAdapter(adapter)
	if a == nil {
		return nil, usagef("there is no config adapter %q", adapter)
	}
	adapted, _, err := a.Adapt(config, map[string]any{"filename": file})
	if err != nil {
		return nil, fmt.Errorf("adapting configuration: %w", err)
	}
	return adapted, nil
}

// isCaddyfile tells by its name whether file is a Caddyfile, as Caddy does.
func isCaddyfile(file string) bool {
	name := strings.ToLower(filepath.Base(file))
	return filepath.Ext(name) != ".json" &&
		(strings.HasPrefix(name, "caddyfile") || strings.HasSuffix(name, ".caddyfile"))
}
