package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/dustin/go-humanize"

	"genesys-sidecar/caddymodule/store/disk"
	"genesys-sidecar/caddymodule/store/redis"
)

const checkStore = "store"

// checkStore looks at the store without opening it.
func (d *doctor) checkStore(ctx context.Context) {
	module, err := d.loadStorage()
	if err != nil {
		d.problem(checkStore, err.Error(), "mend the option store of the global option genesys")
		return
	}
	switch s := module.(type) {
	case *DiskStorage:
		d.checkDisk(s)
	case *MemoryStorage:
		d.warn(checkStore, "it is in memory: with the sidecar's end it forgets every call, which then may run twice",
			"store disk keeps them, store redis shares them")
	case *RedisStorage:
		d.checkRedis(ctx, s)
	default:
		d.ok(checkStore, fmt.Sprintf("%s is not one that this looks into", module.CaddyModule().ID))
	}
}

// checkDisk looks at a store's directory.
func (d *doctor) checkDisk(s *DiskStorage) {
	if err := s.find(); err != nil {
		d.problem(checkStore, err.Error(), "mend the directory of store disk")
		return
	}
	dir, missing := nearest(s.dir)
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory", dir)
	}
	if err != nil {
		d.problem(checkStore, fmt.Sprintf("the directory %s cannot be made: %v", s.dir, err), "name another, as in: store disk /var/lib/genesys-sidecar")
		return
	}
	what := "the directory " + s.dir
	if missing {
		what += " is made at the first start, in " + dir
	} else {
		d.checkOwner(dir, info)
	}
	holder := disk.Holder(s.dir)
	if holder != "" {
		d.checkHolder(s.dir, holder)
	}
	took, err := writeAndSync(dir)
	if err != nil {
		d.problem(checkStore, fmt.Sprintf("%s cannot be written to: %v", dir, err), orElse(disk.Advice(err), "let the user that the sidecar runs as write there"))
		return
	}
	d.ok(checkStore, what)
	if sync := fmt.Sprintf("a write with its sync takes %s", took.Round(10*time.Microsecond)); took > slowSync {
		d.warn(checkStore, sync, "each new call waits for two of them: a faster disk makes calls faster")
	} else {
		d.ok(checkStore, sync)
	}
	d.checkFileSystem(dir)
}

// checkHolder looks at who has the store open.
func (d *doctor) checkHolder(dir, holder string) {
	switch {
	case d.running != nil && d.running.Store.Where == dir:
		d.ok(checkStore, "the running sidecar has it open ("+holder+")")
	case d.running != nil:
		d.warn(checkStore, fmt.Sprintf("%s has it open, and the sidecar that answers at %s has not", holder, d.admin.address),
			"a store belongs to one sidecar: name another directory for one of them")
	default:
		d.warn(checkStore, holder+" has it open, and no sidecar answers at the admin endpoint",
			"if that is the sidecar, --address says where its admin endpoint is; else stop it: two cannot have one store")
	}
}

// nearest returns dir, or the nearest directory above it that exists.
func nearest(dir string) (existing string, missing bool) {
	existing = dir
	for {
		_, err := os.Lstat(existing)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !isNotDir(err) || filepath.Dir(existing) == existing {
			return existing, missing
		}
		existing, missing = filepath.Dir(existing), true
	}
}

func isNotDir(err error) bool { return strings.Contains(err.Error(), "not a directory") }

// slowSync is how long a sync may take before it is worth a word. Disks take
// some milliseconds, and those with a battery less.
const slowSync = 50 * time.Millisecond

// syncs is how often a write is tried. The middle one counts: others use the
// disk, too.
const syncs = 5

// writeAndSync writes to a file in dir as the store does, and removes it. It
// returns how long a write takes.
func writeAndSync(dir string) (took time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".doctor-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	var all [syncs]time.Duration
	for i := range all {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		all[i] = time.Since(began)
	}
	slices.Sort(all[:])
	return all[syncs/2], nil
}

const (
	leastFree = 64 << 20 // below it the store may fail at once
	lowFree   = 1 << 30
)

// checkFree looks at the room that is left for a store.
func (d *doctor) checkFree(dir string, free uint64) {
	switch text := humanize.IBytes(free) + " are free at " + dir; {
	case free < leastFree:
		d.problem(checkStore, text, "make room: a store that cannot write refuses all calls")
	case free < lowFree:
		d.warn(checkStore, text, "make room: 100,000 answers of 1 KiB take about 180 MB")
	default:
		d.ok(checkStore, text)
	}
}

// checkRedis looks at Redis.
func (d *doctor) checkRedis(ctx context.Context, s *RedisStorage) {
	caddyCtx, cancel := caddy.NewContext(caddy.Context{Context: ctx})
	defer cancel()
	err := s.Provision(caddyCtx)
	if err == nil {
		err = s.Validate()
	}
	if err != nil {
		d.problem(checkStore, err.Error(), "mend the option store redis")
		return
	}
	where := "redis " + strings.Join(s.options.Endpoint.Addresses(), ", ")
	began := time.Now()
	nodes, err := redis.Examine(ctx, s.options)
	if err != nil {
		d.problem(checkStore, where+" does not serve: "+err.Error(),
			"check its address, user and password, and that it runs; a sidecar refuses new calls until it does")
		return
	}
	d.ok(checkStore, fmt.Sprintf("%s answers, in %s with its connection", where, time.Since(began).Round(time.Millisecond)))
	for _, n := range nodes {
		if n.Err != nil {
			d.problem(checkStore, fmt.Sprintf("redis %s: %v", n.Address, n.Err), "mend or replace that node")
		}
		for _, f := range n.Findings {
			found, advice, _ := strings.Cut(f, "; ")
			d.warn(checkStore, fmt.Sprintf("redis %s %s: %s", n.Address, n.Version, found), advice)
		}
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
