package caddymodule

import (
	"runtime"
	"testing"
	"time"
)

func TestAHeapMayDoubleAndGrowByItsRoom(t *testing.T) {
	for _, live := range []uint64{5 << 20, 30 << 20, 128 << 20, 1 << 30} {
		goal := live + live*uint64(gcPercent(live))/100
		if want := 2*live + heapRoom; goal > want || goal < want-want/100 {
			t.Errorf("a heap of %d MiB grows to %d MiB, want %d", live>>20, goal>>20, want>>20)
		}
	}
	if got, most := gcPercent(0), 100+100*heapRoom/(4<<20); got != most {
		t.Errorf("an empty heap has GOGC %d, want %d", got, most)
	}
}

func TestWhatFollowsACollectionFollowsEach(t *testing.T) {
	calls := make(chan struct{}, 1)
	afterEachCollection(func() {
		select {
		case calls <- struct{}{}:
		default: // it goes on when this test has ended
		}
	})
	tooLate := time.After(10 * time.Second)
	for n := range 4 { // the first is at once
		for called := false; !called; {
			select {
			case <-calls:
				called = true
			case <-tooLate:
				t.Fatalf("there were %d calls", n)
			case <-time.After(time.Millisecond):
				runtime.GC() // again, since the last one may have come too early to be followed
			}
		}
	}
}
