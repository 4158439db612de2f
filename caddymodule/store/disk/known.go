package disk

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/bits"
	"sync"
	"sync/atomic"

	"genesys-sidecar/caddymodule/idempotency"
)

// Most keys that are claimed are new. To have the database say so takes a look
// into each of its levels, two thirds of the CPU that a claim takes. So the store
// keeps a Bloom filter of the IDs that there may be a record of: what is not in it was
// never written, and what is in it is looked up.
//
// Whatever is written goes into the filter before the database has it, and what
// was there before is read from the index of all records while the store is in use
// already. Until that is complete, and whenever there is any doubt, every ID is
// looked up.

// indexedKey is there if the index of all records has each of them. A database
// that was taken over from an older format may have had one that could not be
// read: a claim of that must find out.
var indexedKey = []byte{keyspaceMeta, 'i', 'n', 'd', 'e', 'x', 'e', 'd'}

// filter is what a store knows of the IDs in its database. Its fields are guarded by
// the store's use.
type filter struct {
	indexed  bool   // see indexedKey
	known    *known // nil until it is complete
	learning *known // the next one, while that is being made
}

// add adds id, which is about to be written. It must be called between begin and
// end, and before the write.
func (f *filter) add(id idempotency.ID) {
	f.known.add(id)
	f.learning.add(id)
}

// removed takes down that a record was removed. It must be called between begin
// and end.
func (f *filter) removed() {
	for _, k := range []*known{f.known, f.learning} {
		if k != nil {
			k.removed.Add(1)
		}
	}
}

// known is a filter of IDs. It may be used concurrently. The nil filter may have
// any.
type known struct {
	mu     sync.Mutex // held by who makes room
	layers atomic.Pointer[[]*filterLayer]

	removed atomic.Int64 // how many it has in vain
}

// filterLayer is a blocked Bloom filter: all bits of an ID are in one block, which
// is as large as a line of the processor's cache.
type filterLayer struct {
	words []uint64 // to be used atomically
	size  int64
	left  atomic.Int64 // for how many there is room
}

const (
	blockWords = 8
	blockBits  = 64 * blockWords

	// bitsPerID makes one in some 500 new IDs be looked up in vain.
	bitsPerID = 16
	probes    = 6

	firstLayer = 1 << 16 // how many IDs; each further one has room for twice as many
	mostKnown  = 1 << 24 // with that many in it the filter takes 32 MiB, and takes no more
)

func newKnown() *known {
	k := new(known)
	k.layers.Store(&[]*filterLayer{newLayer(firstLayer)})
	return k
}

func newLayer(ids int64) *filterLayer {
	l := &filterLayer{words: make([]uint64, ids*bitsPerID/64), size: ids}
	l.left.Store(ids)
	return l
}

// add puts id into k, or gives k up where it is full: it may have any ID then.
func (k *known) add(id idempotency.ID) {
	if k == nil {
		return
	}
	for {
		if k.mayHave(id) { // as with each further change of its record
			return
		}
		layers := *k.layers.Load()
		if len(layers) == 0 {
			return
		}
		last := layers[len(layers)-1]
		if last.left.Add(-1) >= 0 {
			last.set(id)
			return
		}
		k.grow(last)
	}
}

// grow adds a layer behind last, unless somebody has.
func (k *known) grow(last *filterLayer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	layers := *k.layers.Load()
	switch {
	case len(layers) == 0 || layers[len(layers)-1] != last:
	case 4*last.size > mostKnown: // twice as many, and those before
		k.layers.Store(new([]*filterLayer))
	default:
		more := append(layers[:len(layers):len(layers)], newLayer(2*last.size))
		k.layers.Store(&more)
	}
}

// mayHave tells whether id may have been added.
func (k *known) mayHave(id idempotency.ID) bool {
	if k == nil {
		return true
	}
	layers := *k.layers.Load()
	for _, l := range layers {
		if l.has(id) {
			return true
		}
	}
	return len(layers) == 0
}

// isFull tells whether k was given up.
func (k *known) isFull() bool { return len(*k.layers.Load()) == 0 }

// isStale tells whether half of what k was given is there no more.
func (k *known) isStale() bool {
	if k == nil {
		return false
	}
	added := k.count()
	return added > firstLayer && 2*k.removed.Load() > added
}

// count returns how many IDs were added.
func (k *known) count() (n int64) {
	if k.isFull() {
		return mostKnown
	}
	for _, l := range *k.layers.Load() {
		n += l.size - max(0, l.left.Load())
	}
	return n
}

// place returns where the bits of id are. An ID is a hash, so that any part of it
// is as good as another.
func (l *filterLayer) place(id idempotency.ID) (block []uint64, h uint64) {
	hi, _ := bits.Mul64(binary.LittleEndian.Uint64(id[8:]), uint64(len(l.words)/blockWords))
	return l.words[hi*blockWords : (hi+1)*blockWords], binary.LittleEndian.Uint64(id[16:])
}

func (l *filterLayer) set(id idempotency.ID) {
	block, h := l.place(id)
	for range probes {
		atomic.OrUint64(&block[h%blockBits/64], 1<<(h%64))
		h /= blockBits
	}
}

func (l *filterLayer) has(id idempotency.ID) bool {
	block, h := l.place(id)
	for range probes {
		if atomic.LoadUint64(&block[h%blockBits/64])&(1<<(h%64)) == 0 {
			return false
		}
		h /= blockBits
	}
	return true
}

// learn makes the filter anew, from all records that there are.
func (s *Store) learn() {
	next, ok := s.beginLearning()
	if !ok {
		return
	}
	err := s.readKnown(next)
	if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrFailed) {
		s.logger.Error("reading which records there are; each claim looks for its own instead", slog.Any("error", err))
	}
	s.use.Lock()
	defer s.use.Unlock()
	if s.filter.learning != next {
		return // the database was opened anew
	}
	s.filter.learning = nil
	if err == nil {
		s.filter.known = next
	}
}

// beginLearning has IDs added to a new filter from now on. Taking the lock, it
// waits for those who are about to write and would add theirs to the old one only.
func (s *Store) beginLearning() (next *known, ok bool) {
	s.use.Lock()
	defer s.use.Unlock()
	if s.closed || s.down != nil || !s.filter.indexed {
		return nil, false
	}
	s.filter.learning = newKnown()
	return s.filter.learning, true
}

// learnBatch is how many IDs are read at a time.
const learnBatch = 4096

// readKnown adds the ID of each record to k.
func (s *Store) readKnown(k *known) error {
	var last idempotency.Position
	for {
		places, err := s.places(context.Background(), keyspaceStarted, last, learnBatch)
		if err != nil || len(places) == 0 || k.isFull() {
			return err
		}
		for _, at := range places {
			k.add(at.ID)
		}
		last = places[len(places)-1]
	}
}

// filterIsStale tells whether the filter is to be made anew.
func (s *Store) filterIsStale() bool {
	if s.begin(context.Background()) != nil {
		return false
	}
	defer s.end()
	return s.filter.known.isStale()
}
