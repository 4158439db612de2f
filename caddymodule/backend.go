package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// backends holds open stores by their physical identity: a new configuration
// is provisioned before the old one is cleaned up, and a store can be opened
// only once.
var backends = caddy.NewUsagePool()

// backend is an open store and the gate in front of it. Calls under way in it
// outlive the configuration they came in by.
type backend struct {
	identity string
	store    idempotency.Store // as it was opened
	gate     *idempotency.Gate
	health   *health
	tallies  tallies

	leftBehind atomic.Bool // what was left behind in the store has been looked for

	mu       sync.Mutex
	settings *settings // guarded by mu; nil before init
}

// settings are what a configuration says about a backend that can change while
// it is open.
type settings struct {
	cacheSize int64
	backlog   idempotency.Bounds
	storage   Storage
	keyring   *store.Keyring
}

const (
	// closeTimeout is how long an exiting process waits for calls under way
	// whose callers have left. The callers that are still there have been
	// waited for before, by Caddy's own grace period.
	closeTimeout = 5 * time.Minute

	// reopenTimeout is how long a configuration that wants back a store that
	// the one before gave up waits for its last calls.
	reopenTimeout = 15 * time.Second
)

// closing holds a channel for each backend that is being closed, by identity.
var closing sync.Map

// loadBackend returns the backend of identity, opened by storage if need be.
func loadBackend(identity string, storage Storage, keys *store.Keyring) (*backend, error) {
	loaded, _, err := backends.LoadOrNew(identity, func() (caddy.Destructor, error) {
		if err := awaitClosing(identity); err != nil {
			return nil, err
		}
		opened, err := storage.Open(OpenOptions{Logger: slog.New(liveLog{}), Keyring: keys})
		if err != nil {
			return nil, err
		}
		h := &health{failed: func(err error) {
			emit(eventStoreUnavailable, map[string]any{"store": kindOf(identity), "error": err.Error()})
		}}
		b := &backend{
			identity: identity,
			store:    opened,
			gate:     idempotency.NewGate(observed(opened, h), idempotency.Limits{}, slog.New(liveLog{})),
			health:   h,
		}
		return b, nil
	})
	if err != nil {
		return nil, err
	}
	return loaded.(*backend), nil
}

// init applies s if the backend has no settings yet.
func (b *backend) init(s *settings) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.settings != nil {
		return nil
	}
	return b.applyLocked(s, s.keyring)
}

// apply applies s and returns what it replaced.
func (b *backend) apply(s *settings) (former *settings, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	former = b.settings
	return former, b.applyLocked(s, s.keyring)
}

// revert applies former in place of s, if s is what the backend has.
func (b *backend) revert(s, former *settings) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.settings != s || former == nil {
		return nil
	}
	// Records may be encrypted with a new key by now.
	return b.applyLocked(former, former.keyring.With(s.keyring))
}

func (b *backend) applyLocked(s *settings, keys *store.Keyring) error {
	if err := b.reconfigureLocked(s, keys); err != nil {
		return err
	}
	if b.settings == nil || b.settings.cacheSize != s.cacheSize {
		cache, err := idempotency.NewCache(s.cacheSize)
		if err != nil {
			return err
		}
		b.gate.SetCache(cache).Close()
	}
	b.gate.SetBounds(s.backlog)
	b.settings = s
	return nil
}

// reconfigureLocked has the open store take over what it can.
func (b *backend) reconfigureLocked(s *settings, keys *store.Keyring) error {
	r, ok := s.storage.(reconfigurer)
	switch {
	case ok:
		return r.reconfigure(b.store, keys)
	case b.settings != nil && !b.settings.keyring.Equal(keys):
		return fmt.Errorf("store %s cannot change its encryption_key while it is open; restart the sidecar", kindOf(b.identity))
	}
	return nil
}

// kindOf returns the kind of store that identity is of: disk, memory, redis, or
// that of another module.
func kindOf(identity string) string {
	kind, _, _ := strings.Cut(identity, ":")
	return kind
}

// Destruct closes the backend once its last call has ended. That is waited for
// if the process exits, and not if a reload goes on without this store.
func (b *backend) Destruct() error {
	done := make(chan struct{})
	closing.Store(b.identity, done)
	end := func(ctx context.Context) error {
		defer close(done)
		defer closing.CompareAndDelete(b.identity, done)
		return b.gate.Close(ctx)
	}
	if caddy.Exiting() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		defer callLines.flush() // of calls that have outlived all configurations
		return end(ctx)
	}
	go func() {
		if err := end(context.Background()); err != nil {
			logger().Error("closing store", zap.Error(err))
		}
	}()
	return nil
}

func awaitClosing(identity string) error {
	done, ok := closing.Load(identity)
	if !ok {
		return nil
	}
	select {
	case <-done.(chan struct{}):
		return nil
	case <-time.After(reopenTimeout):
		return fmt.Errorf("opening store %s: calls of an earlier configuration are still under way in it; reload again when they have ended", identity)
	}
}

// Interface guard
var _ caddy.Destructor = (*backend)(nil)
