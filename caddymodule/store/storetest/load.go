package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// The mixed load: this many workers, each this many rounds over so few keys
// that they meet all the time.
const (
	loadWorkers = 16
	loadRounds  = 200
	loadKeys    = 8
)

var loadTests = []test{
	{"whoever claimed is the only one until release", func(t *testing.T, f *fixture) {
		var (
			wg   sync.WaitGroup
			held [loadKeys]atomic.Int32
		)
		for w := range loadWorkers {
			wg.Go(func() {
				for r := range loadRounds {
					k := (w + r*7) % loadKeys
					if err := f.hold(fmt.Sprint("key", k), &held[k]); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		for k := range loadKeys {
			f.wantAbsent(f.started(fmt.Sprint("key", k)).ID)
		}
		f.wantUnsettled(adoption("load"))
	}},

	{"a reader never sees half a change", func(t *testing.T, f *fixture) {
		rec := f.keyless("a", adoption("load"))
		f.claim(rec, idempotency.Owner{})
		var (
			wg   sync.WaitGroup
			stop = make(chan struct{})
		)
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					got, err := f.Get(f.ctx, rec.ID)
					switch {
					case err != nil:
						t.Errorf("getting: %v", err)
						return
					case got == nil || !same(got, unknown(rec)) && !same(got, done(rec)) && !same(got, rec):
						t.Errorf("got %v", show(got))
						return
					}
				}
			})
		}
		for range loadRounds / 2 {
			f.finish(unknown(rec))
			f.finish(done(rec))
		}
		close(stop)
		wg.Wait()
	}},
}

// hold claims name, does with the record what a call may do, and releases it,
// unless another has claimed it. It checks that nobody else holds it meanwhile.
func (f *fixture) hold(name string, held *atomic.Int32) error {
	rec := f.keyless(name, adoption("load"))
	standing, err := f.Claim(f.ctx, rec, idempotency.Owner{})
	if err != nil {
		return fmt.Errorf("claiming: %w", err)
	}
	if standing != nil {
		if standing.ID != rec.ID || standing.Owner == rec.Owner {
			return fmt.Errorf("claiming %s: what stands in the way is %s", name, show(standing))
		}
		if err := f.Finish(f.ctx, done(rec)); !errors.Is(err, idempotency.ErrNotOwner) {
			return fmt.Errorf("finishing what was never claimed: %w", err)
		}
		_, err := f.Unsettled(f.ctx, rec.Adoption)
		return err
	}
	if n := held.Add(1); n != 1 {
		return fmt.Errorf("%d hold %s", n, name)
	}
	if err := f.Finish(f.ctx, unknown(rec)); err != nil {
		return fmt.Errorf("finishing: %w", err)
	}
	if err := f.Tell(f.ctx, rec.ID, rec.Owner, f.epoch.Add(time.Second)); err != nil {
		return fmt.Errorf("telling: %w", err)
	}
	if err := f.Finish(f.ctx, done(rec)); err != nil {
		return fmt.Errorf("finishing: %w", err)
	}
	if got, err := f.Get(f.ctx, rec.ID); err != nil || got == nil || !same(got, done(rec)) {
		return fmt.Errorf("getting what was just finished: %s, %w", show(got), err)
	}
	if err := f.Settle(f.ctx, rec.ID, rec.Owner); err != nil {
		return fmt.Errorf("settling: %w", err)
	}
	held.Add(-1)
	if err := f.Release(f.ctx, rec.ID, rec.Owner); err != nil {
		return fmt.Errorf("releasing: %w", err)
	}
	return nil
}
