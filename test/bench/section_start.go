package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// sectionStart measures how long a sidecar with many records takes to be there
// again, after a clean end and after a crash.
func (b *bench) sectionStart(ctx context.Context) error {
	if err := b.needFullStore(ctx); err != nil {
		return err
	}
	full := b.fullStore
	s, err := b.newSidecar(ctx, sidecarConfig{store: diskStore, storeDir: full.dir, cacheOff: true})
	if err != nil {
		return err
	}
	var afterStop, afterKill []float64
	for range min(3, b.rounds) {
		took, err := b.startUntilReplay(ctx, s, full)
		if err != nil {
			return err
		}
		b.progress("   after a clean stop: %v", took)
		afterStop = append(afterStop, took.Seconds())

		if err := b.crash(ctx, s); err != nil {
			return err
		}
		took, err = b.startUntilReplay(ctx, s, full)
		if err != nil {
			return err
		}
		b.progress("   after kill -9: %v", took)
		afterKill = append(afterKill, took.Seconds())
		s.stop()
	}
	what := fmt.Sprintf("start with %s records until a replay is answered", thousands(full.records))
	b.report.atMost(what, "after a clean stop", spreadOf(afterStop), 1, "s")
	b.report.atMost(what, "after kill -9 amid calls", spreadOf(afterKill), 1, "s")
	return nil
}

// crash kills the sidecar while it runs calls, so that some of them are in its
// log only.
func (b *bench) crash(ctx context.Context, s *sidecar) error {
	p := plan{
		address:     s.address,
		request:     s.request(requestSize),
		keys:        newKeys(),
		connections: b.connections,
		duration:    b.duration + time.Minute,
		check:       anyAnswer,
	}
	noticed := make(chan error, 1)
	go func() {
		_, err := p.run(ctx)
		noticed <- err
	}()
	select {
	case err := <-noticed:
		return fmt.Errorf("calling the sidecar until it is killed: %w", err)
	case <-time.After(b.duration):
	}
	s.kill()
	if err := <-noticed; err == nil {
		return errors.New("killing the sidecar: its callers have not noticed")
	}
	return nil
}

// needFullStore fills a store, if no section before has.
func (b *bench) needFullStore(ctx context.Context) error {
	if b.fullStore != nil {
		return nil
	}
	dir, err := b.newDir("records")
	if err != nil {
		return err
	}
	s, err := b.startSidecar(ctx, sidecarConfig{store: diskStore, storeDir: dir, cacheOff: true})
	if err != nil {
		return err
	}
	n := b.steps()[len(b.steps())-1]
	b.progress("   filling a store with %s records", thousands(n))
	filled, err := b.fill(ctx, &s.server, n)
	if err != nil {
		return err
	}
	s.stop()
	b.fullStore = &filledStore{dir, filled, n}
	return nil
}

// startUntilReplay starts the sidecar, and returns how long it took until it
// told an answer of full again.
func (b *bench) startUntilReplay(ctx context.Context, s *sidecar, full *filledStore) (time.Duration, error) {
	c := contender{server: &s.server, replayed: true}
	ask := plan{
		address:     s.address,
		request:     s.request(requestSize),
		keys:        full.keys.again(full.records),
		connections: 1,
		count:       1,
		check:       c.check(),
	}
	began := time.Now()
	if err := b.launch(ctx, s); err != nil {
		return 0, err
	}
	giveUp := time.After(time.Minute)
	for {
		_, err := ask.run(ctx)
		if err == nil {
			return time.Since(began), nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return 0, fmt.Errorf("asking for a replay: %w", err)
		}
		select {
		case <-s.Ended():
			return 0, s.early()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-giveUp:
			return 0, fmt.Errorf("starting the sidecar: no answer within a minute: %w", err)
		case <-time.After(time.Millisecond):
		}
	}
}
