//go:build linux || darwin || freebsd || netbsd || openbsd

package upstream

import "syscall"

// canLook says that the system can be asked what has come on a connection.
const canLook = true

// isQuiet tells whether nothing has come on a socket, not even its end.
func isQuiet(fd uintptr) bool {
	var b [1]byte
	for {
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			return err == syscall.EAGAIN
		}
	}
}
