package disk

import "github.com/cockroachdb/pebble/v2/vfs"

// zerosStep is how much of a log is filled with zeros at a time, in bytes.
const zerosStep = 1 << 20

var noBytes [zerosStep]byte

// zeros fills a log with zeros before it is written to. A sync that finds a file
// longer, or with blocks that were never written, writes to the file system's own
// notes as well, and with a journal waits for that; one over what was written before
// writes data alone. Logs that Pebble takes up again are such already, which leaves
// the first few of each process, and those of calls that are few and far between.
//
// A log ends, for who reads it, where its chunks do: zeros are none.
type zeros struct {
	at    int64 // where the log is written to next
	ready int64 // up to where it has been written to, if only with zeros
}

// newZeros returns the zeros of a log that is written from its beginning on, though
// it may be one that was written before.
func newZeros(log vfs.File) *zeros {
	info, err := log.Stat()
	if err != nil {
		return &zeros{} // it is filled from its beginning on
	}
	return &zeros{ready: info.Size()}
}

// before fills the log, if need be, before n bytes are appended. Where that fails,
// nothing has been lost: a disk that is full will say so again to who writes.
func (z *zeros) before(log vfs.File, n int) {
	z.at += int64(n)
	for z.ready < z.at {
		_, _ = log.WriteAt(noBytes[:], z.ready)
		z.ready += zerosStep
	}
}
