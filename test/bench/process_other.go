//go:build !linux

package main

import (
	"os"
	"syscall"
	"time"
)

// ownGroup is for systems on which this program knows no better.
func ownGroup() *syscall.SysProcAttr { return nil }

// killGroup kills a program.
func killGroup(p *os.Process) { _ = p.Kill() }

// preciseSleep sleeps as precisely as the system does.
func preciseSleep(d time.Duration) { time.Sleep(d) }

// syncData has what was written to f put on the disk.
func syncData(f *os.File) error { return f.Sync() }
