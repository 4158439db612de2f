//go:build !linux

package main

import (
	"os"
	"time"
)

// preciseSleep sleeps as precisely as the system does.
func preciseSleep(d time.Duration) { time.Sleep(d) }

// syncData has what was written to f put on the disk.
func syncData(f *os.File) error { return f.Sync() }
