package caddymodule

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// heapRoom is by how much the heap may outgrow, between two collections, what Go
// would let it: in bytes.
//
// Go collects when the heap has doubled. That of a sidecar is small, some 20 MiB
// beside the cache, so that under load it is collected several times a second, which
// profiles had at a fifteenth of the CPU; with this room it is a two-hundredth on
// disk. Heaps that are large anyway are collected about as often as they would be.
const heapRoom = 64 << 20

// makeRoomForGarbage gives the heap its room, for as long as the process runs. It
// does nothing where GOGC is set in the environment; and a limit of the memory,
// such as Caddy takes from a container, holds whatever the room.
var makeRoomForGarbage = sync.OnceFunc(func() {
	if os.Getenv("GOGC") != "" {
		return
	}
	afterEachCollection(func() {
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		metrics.Read(live)
		debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
	})
})

// gcPercent returns the GOGC that lets a heap of live bytes double and grow by
// heapRoom.
func gcPercent(live uint64) int {
	const least = 4 << 20 // no heap is smaller for Go
	return 100 + int(heapRoom*100/max(live, least))
}

// afterEachCollection calls f now and after each garbage collection.
func afterEachCollection(f func()) {
	f()
	type canary struct{ _ [16]byte } // not so small that it shares its memory
	var lay func()
	lay = func() {
		runtime.AddCleanup(new(canary), func(struct{}) {
			f()
			lay()
		}, struct{}{})
	}
	lay()
}
