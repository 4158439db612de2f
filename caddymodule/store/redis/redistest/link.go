package redistest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// link is a client's connection through a proxy.
type link struct {
	proxy          *Proxy
	client, server net.Conn
	once           sync.Once
	done           chan struct{} // closed when the link is

	mu     sync.Mutex
	loss   *loss  // whose reply is being lost; nil: none
	marker []byte // what the server says after that reply
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.done)
		_ = l.client.Close()
		_ = l.server.Close()
	})
}

// run passes bytes until either side hangs up.
func (l *link) run() {
	var wg sync.WaitGroup
	wg.Go(func() {
		defer l.close()
		l.requests()
	})
	wg.Go(func() {
		defer l.close()
		l.replies()
	})
	wg.Wait()
}

// pass waits until the proxy lets bytes pass, and tells whether there is still
// a connection then.
func (l *link) pass() bool {
	l.proxy.mu.Lock()
	thawed := l.proxy.thawed
	l.proxy.mu.Unlock()
	select {
	case <-l.done:
		return false
	case <-thawed:
		return true
	}
}

// requests passes what the client sends, command by command.
func (l *link) requests() {
	r := bufio.NewReader(l.client)
	w := bufio.NewWriter(l.server)
	var request []byte
	for {
		first, err := r.Peek(1)
		if err != nil {
			return
		}
		if first[0] != '*' {
			l.copy(l.server, r)
			return
		}
		request, err = readRequest(r, request[:0])
		if err != nil || !l.pass() {
			return
		}
		if loss := l.proxy.lossOf(request); loss != nil {
			l.lose(loss, w, request)
			return
		}
		if _, err := w.Write(request); err != nil {
			return
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// lose loses request or its reply, and ends the link.
func (l *link) lose(loss *loss, w *bufio.Writer, request []byte) {
	if !loss.reply {
		l.close()
		close(loss.lost)
		return
	}
	// Servers answer in order: what they answer to the marker comes after all
	// replies to what was sent before, however many and long these are.
	marker := []byte(rand.Text())
	l.mu.Lock()
	l.loss, l.marker = loss, marker
	l.mu.Unlock()
	if _, err := w.Write(request); err != nil {
		return
	}
	if _, err := fmt.Fprintf(w, "*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", len(marker), marker); err != nil {
		return
	}
	if w.Flush() != nil {
		return
	}
	<-l.done
}

// replies passes what the server sends, until a reply is to be lost.
func (l *link) replies() {
	buf := make([]byte, 64<<10)
	var swallowed []byte
	for {
		n, err := l.server.Read(buf)
		if err != nil || !l.pass() {
			return
		}
		l.mu.Lock()
		loss, marker := l.loss, l.marker
		l.mu.Unlock()
		if loss == nil {
			if _, err := l.client.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		swallowed = append(swallowed, buf[:n]...)
		if bytes.Contains(swallowed, marker) {
			l.close()
			close(loss.lost)
			return
		}
		if tail := len(swallowed) - len(marker); tail > 0 {
			swallowed = append(swallowed[:0], swallowed[tail:]...)
		}
	}
}

// copy passes bytes without looking at them.
func (l *link) copy(w io.Writer, r io.Reader) {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if err != nil || !l.pass() {
			return
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return
		}
	}
}

// readRequest appends to b the command that r begins with, as it is sent.
func readRequest(r *bufio.Reader, b []byte) ([]byte, error) {
	b, n, err := readCount(r, b)
	for ; err == nil && n > 0; n-- {
		var length int
		if b, length, err = readCount(r, b); err != nil {
			break
		}
		start := len(b)
		b = append(b, make([]byte, length+2)...)
		_, err = io.ReadFull(r, b[start:])
	}
	return b, err
}

// readCount appends to b a line such as "$12\r\n", and returns the number too.
func readCount(r *bufio.Reader, b []byte) ([]byte, int, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return b, 0, err
	}
	n, err := strconv.Atoi(string(bytes.TrimRight(line[1:], "\r\n")))
	if err == nil && n < 0 {
		err = strconv.ErrRange
	}
	return append(b, line...), n, err
}
