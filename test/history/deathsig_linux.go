package history

import "syscall"

// childAttributes put a child into a process group of its own, so that Ctrl-C
// does not reach it, and have the kernel kill it with the thread that started it.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
