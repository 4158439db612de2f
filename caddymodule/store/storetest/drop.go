package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// drops has what m is told to drop sent to the channel it returns.
func (m *member) drops() <-chan idempotency.ID {
	dropped := make(chan idempotency.ID, 16)
	m.OnDrop(func(id idempotency.ID, all bool) {
		if !all { // which may come at any time
			dropped <- id
		}
	})
	return dropped
}

var dropTests = []sharedTest{
	{"what one process drops, all are told to drop", func(t *testing.T, s *shared) {
		told := []<-chan idempotency.ID{s.a.drops(), s.b.drops(), s.c.drops()}
		id := s.a.started("x").ID
		for _, dropped := range told {
			wantDrop(t, s, dropped, id)
		}
	}},
}

// wantDrop has the first process drop id until dropped has it: before a process
// listens it may miss some.
func wantDrop(t *testing.T, s *shared, dropped <-chan idempotency.ID, id idempotency.ID) {
	t.Helper()
	deadline := time.After(patience)
	for {
		if err := s.a.Drop(s.ctx, id); err != nil {
			t.Fatalf("dropping: %v", err)
		}
		select {
		case got := <-dropped:
			if got != id {
				t.Fatalf("it is told to drop %v, not %v", got, id)
			}
			return
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			t.Fatalf("it is not told to drop anything within %v", patience)
		}
	}
}
