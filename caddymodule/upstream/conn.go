package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is a connection. It belongs to one request at a time, or to the pool.
type conn struct {
	net.Conn
	to   server
	from *source
	in   *bufio.Reader // of from
	used bool          // by an earlier request

	look  func() bool // whether the server has neither closed it nor sent anything
	since time.Time   // when it was given back to the pool
}

// newConn returns c, which goes over raw, or is it.
func newConn(c, raw net.Conn, to server) *conn {
	from := &source{Conn: c}
	return &conn{Conn: c, to: to, from: from, in: bufio.NewReader(from), look: looker(c, raw)}
}

// looker returns the look of a conn.
func looker(c, raw net.Conn) func() bool {
	var fd syscall.RawConn
	if s, ok := raw.(syscall.Conn); ok {
		fd, _ = s.SyscallConn()
	}
	if fd == nil {
		return func() bool { return false } // it is used once
	}
	quiet := false
	ask := func(fd uintptr) bool { quiet = isQuiet(fd); return true } // made once, not for every look
	look := func() bool { return fd.Read(ask) == nil && quiet }
	secured, ok := c.(*tls.Conn)
	if !ok {
		return look
	}
	return func() bool {
		// What has come may be decrypted and lie in secured.
		if secured.SetReadDeadline(longAgo) != nil {
			return false
		}
		if n, err := secured.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		return secured.SetReadDeadline(time.Time{}) == nil && look()
	}
}

// source is what a connection is read from, up to a number of bytes.
type source struct {
	net.Conn
	left int64
}

func (s *source) Read(p []byte) (int, error) {
	if s.left <= 0 {
		return 0, errHeaderTooLong
	}
	n, err := s.Conn.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, err
}
