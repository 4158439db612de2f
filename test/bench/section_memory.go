package main

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
)

const megabyte = 1e6

// sectionMemory measures what stored answers cost in memory, beyond L1, and on
// the disk.
func (b *bench) sectionMemory(ctx context.Context) error {
	n := 100_000
	if b.quick {
		n = 5_000
	}
	s, err := b.startSidecar(ctx, sidecarConfig{store: diskStore, cacheOff: true})
	if err != nil {
		return err
	}
	if _, err := b.fill(ctx, &s.server, 1000); err != nil { // what is made with the first calls
		return err
	}
	before, err := s.heap(ctx)
	if err != nil {
		return err
	}
	if _, err := b.fill(ctx, &s.server, n); err != nil {
		return err
	}
	after, err := s.heap(ctx)
	if err != nil {
		return err
	}
	size, err := dirSize(s.storeDir)
	if err != nil {
		return err
	}
	b.progress("   heap %d before, %d after; store %d", before, after, size)
	once := func(v float64) spread { return spread{v, v, v} }
	what := fmt.Sprintf("%s stored answers of 1 KiB, disk store: ", thousands(n))
	b.report.atMost(what+"Go heap", "before them", once((float64(after)-float64(before))/megabyte), 40, "MB")
	b.report.atMost(what+"size of the directory", "–", once(float64(size)/megabyte), 250, "MB")
	return nil
}

// dirSize returns the size of all files in dir.
func dirSize(dir string) (int64, error) {
	var size int64
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measuring a store's size: %w", err)
	}
	return size, nil
}
