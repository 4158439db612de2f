package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// syncedSize is how much is put on the disk at a time, in bytes.
const syncedSize = 1 << 10

// timeSyncs measures how long it takes to append 1 KiB to a file in dir and to
// have it put on the disk, n times.
func timeSyncs(dir string, n int) ([]time.Duration, error) {
	log, err := newSyncedLog(dir, 0)
	if err != nil {
		return nil, fmt.Errorf("measuring fsync: %w", err)
	}
	defer log.remove()
	took := make([]time.Duration, n)
	for i := range took {
		began := time.Now()
		if err := log.put(); err != nil {
			return nil, fmt.Errorf("measuring fsync: %w", err)
		}
		took[i] = time.Since(began)
	}
	return took, nil
}

// syncTwice has 1 KiB put on the disk twice, one after the other, as often as the
// load says: what is left of a call to the disk store when all else is free.
func syncTwice(ctx context.Context, dir string, l load) (sample, error) {
	calls := int(l.duration.Seconds()*float64(l.perSecond)) + 1
	log, err := newSyncedLog(dir, 2*calls)
	if err != nil {
		return sample{}, fmt.Errorf("measuring fsync: %w", err)
	}
	defer log.remove()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var took []uint32 // guarded by mu
	var all sync.WaitGroup
	began := time.Now()
	err = plan{duration: l.duration}.pace(began, l.perSecond, func(due time.Time) error {
		all.Go(func() {
			for range 2 {
				if err := log.put(); err != nil {
					cancel(fmt.Errorf("measuring fsync: %w", err))
					return
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, uint32(time.Since(due).Microseconds()))
		})
		return context.Cause(ctx)
	})
	all.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return sample{}, err
	}
	slices.Sort(took)
	o := outcome{requests: len(took), elapsed: time.Since(began), latencies: took}
	return newSample(o, usage{}, usage{}, usage{}, usage{}), nil
}

// syncedLog is a file of blocks. Those that are put there during a sync share the
// next one.
type syncedLog struct {
	file  *os.File
	block []byte

	writing sync.Mutex
	written int64 // blocks; guarded by writing

	turn   sync.Mutex // held by who syncs
	synced int64      // blocks; guarded by turn
}

// newSyncedLog makes a log in dir of which so many blocks have been written over
// once, as the store's are.
func newSyncedLog(dir string, blocks int) (*syncedLog, error) {
	f, err := os.CreateTemp(dir, "fsync-")
	if err != nil {
		return nil, err
	}
	l := &syncedLog{file: f, block: randomText(syncedSize)}
	for range blocks {
		if _, err = f.Write(l.block); err != nil {
			break
		}
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		l.remove()
		return nil, err
	}
	return l, nil
}

func (l *syncedLog) remove() {
	_ = l.file.Close()
	_ = os.Remove(l.file.Name())
}

// put returns once another block is on the disk.
func (l *syncedLog) put() error {
	n, err := l.write()
	if err != nil {
		return err
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	if l.synced >= n {
		return nil
	}
	l.writing.Lock()
	upTo := l.written
	l.writing.Unlock()
	if err := syncData(l.file); err != nil {
		return err
	}
	l.synced = upTo
	return nil
}

// write writes a block, and returns how many there are then.
func (l *syncedLog) write() (int64, error) {
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, err := l.file.WriteAt(l.block, l.written*syncedSize); err != nil {
		return 0, err
	}
	l.written++
	return l.written, nil
}
