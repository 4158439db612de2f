package main

import (
	"os"
	"syscall"
	"time"
)

// ownGroup puts a program into a group of its own, so that it can be killed
// with its children, and has it end when this program is killed.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// killGroup kills a program, which has not been waited for, and its children.
func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// preciseSleep sleeps to within about a tenth of a millisecond. time.Sleep may
// be a whole one late, since an idle Go program waits in epoll_wait.
func preciseSleep(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // woken early, the caller asks again
}

// syncData has what was written to f put on the disk.
func syncData(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }
