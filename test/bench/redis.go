package main

import (
	"context"
	"os/exec"
	"strings"
)

// redisServer is the program of the Redis store.
const redisServer = "redis-server"

// redisStore keeps answers in a Redis of its own, which shares the cores with
// everything else here.
var redisStore = store{
	name: "Redis",
	open: func(ctx context.Context, b *bench, _ string) (string, error) {
		dir, err := b.newDir("redis")
		if err != nil {
			return "", err
		}
		addresses, err := freeAddresses(1)
		if err != nil {
			return "", err
		}
		p, err := b.start(ctx, "Redis", dir, nil, redisServer,
			"--bind", "127.0.0.1", "--port", port(addresses[0]), "--dir", dir,
			"--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
		if err != nil {
			return "", err
		}
		return "store redis redis://" + addresses[0], p.await(ctx, addresses[0])
	},
	note:  " (AOF everysec)",
	fresh: 0.50,
}

func redisVersion(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, redisServer, "--version").Output()
	if err != nil {
		return ""
	}
	_, version, _ := strings.Cut(string(out), "v=")
	version, _, _ = strings.Cut(version, " ")
	return version
}

// installedStores are those whose programs are installed.
func installedStores() []store {
	all := []store{memoryStore, diskStore}
	if _, err := exec.LookPath(redisServer); err == nil {
		all = append(all, redisStore)
	}
	return all
}
