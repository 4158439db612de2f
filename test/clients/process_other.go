//go:build !unix

package main

import (
	"os"
	"syscall"
)

// childAttributes is for systems on which this program knows no better.
func childAttributes() *syscall.SysProcAttr { return nil }

// killGroup kills a child.
func killGroup(p *os.Process) error { return p.Kill() }
