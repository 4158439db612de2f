//go:build unix

package main

import (
	"os"
	"syscall"
)

// childAttributes put a child into a process group of its own, so that Ctrl-C
// does not reach it, and it can be killed with its children.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills a child and its children.
func killGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }
