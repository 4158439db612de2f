//go:build unix && !linux

package history

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C
// does not reach it.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
