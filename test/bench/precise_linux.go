package main

import (
	"os"
	"syscall"
	"time"
)

// preciseSleep sleeps to within about a tenth of a millisecond. time.Sleep may
// be a whole one late, since an idle Go program waits in epoll_wait.
func preciseSleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // woken early, the caller asks again
}

// syncData has what was written to f put on the disk.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
