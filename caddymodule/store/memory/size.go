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

	// answerOverhead is an answer, and what its header and body are rounded up by.
	answerOverhead = int64(unsafe.Sizeof(idempotency.Answer{})) + 64

	// deferredOverhead is a deferred call, its ticket, and what they are rounded
	// up by.
	deferredOverhead = int64(unsafe.Sizeof(idempotency.Deferred{})+unsafe.Sizeof(idempotency.Ticket{})) + 128
)

// size returns about how many bytes rec takes.
func size(rec *idempotency.Record) int64 {
	n := recordOverhead + int64(len(rec.Key)+len(rec.UpstreamKey)+len(rec.Label.Action)) + journalSize(rec.Journal)
	if call := rec.Deferred; call != nil {
		n += deferredOverhead + int64(len(call.Place)+len(call.Method)+len(call.URL)+len(call.Header)+cap(call.Body))
	}
	if rec.Answer == nil {
		return n
	}
	return n + answerOverhead + int64(len(rec.Answer.Header)+cap(rec.Answer.Body))
}

func journalSize(j idempotency.Journal) int64 {
	n := len(j.Attempts)*int(unsafe.Sizeof(idempotency.Attempt{})) + len(j.Words)*int(unsafe.Sizeof(idempotency.Word{}))
	for _, a := range j.Attempts {
		n += len(a.CorrelationID) + len(a.Error) // verdicts are a few names that all share
	}
	for _, w := range j.Words {
		n += len(w.Note)
	}
	return int64(n)
}
