package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// store is one that the sidecar can keep its answers in. Another one is another
// entry of stores.
type store struct {
	name string
	// open starts what the store needs, if anything, and returns its line of the
	// Caddyfile. A store that lives in a directory is to use dir.
	open  func(ctx context.Context, b *bench, dir string) (option string, err error)
	note  string  // what is promised with it, beyond its name
	fresh float64 // how many calls it is to take for one that Caddy only proxies
	then  string  // what is asked of it once that is reached
}

var (
	memoryStore = store{
		name: "memory",
		open: func(context.Context, *bench, string) (string, error) {
			return "store memory {\n\t\t\tmax_size 2GiB\n\t\t}", nil
		},
		fresh: 1.35,
	}
	diskStore = store{
		name: "disk",
		open: func(_ context.Context, _ *bench, dir string) (string, error) {
			return "store disk " + dir, nil
		},
		note:  ", two fsyncs each",
		fresh: 0.85,
		then:  ", then > 1",
	}
	stores = installedStores()
)

// sidecarConfig is how a sidecar differs from the one that is shipped.
type sidecarConfig struct {
	store    store
	storeDir string // empty: a new one
	cacheOff bool
	versions string // of HTTP, to the upstream with TLS; empty: to the one without
}

// sidecar is a running one.
type sidecar struct {
	server
	storeDir string
	config   string
}

// newSidecar configures a sidecar, and does not start it.
func (b *bench) newSidecar(ctx context.Context, c sidecarConfig) (*sidecar, error) {
	dir, err := b.newDir("sidecar " + c.store.name)
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(2)
	if err != nil {
		return nil, err
	}
	s := &sidecar{
		server: server{
			address: addresses[0],
			admin:   addresses[1],
			request: actionCall(addresses[0]),
			mark:    markHeader{"Idempotent-Replayed", "true"},
		},
		storeDir: c.storeDir,
		config:   filepath.Join(dir, "Caddyfile"),
	}
	if s.storeDir == "" {
		s.storeDir = filepath.Join(dir, "store")
	}
	option, err := c.store.open(ctx, b, s.storeDir)
	if err != nil {
		return nil, err
	}
	cache := ""
	if c.cacheOff {
		cache = "cache off"
	}
	api, transport := b.upstream.url(), ""
	if c.versions != "" {
		api = "https://" + b.upstream.secured
		transport = "{\n\t\t" + secureTransport(c.versions) + "\n\t}"
	}
	text := fmt.Sprintf(`{
	admin %s
	genesys {
		api_url %s
		login_url %s
		client_id bench
		client_secret bench
		%s
		%s
	}
}
:%s {
	bind 127.0.0.1
	genesys_cloud %s
}
`, s.admin, api, b.upstream.url(), option, cache, port(s.address), transport)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring the sidecar: %w", err)
	}
	return s, nil
}

// secureTransport returns Caddy's options for the upstream with TLS.
func secureTransport(versions string) string {
	return fmt.Sprintf("transport http {\n\t\t\ttls_insecure_skip_verify\n\t\t\tkeepalive_idle_conns_per_host %d\n\t\t\tversions %s\n\t\t}", sidecarIdleConnections, versions)
}

// launch starts a sidecar, and does not wait until it answers.
func (b *bench) launch(ctx context.Context, s *sidecar) error {
	var err error
	s.process, err = b.runCaddy(ctx, "sidecar", s.config)
	return err
}

// startSidecar starts a new sidecar.
func (b *bench) startSidecar(ctx context.Context, c sidecarConfig) (*sidecar, error) {
	s, err := b.newSidecar(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := b.launch(ctx, s); err != nil {
		return nil, err
	}
	return s, s.await(ctx, s.address)
}

func (b *bench) runCaddy(ctx context.Context, name, config string, env ...string) (*process, error) {
	return b.start(ctx, name, filepath.Dir(config), env, b.binary, "run", "--config", config, "--adapter", "caddyfile")
}

// bareCaddy is the sidecar's binary without the sidecar's module at work.
type bareCaddy struct {
	respond *server // answers by itself
	proxy   *server // reverse_proxy as it is without options
	keeping *server // reverse_proxy that keeps as many connections as the sidecar
}

// sidecarIdleConnections is how many idle connections the sidecar's transport
// keeps. Caddy's own keeps 32.
const sidecarIdleConnections = 256

// diskStoreProcs is by how much the disk store raises GOMAXPROCS, so that its
// syncs leave the cores to others.
const diskStoreProcs = 4

// startCaddy starts bare Caddy, with env added to its environment. What it
// answers by itself has the given size.
func (b *bench) startCaddy(ctx context.Context, bodySize int, env ...string) (*bareCaddy, error) {
	dir, err := b.newDir("caddy")
	if err != nil {
		return nil, err
	}
	a, err := freeAddresses(4)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`{
	admin %[1]s
}
:%[2]s {
	bind 127.0.0.1
	header Content-Type application/json
	respond %[6]s
}
:%[3]s {
	bind 127.0.0.1
	reverse_proxy %[5]s
}
:%[4]s {
	bind 127.0.0.1
	reverse_proxy %[5]s {
		transport http {
			keepalive_idle_conns_per_host %[7]d
		}
	}
}
`, a[0], port(a[1]), port(a[2]), port(a[3]), b.upstream.address, "`"+sampleAnswer(bodySize)+"`", sidecarIdleConnections)
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring Caddy: %w", err)
	}
	p, err := b.runCaddy(ctx, "Caddy", config, env...)
	if err != nil {
		return nil, err
	}
	site := func(address string) *server {
		return &server{process: p, address: address, admin: a[0], request: actionCall(address)}
	}
	c := &bareCaddy{respond: site(a[1]), proxy: site(a[2]), keeping: site(a[3])}
	return c, p.await(ctx, a[1])
}

// memstats are numbers of Go's memory management.
type memstats struct {
	Mallocs   uint64
	HeapAlloc uint64
}

// memstats asks a Caddy for its numbers.
func (s *server) memstats(ctx context.Context) (memstats, error) {
	body, err := get(ctx, "http://"+s.admin+"/debug/vars")
	if err != nil {
		return memstats{}, err
	}
	var vars struct {
		Memstats memstats `json:"memstats"`
	}
	if err := json.Unmarshal(body, &vars); err != nil {
		return memstats{}, fmt.Errorf("reading memory statistics: %w", err)
	}
	return vars.Memstats, nil
}

// heap returns how much a Caddy's heap holds once all garbage is gone.
func (s *server) heap(ctx context.Context) (uint64, error) {
	s.rest(ctx)
	for range 2 { // what a sync.Pool holds goes with the second
		if _, err := get(ctx, "http://"+s.admin+"/debug/pprof/heap?gc=1"); err != nil {
			return 0, err
		}
	}
	m, err := s.memstats(ctx)
	return m.HeapAlloc, err
}

// port returns the port of an address on loopback.
func port(address string) string { return strings.TrimPrefix(address, "127.0.0.1:") }
