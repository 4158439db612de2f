package test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// The example's Caddyfile as it is, but for places and addresses.
func TestFleetExampleRuns(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	const password = "redis-password-Zm9vYmFy"
	args := []string{"--appendonly", "yes", "--appendfsync", "always", "--masterauth", password}
	master := redistest.New(t, redistest.Options{Password: password, Args: args})
	replica := redistest.New(t, redistest.Options{Password: password, Args: args, ReplicaOf: master})
	must(t, replica.WaitSynced(master))

	example, err := os.ReadFile("../deploy/fleet/Caddyfile")
	must(t, err)
	sidecars := make([]*sidecar, 2)
	for i := range sidecars {
		s := &sidecar{platform: p, dir: t.TempDir(), address: freeAddress(t), admin: freeAddress(t), client: &http.Client{}}
		must(t, os.WriteFile(filepath.Join(s.dir, "redis_password"), []byte(password+"\n"), 0o600))
		must(t, os.WriteFile(filepath.Join(s.dir, "genesys_client_secret"), []byte(secret+"\n"), 0o600))
		_, port, _ := net.SplitHostPort(s.address)
		text := strings.NewReplacer(
			"admin 127.0.0.1:2019", "admin "+s.admin,
			"/run/secrets/", s.dir+"/",
			"redis://redis:6379", "redis://"+master.Addr(),
			":8080", ":"+port,
		).Replace(string(example))
		must(t, os.WriteFile(s.config(), []byte(text), 0o600))
		s.start(t)
		t.Cleanup(func() {
			s.stop(t)
			s.checkLog(t)
		})
		sidecars[i] = s
	}

	first := sidecars[0].served(t, newCall(execute, "order-17", ""))
	wantReplay(t, sidecars[1].send(t, newCall(execute, "order-17", "")), first)
	p.wantEffects(t, 1)
	for _, s := range sidecars {
		if log := s.log(t); strings.Contains(log, "a promise is weakened") || strings.Contains(log, password) {
			t.Errorf("the log says:\n%s", log)
		}
	}
}
