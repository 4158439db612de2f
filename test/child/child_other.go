//go:build !unix

package child

import (
	"os"
	"syscall"
)

func attributes(syscall.Signal) *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) { _ = p.Kill() }
