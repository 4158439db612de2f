package caddymodule

import (
	"encoding/hex"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"genesys-sidecar/caddymodule/idempotency"
)

// line is what the log says of a request for a data action that has ended: no
// key, no body, no token.
type line struct {
	ending       ending
	orphaned     bool // nobody was there any more to be told
	problem      string
	status       int
	id           idempotency.ID // zero: it has none
	journal      idempotency.Journal
	action       string
	organization string
	took         time.Duration

	// There is a line for each call, so that what it needs is reused.
	entry  *zapcore.CheckedEntry
	fields [1]zap.Field
	digest [2 * digestSize]byte
}

var lines = sync.Pool{New: func() any { return new(line) }}

// logCall logs l under the logger genesys.calls. Caddy's own options decide
// where it goes, and how many of them do.
func (h *Handler) logCall(l line) {
	log := h.app.calls
	if a := running.Load(); a != nil {
		log = a.calls
	}
	level := zapcore.InfoLevel
	if l.ending == endUnknown {
		level = zapcore.WarnLevel
	}
	entry := log.Check(level, "call")
	if entry == nil {
		return
	}
	pooled := lines.Get().(*line)
	*pooled = l
	pooled.entry = entry
	callLines.add(pooled)
}

// write writes l, which must not be used any more.
func (l *line) write() {
	l.fields[0] = zap.Inline(l)
	l.entry.Write(l.fields[:]...)
	*l = line{}
	lines.Put(l)
}

// callLog writes lines one after the other, a moment later: what a caller waits for
// is its answer, and to write a line takes about as long as to send that. If that is
// so slow that maxLines wait, a call writes its line by itself. A crash loses the
// lines that wait; what is on record it does not lose. Make one with newCallLog.
type callLog struct {
	mu      sync.Mutex
	waiting []*line    // guarded by mu
	writing bool       // guarded by mu
	wrote   *sync.Cond // of mu; writing has become false
	written []*line    // room for lines; for who writes
}

const (
	maxLines = 4096

	// lineDelay is how long the first line waits for others. At some hundred calls a
	// second each would else wake up a processor that has gone to sleep, or be in
	// the way of the next call on one that has not. A thousand callers who wait for
	// one call are all answered before their lines are written.
	lineDelay = 50 * time.Millisecond
)

var callLines = newCallLog()

func newCallLog() *callLog {
	c := new(callLog)
	c.wrote = sync.NewCond(&c.mu)
	return c
}

func (c *callLog) add(l *line) {
	if !c.queue(l) {
		l.write()
	}
}

// queue has l written soon, unless too many wait.
func (c *callLog) queue(l *line) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) >= maxLines {
		return false
	}
	c.waiting = append(c.waiting, l)
	if len(c.waiting) == 1 {
		time.AfterFunc(lineDelay, c.flush)
	}
	return true
}

// flush returns once the lines that were added before it are written: what they
// are written to may be closed then.
func (c *callLog) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing {
		c.wrote.Wait()
	}
	c.writing = true
	lines := c.waiting
	c.waiting = c.written
	c.mu.Unlock()
	for _, l := range lines {
		l.write()
	}
	clear(lines)
	c.written = lines[:0]
	c.mu.Lock()
	c.writing = false
	c.wrote.Broadcast()
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l *line) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("outcome", l.ending.String())
	if l.problem != "" {
		enc.AddString("problem", l.problem)
	}
	if l.orphaned {
		enc.AddBool("orphaned", true)
	}
	if l.organization != "" {
		enc.AddString("organization", l.organization)
	}
	enc.AddString("action", l.action)
	if l.id != (idempotency.ID{}) {
		hex.Encode(l.digest[:], l.id[:digestSize])
		enc.AddByteString("call", l.digest[:]) // of the key, its scope and its organisation
	}
	enc.AddInt("status", l.status)
	enc.AddDuration("duration", l.took)
	n := len(l.journal.Attempts)
	enc.AddInt("attempts", n+l.journal.Skipped)
	if n == 0 {
		return nil
	}
	var upstream, waited time.Duration
	for i := range l.journal.Attempts {
		upstream += l.journal.Attempts[i].Took
		waited += l.journal.Attempts[i].Waited
	}
	enc.AddDuration("upstream_duration", upstream)
	enc.AddDuration("waited", waited)
	return enc.AddArray("correlation_ids", (*correlationIDs)(l))
}

// correlationIDs are those that a call's attempts had.
type correlationIDs line

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (l *correlationIDs) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for i := range l.journal.Attempts {
		if id := l.journal.Attempts[i].CorrelationID; id != "" {
			enc.AppendString(id)
		}
	}
	return nil
}

// Interface guards
var (
	_ zapcore.ObjectMarshaler = (*line)(nil)
	_ zapcore.ArrayMarshaler  = (*correlationIDs)(nil)
)
