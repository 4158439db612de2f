//go:build !linux

package caddymodule

import "syscall"

// hungUp would tell whether the other end has closed a connection. Here the
// request's context has to do.
func hungUp(syscall.RawConn) bool { return false }
