//go:build linux || darwin || freebsd || netbsd || openbsd

package disk

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// holder names the other process that has locked the file name, in brackets, or
// returns "" where the system does not tell. This process must not have locked
// it: closing any descriptor of the file would unlock it.
func holder(name string) string {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	lock := syscall.Flock_t{Type: syscall.F_WRLCK}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &lock); err != nil || lock.Type == syscall.F_UNLCK || lock.Pid <= 0 {
		return ""
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", lock.Pid)) // Linux
	if program := strings.TrimSpace(string(comm)); program != "" {
		return fmt.Sprintf(" (%s, process %d)", program, lock.Pid)
	}
	return fmt.Sprintf(" (process %d)", lock.Pid)
}
