package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// knowsArrivals tells whether this system notes when answers arrive, so that they
// need not be read at once to know that.
const knowsArrivals = true

// arrival reads from a connection, and knows when what it has read last had come.
// Make one with newArrival before anything comes.
type arrival struct {
	raw syscall.RawConn
	at  time.Time
}

// newArrival has the system note when what comes on conn does.
func newArrival(conn net.Conn) (*arrival, error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("timing arrivals: %w", err)
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TIMESTAMPNS, 1)
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return nil, fmt.Errorf("timing arrivals: %w", err)
	}
	return &arrival{raw: raw}, nil
}

// Read implements io.Reader.
func (a *arrival) Read(p []byte) (int, error) {
	var (
		n, notes int
		err      error
		space    [64]byte
	)
	waiting := a.raw.Read(func(fd uintptr) bool {
		n, notes, _, _, err = syscall.Recvmsg(int(fd), p, space[:], 0)
		return err != syscall.EAGAIN
	})
	if waiting != nil {
		return 0, waiting
	}
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(space[:notes])
	if err != nil {
		return n, fmt.Errorf("timing arrivals: %w", err)
	}
	for _, m := range messages {
		if m.Header.Level == syscall.SOL_SOCKET && m.Header.Type == syscall.SO_TIMESTAMPNS && len(m.Data) == 16 {
			a.at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return n, nil
}
