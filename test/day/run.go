package main

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/sandbox"
)

// mode is what stands between the callers and the platform.
type mode int

const (
	direct  mode = iota // nothing
	unpaced             // the sidecar, without pace and concurrency
	paced               // the sidecar, with both
)

var modes = []mode{direct, unpaced, paced}

func (m mode) String() string { return [...]string{"no sidecar", "not paced", "paced"}[m] }

// run is a scenario that is played once.
type run struct {
	scenario scenario
	mode     mode
	began    time.Time
	handler  http.Handler
	calls    []call
	fates    []fate // of the calls
	platform *platform
	effects  []sandbox.Effect
	excess   int           // requests that the sandbox has refused
	real     time.Duration // how long it took
}

// play plays s in simulated time.
func play(t *testing.T, s scenario, m mode) *run {
	t.Helper()
	r := &run{scenario: s, mode: m, calls: s.calls()}
	before := time.Now()
	synctest.Test(t, func(t *testing.T) {
		if err := r.playOut(); err != nil {
			t.Error(err)
		}
	})
	r.real = time.Since(before)
	return r
}

// playOut plays the scenario in a bubble.
func (r *run) playOut() (err error) {
	if r.platform, err = newPlatform(r.scenario.seed); err != nil {
		return err
	}
	if r.mode == direct {
		r.handler, err = r.platform.withToken()
	} else {
		r.handler, err = startSidecar(r.platform, r.mode == paced)
	}
	if err != nil {
		return err
	}
	r.began = time.Now()
	r.platform.began = r.began
	r.fates = make([]fate, len(r.calls))
	var all sync.WaitGroup
	for i, c := range r.calls {
		time.Sleep(time.Until(r.began.Add(c.at)))
		all.Go(func() { r.fates[i] = r.playCall(c) })
	}
	all.Wait()
	time.Sleep(2 * time.Minute) // what is still under way ends
	if r.mode != direct {
		if err := caddy.Stop(); err != nil {
			return fmt.Errorf("stopping the sidecar: %w", err)
		}
	}
	r.effects = r.platform.sandbox.Ledger(sandbox.Filter{}).Effects
	r.excess = r.platform.sandbox.Summary().OverLimit
	return r.platform.sandbox.Close()
}
