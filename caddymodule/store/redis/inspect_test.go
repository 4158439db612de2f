package redis

import (
	"maps"
	"strings"
	"testing"
)

func TestWhatWeakensAPromiseIsFound(t *testing.T) {
	good := settings{
		"redis_version": "7.0.15", "role": "master", "maxmemory_policy": "noeviction",
		"aof_enabled": "1", "appendfsync": "always", "connected_slaves": "0",
	}
	for _, test := range []struct {
		name, setting, value string
		wait                 int
		want                 string // "": nothing is found
	}{
		{name: "all is well"},
		{"eviction", "maxmemory_policy", "allkeys-lru", 0, "maxmemory-policy is allkeys-lru"},
		{"eviction of what expires", "maxmemory_policy", "volatile-ttl", 0, "maxmemory-policy is volatile-ttl"},
		{"no append-only file", "aof_enabled", "0", 0, "appendonly is no"},
		{"a lazy append-only file", "appendfsync", "everysec", 0, "appendfsync is everysec"},
		{"CONFIG is not allowed", "appendfsync", "", 0, ""},
		{"replicas that nobody waits for", "connected_slaves", "2", 0, "set wait_replicas"},
		{"replicas that are waited for", "connected_slaves", "2", 2, ""},
		{"too few replicas", "connected_slaves", "1", 2, "it has 1 replicas and wait_replicas is 2"},
	} {
		about := maps.Clone(good)
		if test.setting != "" {
			about[test.setting] = test.value
		}
		found := about.findings(test.wait)
		switch {
		case test.want == "" && len(found) > 0:
			t.Errorf("%s: %q", test.name, found)
		case test.want != "" && (len(found) != 1 || !strings.Contains(found[0], test.want)):
			t.Errorf("%s: %q, want %q", test.name, found, test.want)
		}
	}
}

func TestARedisThatIsTooOldIsRefused(t *testing.T) {
	for version, ok := range map[string]bool{"6.2.14": false, "7.0.0": true, "7.2.4": true, "8.0.1": true, "10.0": true, "": false} {
		if err := (settings{"redis_version": version}).checkVersion(); (err == nil) != ok {
			t.Errorf("version %q: %v", version, err)
		}
	}
}
