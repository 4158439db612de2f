package caddymodule

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
	"genesys-sidecar/caddymodule/store/disk"
	"genesys-sidecar/caddymodule/store/memory"
)

func init() {
	caddy.RegisterModule(DiskStorage{})
	caddy.RegisterModule(MemoryStorage{})
}

// Storage is a module in the namespace http.handlers.genesys_cloud.storage: it
// opens the store that keeps the answers. Package storetest tells whether a
// store does what is asked of it.
type Storage interface {
	// Identity names what Open opens, and nothing else of the configuration:
	// configurations with the same Identity share one open store.
	Identity() string

	// Open opens the store.
	Open(o OpenOptions) (idempotency.Store, error)
}

// OpenOptions are what a store is opened with beside its own configuration.
type OpenOptions struct {
	// Logger outlives the configuration.
	Logger *slog.Logger

	// Keyring encrypts what the store keeps outside the process: a store that
	// does so and cannot encrypt has to refuse one. nil: nothing is encrypted.
	Keyring *store.Keyring
}

// reconfigurer is a Storage with settings that an open store can take over.
type reconfigurer interface {
	// reconfigure makes opened go by the settings, and encrypt with keys, or
	// changes nothing and fails.
	reconfigure(opened idempotency.Store, keys *store.Keyring) error
}

// DiskStorage keeps answers in a database on disk. They survive the end of the
// process and of the machine's power. The directory belongs to one process at
// a time.
type DiskStorage struct {
	// The directory of the database. It is made if missing, for its owner
	// alone. Default: `genesys-sidecar` in Caddy's data directory.
	Dir string `json:"dir,omitempty"`

	dir string
}

// CaddyModule returns the Caddy module information.
func (DiskStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.genesys_cloud.storage.disk",
		New: func() caddy.Module { return new(DiskStorage) },
	}
}

// Provision finds the directory.
func (s *DiskStorage) Provision(caddy.Context) error {
	if err := s.find(); err != nil {
		return err
	}
	// The same directory by another name must be one store, from the first
	// time on: a link is only resolved where it leads to something.
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("making store directory: %w", err)
	}
	if real, err := filepath.EvalSymlinks(s.dir); err == nil {
		s.dir = real
	}
	return nil
}

// find finds the directory, which need not exist.
func (s *DiskStorage) find() error {
	dir := s.Dir
	if dir == "" {
		dir = filepath.Join(caddy.AppDataDir(), "genesys-sidecar")
	}
	dir, err := caddy.NewReplacer().ReplaceOrErr(dir, true, true)
	if err != nil {
		return fmt.Errorf("reading dir: %w", err)
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("reading dir: %w", err)
	}
	return nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store disk [<dir>]
func (s *DiskStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if d.NextArg() {
		s.Dir = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Errf("store disk has no option %q; it takes a directory, as in: store disk /var/lib/genesys-sidecar", d.Val())
	}
	return nil
}

// Identity implements Storage.
func (s *DiskStorage) Identity() string { return "disk:" + s.dir }

// where tells operators where the store is.
func (s *DiskStorage) where() string { return s.dir }

// Open implements Storage.
func (s *DiskStorage) Open(o OpenOptions) (idempotency.Store, error) {
	makeRoomForSyncs()
	return disk.Open(s.dir, disk.Options{Logger: o.Logger, Keyring: o.Keyring})
}

func (*DiskStorage) reconfigure(opened idempotency.Store, keys *store.Keyring) error {
	return setKeyring(opened, keys)
}

// setKeyring gives a store that encrypts its keys.
func setKeyring(opened idempotency.Store, keys *store.Keyring) error {
	if s, ok := opened.(interface{ SetKeyring(*store.Keyring) error }); ok {
		return s.SetKeyring(keys)
	}
	return nil
}

// syncProcs is how many goroutines may be in a sync or write of the store while
// others use all cores: one syncs the log, one writes the newest table, and two
// compact others.
const syncProcs = 4

// makeRoomForSyncs has Go run that many more goroutines at a time. One that
// waits for the disk keeps its place among GOMAXPROCS until the runtime notices,
// which takes longer than a sync does: on two cores, one of them idles while
// calls wait. It is left alone where GOMAXPROCS is set in the environment. (From
// then on Go does not follow a container's changing limit by itself.)
var makeRoomForSyncs = sync.OnceFunc(func() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + syncProcs)
	}
})

// MemoryStorage keeps answers in memory. Nothing survives the process: after a
// restart, a repeat of a call that ran before runs it again. Nothing is at rest
// either, so that `encryption_key` has no effect.
type MemoryStorage struct {
	// About how many bytes are held at most. When they are full, the oldest
	// answers go, but not the knowledge that their calls ran; when that alone
	// fills them, new calls are refused. Default: 67108864 (64 MiB).
	MaxSize int64 `json:"max_size,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (MemoryStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.genesys_cloud.storage.memory",
		New: func() caddy.Module { return new(MemoryStorage) },
	}
}

// Provision applies the default.
func (s *MemoryStorage) Provision(caddy.Context) error {
	if s.MaxSize == 0 {
		s.MaxSize = memory.DefaultMaxSize
	}
	return nil
}

// Validate checks the size.
func (s *MemoryStorage) Validate() error {
	if s.MaxSize < 1<<20 {
		return fmt.Errorf("max_size of store memory is %s; it must be 1MiB or more", humanize.IBytes(uint64(max(s.MaxSize, 0))))
	}
	return nil
}

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store memory {
//	    max_size <size>
//	}
func (s *MemoryStorage) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume store name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		switch d.Val() {
		case "max_size":
			if err := parseSize(d, &s.MaxSize); err != nil {
				return err
			}
		default:
			return d.Errf("store memory has no option %q; it has max_size", d.Val())
		}
	}
	return nil
}

// Identity implements Storage.
func (*MemoryStorage) Identity() string { return "memory" }

// Open implements Storage.
func (s *MemoryStorage) Open(OpenOptions) (idempotency.Store, error) {
	return memory.New(memory.Options{MaxSize: s.MaxSize}), nil
}

func (s *MemoryStorage) reconfigure(opened idempotency.Store, _ *store.Keyring) error {
	if m, ok := opened.(*memory.Store); ok {
		m.SetMaxSize(s.MaxSize)
	}
	return nil
}

// Interface guards
var (
	_ Storage               = (*DiskStorage)(nil)
	_ reconfigurer          = (*DiskStorage)(nil)
	_ caddy.Provisioner     = (*DiskStorage)(nil)
	_ caddyfile.Unmarshaler = (*DiskStorage)(nil)
	_ Storage               = (*MemoryStorage)(nil)
	_ reconfigurer          = (*MemoryStorage)(nil)
	_ caddy.Provisioner     = (*MemoryStorage)(nil)
	_ caddy.Validator       = (*MemoryStorage)(nil)
	_ caddyfile.Unmarshaler = (*MemoryStorage)(nil)
)
