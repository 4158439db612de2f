package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginx runs with one worker for each core, connections to the upstream that
// are kept, and no access log.
type nginx struct {
	static *server // answers by itself
	proxy  *server
	cache  *server // proxies and keeps, under the Idempotency-Key
}

// nginxConfig is completed with addresses, and with a body to return. By
// default nginx closes a connection after a thousand requests, which the load
// generator does not expect.
const nginxConfig = `
worker_processes auto;
daemon off;
pid nginx.pid;
error_log stderr warn;
events { worker_connections 4096; }
http {
	access_log off;
	keepalive_requests 100000000;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	proxy_cache_path cache levels=1:2 keys_zone=answers:64m max_size=4g inactive=24h;
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	upstream api {
		server %[4]s;
		keepalive 256;
		keepalive_requests 100000000;
	}
	server {
		listen %[1]s;
		default_type application/json;
		location / { return 200 '%[5]s'; }
	}
	server {
		listen %[2]s;
		location / { proxy_pass http://api; }
	}
	server {
		listen %[3]s;
		proxy_cache answers;
		proxy_cache_methods POST;
		proxy_cache_key $http_idempotency_key;
		proxy_cache_valid 200 24h;
		add_header X-Cache $upstream_cache_status;
		location / { proxy_pass http://api; }
	}
}
`

// startNginx starts nginx, and returns nil where it is not installed.
func (b *bench) startNginx(ctx context.Context) (*nginx, error) {
	binary, err := findServer("nginx")
	if err != nil {
		return nil, nil
	}
	dir, err := b.newDir("nginx")
	if err != nil {
		return nil, err
	}
	a, err := freeAddresses(3)
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(nginxConfig, a[0], a[1], a[2], b.upstream.address, sampleAnswer(answerSize))
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, fmt.Errorf("configuring nginx: %w", err)
	}
	p, err := b.start(ctx, "nginx", dir, nil, binary, "-p", dir, "-c", config, "-e", "stderr")
	if err != nil {
		return nil, err
	}
	site := func(address string) *server {
		return &server{process: p, address: address, request: actionCall(address)}
	}
	n := &nginx{static: site(a[0]), proxy: site(a[1]), cache: site(a[2])}
	n.cache.mark = markHeader{"X-Cache", "HIT"}
	return n, p.await(ctx, a[0])
}

// findServer finds a program, also where only root's PATH leads.
func findServer(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return exec.LookPath(filepath.Join("/usr/sbin", name))
}

func nginxVersion(ctx context.Context) string {
	binary, err := findServer("nginx")
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, binary, "-v").CombinedOutput()
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(strings.TrimSpace(string(out)), "/")
	return version
}
