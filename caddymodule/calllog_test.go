package caddymodule

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// slowLog is where a line is written once it may be.
type slowLog struct {
	may   chan struct{}
	mu    sync.Mutex
	lines []string
}

func (s *slowLog) Write(p []byte) (int, error) {
	<-s.may
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, string(p))
	return len(p), nil
}

func (s *slowLog) Sync() error { return nil }

func (s *slowLog) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

func (s *slowLog) newLine(action string) *line {
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), s, zapcore.InfoLevel))
	return &line{action: action, entry: log.Check(zapcore.InfoLevel, "call")}
}

func TestCallsDoNotWaitForTheLogUntilManyLinesDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slowLog{may: make(chan struct{})}
		c := newCallLog()
		c.add(out.newLine("early-0000"))
		time.Sleep(lineDelay)
		synctest.Wait() // until it is being written
		for i := range maxLines {
			c.add(out.newLine(fmt.Sprintf("early-%04d", i+1)))
		}
		flushed, late := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(flushed)
			c.flush()
		}()
		go func() {
			defer close(late)
			c.add(out.newLine("late")) // nowhere to put it: it is written by who adds it
		}()
		synctest.Wait()
		select {
		case <-late:
			t.Error("more lines wait than may")
		case <-flushed:
			t.Error("lines are said to be written that are not")
		default:
		}
		close(out.may)
		<-late
		<-flushed
		var early []string
		for _, l := range out.lines {
			if strings.Contains(l, "early-") {
				early = append(early, l)
			}
		}
		if !slices.IsSorted(early) || len(early) != maxLines+1 || len(out.lines) != maxLines+2 {
			t.Errorf("there are %d lines, or they are out of order", len(out.lines))
		}
	})
}

func TestALineIsWrittenAMomentLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &slowLog{may: make(chan struct{})}
		close(out.may)
		c := newCallLog()
		for i := range 3 {
			c.add(out.newLine(fmt.Sprint("first-", i)))
		}
		synctest.Wait()
		if n := out.count(); n != 0 {
			t.Errorf("%d lines were written at once", n)
		}
		time.Sleep(lineDelay)
		synctest.Wait()
		if n := out.count(); n != 3 {
			t.Errorf("%d lines were written, want 3", n)
		}
		c.add(out.newLine("second"))
		c.flush()
		if n := out.count(); n != 4 {
			t.Errorf("%d lines were written, want 4", n)
		}
	})
}
