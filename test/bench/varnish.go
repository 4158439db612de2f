package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"genesys-sidecar/test/child"
)

// varnishConfig has Varnish keep answers to POST requests under their key,
// which it does not do by itself: it would pass them on, or ask for them anew
// by GET.
const varnishConfig = `vcl 4.1;
import std;
backend api { .host = "%s"; .port = "%s"; }
sub vcl_recv {
	std.cache_req_body(128KB);
	return (hash);
}
sub vcl_hash {
	hash_data(req.http.Idempotency-Key);
	return (lookup);
}
sub vcl_backend_fetch { set bereq.method = "POST"; }
sub vcl_backend_response { set beresp.ttl = 24h; }
sub vcl_deliver {
	if (obj.hits > 0) { set resp.http.X-Cache = "HIT"; } else { set resp.http.X-Cache = "MISS"; }
}
`

// startVarnish starts Varnish, and returns nil where it is not installed.
func (b *bench) startVarnish(ctx context.Context) (*server, error) {
	binary, err := findServer("varnishd")
	if err != nil {
		return nil, nil
	}
	dir, err := b.newDir("varnish")
	if err != nil {
		return nil, err
	}
	address, err := child.FreeAddress()
	if err != nil {
		return nil, err
	}
	host, upstreamPort, err := net.SplitHostPort(b.upstream.address)
	if err != nil {
		return nil, fmt.Errorf("configuring Varnish: %w", err)
	}
	config := filepath.Join(dir, "bench.vcl")
	if err := os.WriteFile(config, fmt.Appendf(nil, varnishConfig, host, upstreamPort), 0o644); err != nil {
		return nil, fmt.Errorf("configuring Varnish: %w", err)
	}
	// -T none: no administration, and so no further port. -j none: to change its
	// user would have it outlive this program, should that be killed.
	p, err := b.start(ctx, "Varnish", dir, nil, binary, "-j", "none", "-F", "-f", config, "-a", address,
		"-n", filepath.Join(dir, "work"), "-s", "malloc,2g", "-T", "none")
	if err != nil {
		return nil, err
	}
	s := &server{process: p, address: address, request: actionCall(address), mark: markHeader{"X-Cache", "HIT"}}
	return s, p.await(ctx, address)
}

func varnishVersion(ctx context.Context) string {
	binary, err := findServer("varnishd")
	if err != nil {
		return ""
	}
	out, err := exec.CommandContext(ctx, binary, "-V").CombinedOutput()
	if err != nil {
		return ""
	}
	_, after, _ := strings.Cut(string(out), "varnish-")
	version, _, _ := strings.Cut(after, " ")
	return version
}
