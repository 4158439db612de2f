package main

import (
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
)

// version is set by who builds a release:
//
//	go build -ldflags '-X main.version=v1.2.3' ./cmd/genesys-sidecar
//
// Without it, the version is what Go has noted of the source's repository.
var version string

// Caddy's "version" command says its own after this one.
func init() {
	info, _ := debug.ReadBuildInfo()
	caddy.CustomVersion = "genesys-sidecar " + describe(version, info) + ", Caddy"
}

// describe returns the version of the program that info is of.
func describe(stamped string, info *debug.BuildInfo) string {
	if stamped != "" {
		return stamped
	}
	if info == nil {
		return "(unknown)"
	}
	// With a repository at hand, Go makes a version of the last tag, the time and
	// the revision of the commit, and whether anything was changed since.
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	settings := make(map[string]string, len(info.Settings))
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	revision := settings["vcs.revision"]
	if revision == "" {
		return "(devel)"
	}
	if len(revision) > 12 {
		revision = revision[:12]
	}
	if settings["vcs.modified"] == "true" {
		revision += "+dirty"
	}
	return revision + " of " + settings["vcs.time"]
}
