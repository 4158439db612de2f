package memory

import (
	"unsafe"

	"genesys-sidecar/caddymodule/idempotency"
)

// What records take besides the bytes in them, on a 64-bit machine. Go's
// allocator rounds up to size classes, maps are at most 7/8 full and about 2/3
// on average, and the collector lets garbage lie, which is not counted here.
const (
	// recordOverhead is a record, its entry, and its places in the maps, the
	// heap and the list.
	recordOverhead = int64(unsafe.Sizeof(idempotency.Record{})+unsafe.Sizeof(entry{})) + 512

	// answerOverhead is an answer and the map of its header.
	answerOverhead = int64(unsafe.Sizeof(idempotency.Answer{})) + 128

	// nameOverhead is a header's name and list, within the map.
	nameOverhead = 64

	// valueOverhead is a header's value within its list.
	valueOverhead = int64(unsafe.Sizeof(""))
)

// size returns about how many bytes rec takes.
func size(rec *idempotency.Record) int64 {
	n := recordOverhead + int64(len(rec.Key)+len(rec.UpstreamKey))
	if rec.Answer == nil {
		return n
	}
	n += answerOverhead + int64(cap(rec.Answer.Body))
	for name, values := range rec.Answer.Header {
		n += nameOverhead + int64(len(name))
		for _, v := range values {
			n += valueOverhead + int64(len(v))
		}
	}
	return n
}
