package upstream

import (
	"compress/gzip"
	"io"
	"net/http"
	"sync/atomic"
)

// answer is the body of an answer. Once it is read to its end, its connection is
// free for the next request; if it is closed before, so is the connection. It may
// be closed while it is read.
type answer struct {
	io.Reader
	c    *conn
	idle *pool
	keep bool         // the server keeps the connection
	fate atomic.Int32 // reading, finished or closed; c is its own while it is read
}

const (
	reading int32 = iota
	finished
	closed
)

func (a *answer) Read(p []byte) (int, error) {
	switch a.fate.Load() {
	case finished:
		return 0, io.EOF
	case closed:
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := a.Reader.Read(p)
	if err == io.EOF {
		a.finish()
	}
	return n, err
}

// finish gives the connection back, or closes it where it cannot be used again.
func (a *answer) finish() {
	if !a.fate.CompareAndSwap(reading, finished) {
		return
	}
	// What has come beyond the answer was not asked for.
	if !a.keep || a.c.in.Buffered() > 0 {
		_ = a.c.Close()
		return
	}
	a.idle.put(a.c)
}

// Close implements io.Closer.
func (a *answer) Close() error {
	if a.fate.Swap(closed) == reading {
		_ = a.c.Close()
	}
	return nil
}

// gunzip is the body of an answer that came compressed.
type gunzip struct {
	*answer
	plain *gzip.Reader // nil: nothing was read yet
	err   error        // of making plain
}

func (g *gunzip) Read(p []byte) (int, error) {
	if g.fate.Load() == closed {
		return 0, http.ErrBodyReadAfterClose
	}
	if g.plain == nil && g.err == nil {
		g.plain, g.err = gzip.NewReader(g.answer)
	}
	if g.err != nil {
		return 0, g.err
	}
	return g.plain.Read(p)
}
