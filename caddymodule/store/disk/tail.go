package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"
)

// The form of Pebble's logs, as package record of Pebble documents it: chunks
// within blocks, no chunk across two of them. From FormatWALSyncChunks on, each
// chunk carries an offset up to which the log had been synced by then.
const (
	logBlock   = 32 << 10
	logHeader  = 19 // checksum 4, length 2, encoding 1, log number 4, synced offset 8
	logMinKind = 9  // encodings of chunks with a synced offset
	logMaxKind = 12
)

// checkTail checks that the newest log of the database in dir does not end
// before what was synced of it, which no crash explains. Pebble checks the same,
// but looks for later chunks only from the next block on, so it would take a
// flipped bit in the last 32 KiB of a log for its end.
//
// The very last chunk has none after it that tells whether it was synced, so
// damage to that one alone looks like a crash.
func checkTail(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	var newest string
	var num wal.NumWAL
	for _, name := range names {
		if n, _, ok := wal.ParseLogFilename(name); ok && n >= num {
			newest, num = name, n
		}
	}
	if newest == "" {
		return nil // a log that must be there would be in the seal
	}
	data, err := readFile(fs, filepath.Join(dir, newest), -1)
	if err != nil {
		return err
	}
	if end, synced := logEnd(data, uint32(num)); synced > uint64(end) {
		return fmt.Errorf("%w: its file %s cannot be read from byte %d on, although it was written up to %d",
			ErrDamaged, newest, end, synced)
	}
	return nil
}

// logEnd returns where the log in data cannot be read any further, and up to
// where it had been synced as far as its chunks tell, those behind its end
// included.
func logEnd(data []byte, num uint32) (end int, synced uint64) {
	for {
		n, s, ok := logChunk(data[end:], end, num)
		if ok {
			end, synced = end+n, max(synced, s)
			continue
		}
		left := logBlock - end%logBlock
		if left >= logHeader || end+left >= len(data) {
			break
		}
		end += left // no chunk fits into what is left of the block
	}
	written := len(bytes.TrimRight(data, "\x00")) // see zeros
	for at := end + 1; at < written; at++ {
		if _, s, ok := logChunk(data[at:], at, num); ok {
			synced = max(synced, s)
		}
	}
	return end, synced
}

// logChunk returns the length of the chunk of log num that data starts with, and
// its synced offset. at is the offset of data in the log.
func logChunk(data []byte, at int, num uint32) (n int, synced uint64, ok bool) {
	if len(data) < logHeader || data[6] < logMinKind || data[6] > logMaxKind ||
		binary.LittleEndian.Uint32(data[7:]) != num {
		return 0, 0, false
	}
	n = logHeader + int(binary.LittleEndian.Uint16(data[4:]))
	if n > len(data) || at%logBlock+n > logBlock {
		return 0, 0, false
	}
	sum := crc32.Checksum(data[6:n], castagnoli)
	if sum = (sum>>15 | sum<<17) + 0xa282ead8; sum != binary.LittleEndian.Uint32(data) {
		return 0, 0, false
	}
	return n, binary.LittleEndian.Uint64(data[11:]), true
}
