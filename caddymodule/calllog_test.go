package caddymodule

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

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

func (s *slowLog) newLine(action string) *line {
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), s, zapcore.InfoLevel))
	return &line{action: action, entry: log.Check(zapcore.InfoLevel, "call")}
}

func TestCallsDoNotWaitForTheLogUntilManyLinesDo(t *testing.T) {
	out := &slowLog{may: make(chan struct{})}
	c := callLog{queue: make(chan job, 10)}
	for i := range 10 {
		c.add(out.newLine(fmt.Sprint("early-", i))) // none of them is written yet
	}
	for len(c.queue) > 9 { // until the first is being written
		runtime.Gosched()
	}
	c.add(out.newLine("the last that waits"))
	late := make(chan struct{})
	go func() {
		defer close(late)
		c.add(out.newLine("late")) // nowhere to put it: it writes by itself
	}()
	close(out.may)
	<-late
	c.flush()
	if len(out.lines) != 12 {
		t.Errorf("there are %d lines", len(out.lines))
	}
	var early []string
	for _, l := range out.lines {
		if strings.Contains(l, "early-") {
			early = append(early, l)
		}
	}
	if !slices.IsSorted(early) || len(early) != 10 {
		t.Errorf("lines are out of order: %q", early)
	}
}
