package main

import (
	"runtime/debug"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

func TestTheVersionIsTheStampElseTheRepositorys(t *testing.T) {
	vcs := func(modified string) []debug.BuildSetting {
		return []debug.BuildSetting{
			{Key: "vcs.revision", Value: "0123456789abcdef0123456789abcdef01234567"},
			{Key: "vcs.time", Value: "2026-11-24T00:00:00Z"},
			{Key: "vcs.modified", Value: modified},
		}
	}
	for name, c := range map[string]struct {
		stamped string
		info    *debug.BuildInfo
		want    string
	}{
		"stamped":                  {"v1.2.3", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0"}}, "v1.2.3"},
		"a tag":                    {"", &debug.BuildInfo{Main: debug.Module{Version: "v0.1.0+dirty"}}, "v0.1.0+dirty"},
		"a revision":               {"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs("false")}, "0123456789ab of 2026-11-24T00:00:00Z"},
		"a revision and changes":   {"", &debug.BuildInfo{Settings: vcs("true")}, "0123456789ab+dirty of 2026-11-24T00:00:00Z"},
		"no repository":            {"", &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, "(devel)"},
		"nothing is known at all ": {"", nil, "(unknown)"},
	} {
		if got := describe(c.stamped, c.info); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestCaddysVersionIsToldAfterOurs(t *testing.T) {
	if _, full := caddy.Version(); !strings.HasPrefix(full, "genesys-sidecar ") || !strings.Contains(full, ", Caddy v2.") {
		t.Errorf("got %q", full)
	}
}
