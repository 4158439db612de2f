//go:build !linux

package main

import (
	"net"
	"time"
)

// knowsArrivals tells whether this system notes when answers arrive, so that they
// need not be read at once to know that.
const knowsArrivals = false

// arrival reads from a connection, and knows when it has read last.
type arrival struct {
	net.Conn
	at time.Time
}

func newArrival(conn net.Conn) (*arrival, error) { return &arrival{Conn: conn}, nil }

// Read implements io.Reader.
func (a *arrival) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	a.at = time.Now()
	return n, err
}
