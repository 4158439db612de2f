package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// sectionTLS is sectionFresh with an upstream that speaks TLS, as the platform
// does: over HTTP/2, where the sidecar uses Caddy's transport, and over HTTP/1.1,
// where it has one of its own. Both keep 256 connections.
func (b *bench) sectionTLS(ctx context.Context) error {
	versions := []string{"2", "1.1"}
	bare, err := b.startSecureCaddy(ctx, versions)
	if err != nil {
		return err
	}
	var contenders []contender
	for i, v := range versions {
		contenders = append(contenders, freshCalls("Caddy reverse_proxy, TLS, HTTP/"+v, bare[i]))
		for _, s := range []store{memoryStore, diskStore} {
			sidecar, err := b.startSidecar(ctx, sidecarConfig{store: s, versions: v})
			if err != nil {
				return err
			}
			contenders = append(contenders, freshCalls("sidecar, fresh, "+s.name+", TLS, HTTP/"+v, &sidecar.server))
		}
	}
	all, err := b.duel(ctx, b.rounds, b.load(), contenders...)
	if err != nil {
		return err
	}
	b.report.addDetails("A call that runs at an upstream with TLS", contenders, all, 0)
	for i, v := range versions {
		proxy := 3 * i
		b.report.note("A fresh call to an upstream with TLS, over HTTP/%s, against Caddy's reverse_proxy: with the memory store %s, with the disk store %s. (That upstream is of net/http, the one without TLS of fasthttp.)",
			v, ratioText(speedRatio(all[proxy+1], all[proxy])), ratioText(speedRatio(all[proxy+2], all[proxy])))
	}
	return nil
}

// startSecureCaddy starts bare Caddy as a proxy to the upstream with TLS, once for
// each of the versions of HTTP.
func (b *bench) startSecureCaddy(ctx context.Context, versions []string) ([]*server, error) {
	dir, err := b.newDir("caddy TLS")
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(1 + len(versions))
	if err != nil {
		return nil, err
	}
	admin, addresses := addresses[0], addresses[1:]
	text := fmt.Sprintf("{\n\tadmin %s\n}\n", admin)
	for i, v := range versions {
		text += fmt.Sprintf(":%s {\n\tbind 127.0.0.1\n\treverse_proxy https://%s {\n\t\t%s\n\t}\n}\n",
			port(addresses[i]), b.upstream.secured, secureTransport(v))
	}
	config := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring Caddy: %w", err)
	}
	p, err := b.runCaddy(ctx, "Caddy", config)
	if err != nil {
		return nil, err
	}
	servers := make([]*server, len(versions))
	for i, address := range addresses {
		servers[i] = &server{process: p, address: address, admin: admin, request: actionCall(address)}
	}
	return servers, p.await(ctx, addresses[0])
}
