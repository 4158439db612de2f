package test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func TestRedisIsFull(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t, "--maxmemory", "16mb", "--maxmemory-policy", "noeviction")
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	for _, s := range fleet { // it has its token, so that a call is a claim and nothing else
		s.send(t, newCall(execute, "before-"+s.address, ""))
	}
	call := newCall(execute, "k", "slow=1s")
	answered := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 3 })
	fill(t, r)
	wantRefused(t, fleet[0].send(t, newCall(execute, "l", "")))
	wantRefused(t, fleet[1].send(t, newCall(invoke, "m", "")))
	wantRefused(t, fleet[1].send(t, newCall(execute, "", "")))
	if n := p.Summary().Attempts; n != 3 {
		t.Errorf("the upstream got %d attempts", n)
	}
	// A call under way is recorded: that needs little, and would block its key.
	first := answered()
	if first.header.Get("Cache-Status") != "genesys; fwd=miss; stored" {
		t.Errorf("the call under way got %+v", first)
	}
	_, err := r.Do("DEL", "filler")
	must(t, err)
	wantReplay(t, fleet[1].send(t, call), first)
	if a := fleet[1].served(t, newCall(execute, "l", "")); a.status != 200 || a.replayed() {
		t.Errorf("with room again: %+v", a)
	}
	p.wantEffects(t, 4)
}

// To tell what is recorded, nothing has to be written.
func TestRedisThatIsFullStillReplays(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t, "--maxmemory", "16mb", "--maxmemory-policy", "noeviction")
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	first := fleet[0].send(t, keyed(1))
	if a := fleet[1].send(t, keyed(2)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	fill(t, r)
	wantRefused(t, fleet[1].send(t, keyed(3)))
	wantReplay(t, fleet[1].send(t, keyed(1)), first)
	p.wantEffects(t, 2)
}

// fill fills a Redis that may have 16 MiB: it looks before a change, not after.
func fill(t *testing.T, r *redistest.Server) {
	t.Helper()
	_, err := r.Do("SETRANGE", "filler", "20000000", "x")
	must(t, err)
}

func TestRedisCannotBeWritten(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	fleet := newFleet(t, p, 2, onRedis(r.URL()))
	first := fleet[0].send(t, newCall(execute, "before", ""))
	// The replica of a master that never answers keeps what it has.
	host, port, _ := net.SplitHostPort(freeAddress(t))
	_, err := r.Do("REPLICAOF", host, port)
	must(t, err)
	for range 3 {
		wantRefused(t, fleet[0].send(t, newCall(execute, "k", "")))
		wantRefused(t, fleet[1].send(t, newCall(execute, "", "")))
	}
	if n := p.Summary().Attempts; n != 1 {
		t.Errorf("the upstream got %d attempts", n)
	}
	must(t, r.Promote())
	if a := fleet[0].served(t, newCall(execute, "k", "")); a.status != 200 || a.replayed() {
		t.Errorf("once it can be written: %+v", a)
	}
	wantReplay(t, fleet[1].served(t, newCall(execute, "before", "")), first)
	p.wantEffects(t, 2)
}

// weakened is what the log says of every setting that weakens a promise.
const weakened = "a promise is weakened"

func TestRedisWithGoodSettingsIsNotWarnedOf(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: onRedis(newRedis(t).URL())})
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	if log := s.log(t); strings.Contains(log, weakened) {
		t.Errorf("the log says %s", log)
	}
}

func TestRedisWithBadSettingsIsWarnedOf(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	for name, test := range map[string]struct {
		args    []string
		replica bool
		want    string
	}{
		"it forgets under pressure": {[]string{"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "allkeys-lru"}, false,
			"maxmemory-policy is allkeys-lru"},
		"it forgets when it ends": {[]string{"--appendonly", "no"}, false,
			"appendonly is no"},
		"it forgets with the power": {[]string{"--appendonly", "yes", "--appendfsync", "everysec"}, false,
			"appendfsync is everysec"},
		"it forgets when it fails over": {[]string{"--appendonly", "yes", "--appendfsync", "always"}, true,
			"set wait_replicas"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := redistest.New(t, redistest.Options{Args: test.args})
			if test.replica {
				replica := redistest.New(t, redistest.Options{ReplicaOf: r})
				must(t, replica.WaitSynced(r))
			}
			s := newSidecar(t, p, options{global: onRedis(r.URL())})
			if a := s.send(t, keyed(1)); a.status != 200 && a.status != 422 {
				t.Errorf("got %+v", a)
			}
			log := s.log(t)
			if strings.Count(log, weakened) != 1 || !strings.Contains(log, test.want) || !strings.Contains(log, r.Addr()) {
				t.Errorf("the log says %s", log)
			}
		})
	}
}

func TestRedisBehindTLS(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	const password = "a-password-of-redis"
	r := redistest.New(t, redistest.Options{TLS: true, Password: password, Args: []string{"--tls-auth-clients", "yes"}})
	fleet := newFleet(t, p, 2, onRedis(r.URL(), "tls_trust_pool file "+r.CAFile(), "tls_client_auth "+r.CertFile()+" "+r.KeyFile()))
	first := fleet[0].send(t, keyed(1))
	wantReplay(t, fleet[1].send(t, keyed(1)), first)

	stranger := newSidecar(t, p, options{global: onRedis(r.URL())})
	wantRefused(t, stranger.send(t, keyed(1)))
	if log := stranger.log(t); !strings.Contains(log, "certificate signed by unknown authority") {
		t.Errorf("the log says %s", log)
	}
	for _, s := range append(fleet, stranger) {
		s.keepsSecret(t, password)
	}
}

func TestRedisAsksForUserAndPassword(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	const password, wrong = "a-password-of-redis", "another-password"
	r := redistest.New(t, redistest.Options{Password: "an-operators", Args: []string{"--user", "app", "on", ">" + password, "~genesys-sidecar:*", "&genesys-sidecar:*", "+@all", "-@dangerous", "+info"}})
	dir := t.TempDir()
	user, pass := filepath.Join(dir, "user"), filepath.Join(dir, "password")
	write := func(file, text string) { must(t, os.WriteFile(file, []byte(text+"\n"), 0o600)) }
	write(user, "app")
	write(pass, wrong)
	s := newSidecar(t, p, options{global: onRedis("redis://"+r.Addr(), "username {file."+user+"}", "password {file."+pass+"}")})
	wantRefused(t, s.send(t, keyed(1)))
	if log := s.log(t); !strings.Contains(log, "WRONGPASS") {
		t.Errorf("the log says %s", log)
	}
	// It is read again, without a restart.
	write(pass, password)
	if a := s.served(t, keyed(1)); a.status != 200 {
		t.Errorf("with the password: %+v", a)
	}
	s.keepsSecret(t, password)
	s.keepsSecret(t, wrong)
}

// keepsSecret checks that the log does not have it.
func (s *sidecar) keepsSecret(t *testing.T, text string) {
	t.Helper()
	if log := s.log(t); strings.Contains(log, text) {
		t.Errorf("the log contains %q: %s", text, log)
	}
}
