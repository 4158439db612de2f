package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// describeMachine tells where and with what the numbers were made.
func (b *bench) describeMachine(ctx context.Context) [][2]string {
	all := [][2]string{
		{"date", time.Now().UTC().Format(time.DateOnly)},
		{"sidecar", commit(ctx)},
		{"CPU", fmt.Sprintf("%s, %d cores", procValue("/proc/cpuinfo", "model name"), runtime.NumCPU())},
		{"memory", memorySize()},
		{"kernel", firstWords("/proc/version", 3)},
		{"file system of the stores", fileSystem(b.dir)},
		{"Go", runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH},
	}
	for _, v := range [][2]string{
		{"Redis", redisVersion(ctx)},
		{"nginx", nginxVersion(ctx)},
		{"Varnish", varnishVersion(ctx)},
		{"tutorial's program", tutorialVersions(ctx)},
	} {
		if v[1] != "" {
			all = append(all, v)
		}
	}
	return all
}

// missingPackages tells what would have to be installed for more contenders.
func missingPackages(ctx context.Context) []string {
	var missing []string
	for _, server := range []struct{ binary, name, packages string }{
		{redisServer, "Redis", redisServer},
		{"nginx", "nginx", "nginx"},
		{"varnishd", "Varnish", "varnish"},
	} {
		if _, err := findServer(server.binary); err != nil {
			missing = append(missing, server.name+" (Debian: `apt-get install "+server.packages+"`)")
		}
	}
	if findPython(ctx) == "" {
		missing = append(missing, "the tutorial's program (Debian: `apt-get install python3-fastapi python3-httpx uvicorn`)")
	}
	return missing
}

// commit returns which state of the sidecar was measured.
func commit(ctx context.Context) string {
	head, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "n/a"
	}
	text := "commit " + strings.TrimSpace(string(head))
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain", "--", "caddymodule", "cmd").Output()
	if err != nil || len(changes) > 0 {
		text += ", with changes"
	}
	return text
}

// procValue returns what follows the first "name:" in a file of /proc.
func procValue(file, name string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "n/a"
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "n/a"
}

func memorySize() string {
	kib, err := strconv.Atoi(strings.TrimSuffix(procValue("/proc/meminfo", "MemTotal"), " kB"))
	if err != nil {
		return "n/a"
	}
	return fmt.Sprintf("%.1f GiB", float64(kib)/(1<<20))
}

func firstWords(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "n/a"
	}
	words := strings.Fields(string(text))
	return strings.Join(words[:min(n, len(words))], " ")
}

// fileSystem returns the type of the file system that dir is on.
func fileSystem(dir string) string {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "n/a"
	}
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		return "n/a"
	}
	best, kind := "", "n/a"
	for line := range strings.Lines(string(text)) {
		mount, fs, ok := strings.Cut(line, " - ")
		fields := strings.Fields(mount)
		if !ok || len(fields) < 5 {
			continue
		}
		at := fields[4]
		inside := at == "/" || dir == at || strings.HasPrefix(dir, at+"/")
		if inside && len(at) >= len(best) {
			best, kind = at, strings.Fields(fs)[0]
		}
	}
	return kind
}
