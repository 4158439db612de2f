package redistest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel kill the process of cmd as soon as the thread
// that started it ends, so that a test process that is killed leaves no servers
// behind, not even paused ones.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
