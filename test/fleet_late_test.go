package test

import (
	"bytes"
	"net"
	"regexp"
	"sync"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// network is a way to Redis on which what is sent may be held up for longer than
// its sender cares. (redistest's proxy loses things, or delivers them in order.)
type network struct {
	listener net.Listener
	redis    string

	mu      sync.Mutex
	holds   bool         // guarded by mu
	held    [][]byte     // guarded by mu; by connection
	conns   []net.Conn   // guarded by mu
	arrived bytes.Buffer // guarded by mu; all that was delivered
}

func newNetwork(t *testing.T, redis string) *network {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	n := &network{listener: ln, redis: redis}
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			go n.serve(client)
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		n.cut()
	})
	return n
}

func (n *network) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", n.redis)
	if err != nil {
		return
	}
	defer server.Close()
	n.mu.Lock()
	n.conns = append(n.conns, client, server)
	n.mu.Unlock()
	go func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			k, err := server.Read(buf)
			if err != nil {
				return
			}
			_, _ = client.Write(buf[:k])
		}
	}()
	var held []byte
	buf := make([]byte, 64<<10)
	for {
		k, err := client.Read(buf)
		n.mu.Lock()
		switch {
		case err != nil:
			n.held = append(n.held, held)
		case n.holds || held != nil:
			held = append(held, buf[:k]...)
		default:
			n.arrived.Write(buf[:k])
			_, _ = server.Write(buf[:k])
		}
		n.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (n *network) hold(holds bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.holds = holds
}

func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

// count tells how often text was delivered.
func (n *network) count(text []byte) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Count(n.arrived.Bytes(), text)
}

// command begins a command of the kind that changes records.
var command = regexp.MustCompile(`\*\d+\r\n\$7\r\nEVALSHA\r\n`)

// late returns the first command that was held up and has text, once its
// connection was given up. What followed it may have been sent on another.
func (n *network) late(text string) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, held := range n.held {
		starts := command.FindAllIndex(held, -1)
		for i, start := range starts {
			end := len(held)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			if c := held[start[0]:end]; bytes.Contains(c, []byte(text)) {
				return c
			}
		}
	}
	return nil
}

// What was sent on a connection that is given up can arrive long after: systems
// try for minutes to deliver it. By then the caller was refused and its claim
// withdrawn.
func TestRedisGetsAClaimAfterItWasWithdrawn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	r := newRedis(t)
	way := newNetwork(t, r.Addr())
	a := newSidecar(t, p, options{global: onRedis("redis://"+way.listener.Addr().String(), "command_timeout 300ms", "connect_timeout 300ms")})
	b := newSidecar(t, p, options{global: onRedis(r.URL()), block: "wait 1s"})
	// It has its token, and Redis the scripts that claim, finish and withdraw.
	a.send(t, newCall(execute, "before", "403; times=1"))
	a.send(t, newCall(execute, "before", ""))

	const prefix = "genesys-sidecar:r:"
	way.hold(true)
	wantRefused(t, a.send(t, newCall(execute, "k", "")))
	waitFor(t, func() bool { return way.late(prefix) != nil }) // the connection was given up
	claim := way.late(prefix)
	record := claim[bytes.Index(claim, []byte(prefix)):]
	record = record[:bytes.IndexByte(record, '\r')]
	way.hold(false)
	waitFor(t, func() bool { return way.count(record) > 0 }) // withdrawn
	_, err := r.Do("PING")                                   // and that was done
	must(t, err)

	conn, err := net.Dial("tcp", r.Addr())
	must(t, err)
	defer conn.Close()
	_, err = conn.Write(claim)
	must(t, err)
	_, err = conn.Read(make([]byte, 1))
	must(t, err)
	// It was never sent, and nobody is at it: it is taken back once more when no
	// such claim can come any longer.
	waitFor(t, func() bool {
		got := b.send(t, newCall(execute, "k", ""))
		return got.status == 200 && !got.replayed()
	})
	p.wantEffects(t, 2)
}
