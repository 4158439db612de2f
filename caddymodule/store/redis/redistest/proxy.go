package redistest

import (
	"errors"
	"fmt"
	"net"
	"sync"
)

// Proxy stands in front of a server and does to the connections what networks
// do. It passes TLS too, but can then not tell one request from another.
type Proxy struct {
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex // guards all below
	target string
	refuse bool
	closed bool
	thawed chan struct{} // closed while bytes may pass
	links  map[*link]struct{}
	loss   *loss // nil: nothing is to be lost
}

// loss is something that is to be lost, once.
type loss struct {
	match func(request []byte) bool
	reply bool          // else the request itself
	lost  chan struct{} // closed when it is lost
}

// StartProxy starts a proxy in front of target, a host and port. The caller
// closes it.
func StartProxy(target string) (*Proxy, error) {
	l, err := listen()
	if err != nil {
		return nil, fmt.Errorf("starting a proxy: %w", err)
	}
	p := &Proxy{
		listener: l,
		target:   target,
		thawed:   make(chan struct{}),
		links:    make(map[*link]struct{}),
	}
	close(p.thawed)
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the proxy's host and port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// URL returns the proxy's address as a URL, without a password.
func (p *Proxy) URL() string { return "redis://" + p.Addr() }

// Point has the proxy connect to target from now on. What is connected stays
// so, until Cut.
func (p *Proxy) Point(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Cut closes all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Refuse sets whether new connections are closed at once. Those that are there
// stay, until Cut.
func (p *Proxy) Refuse(refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = refuse
}

// Freeze holds everything up, both ways, until Thaw: connections stay open, new
// ones are made, and nothing arrives.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
		p.thawed = make(chan struct{})
	default: // frozen already
	}
}

// Thaw lets pass what Freeze held up. Nothing is lost by it.
func (p *Proxy) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.thawed:
	default:
		close(p.thawed)
	}
}

// LoseReply has the proxy lose the answer of the next request that match holds
// of: the server gets the request and answers it, the client's connection is
// closed instead. Answers to earlier requests that are still under way on that
// connection are lost with it. The channel is closed after the server has
// answered and the connection was closed.
//
// match gets one command as it is sent, framing included. It is called by one
// goroutine at a time, must not keep the bytes and must not call p. It must not
// hold of a command inside a transaction, but may of its EXEC. It is good for
// one loss, and the next LoseReply or LoseRequest replaces it.
func (p *Proxy) LoseReply(match func(request []byte) bool) (lost <-chan struct{}) {
	return p.lose(match, true)
}

// LoseRequest is LoseReply, but the server never gets the request.
func (p *Proxy) LoseRequest(match func(request []byte) bool) (lost <-chan struct{}) {
	return p.lose(match, false)
}

func (p *Proxy) lose(match func([]byte) bool, reply bool) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = &loss{match: match, reply: reply, lost: make(chan struct{})}
	return p.loss.lost
}

// lossOf returns what is to be lost with request, or nil.
func (p *Proxy) lossOf(request []byte) *loss {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.loss
	if l == nil || !l.match(request) {
		return nil
	}
	p.loss = nil
	return l
}

// Close closes the proxy and all its connections. It may be called more than
// once.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.listener.Close()
	p.Cut()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve connects client to the target until either hangs up.
func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target, refuse := p.target, p.refuse
	p.mu.Unlock()
	if refuse {
		return
	}
	server, err := net.DialTimeout("tcp", target, limit)
	if err != nil {
		return
	}
	l := &link{proxy: p, client: client, server: server, done: make(chan struct{})}
	defer l.close()
	p.mu.Lock()
	if p.closed || p.refuse {
		p.mu.Unlock()
		return
	}
	p.links[l] = struct{}{}
	p.mu.Unlock()
	l.run()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}
