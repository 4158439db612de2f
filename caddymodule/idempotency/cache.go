package idempotency

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
)

// Cache repeats finished answers without asking the store. It holds nothing
// but records that are Done with an answer, each set once, after the store has
// it. Nothing may be concluded from what it does not hold: it drops, rejects
// and evicts as it likes.
//
// The zero Cache and the nil Cache hold nothing. A Cache is safe for
// concurrent use.
type Cache struct {
	entries *ristretto.Cache[uint64, *cached]

	// mu keeps Close from running beside a Set: ristretto panics on a Set that
	// meets a Close. Gets need no lock.
	mu     sync.RWMutex
	closed bool
}

// cached is a record in a cache.
type cached struct {
	*Record

	// latest is the Digest of the request that was last found to have the
	// record's fingerprint.
	latest atomic.Pointer[Digest]
}

// isFor tells whether the record is of the request r.
func (c *cached) isFor(r Request) bool {
	digest := r.Digest()
	if known := c.latest.Load(); known != nil && *known == digest {
		return true
	}
	if r.Fingerprint() != c.Fingerprint {
		return false
	}
	latest := digest // else it would be on the heap whatever comes
	c.latest.Store(&latest)
	return true
}

const (
	// entryOverhead is about what a record costs beside its answer, in bytes.
	entryOverhead = 512

	// smallestEntry sets the number of ristretto's admission counters: ten for
	// each entry that could fit, as its documentation advises.
	smallestEntry = 1024
)

// NewCache returns a cache that holds about size bytes of answers.
func NewCache(size int64) (*Cache, error) {
	if size <= 0 {
		return &Cache{}, nil
	}
	entries, err := ristretto.NewCache(&ristretto.Config[uint64, *cached]{
		NumCounters:        max(10*size/smallestEntry, 1000),
		MaxCost:            size,
		BufferItems:        64,
		IgnoreInternalCost: true, // counted in entryOverhead
	})
	if err != nil {
		return nil, fmt.Errorf("making cache: %w", err)
	}
	return &Cache{entries: entries}, nil
}

// Get returns the record of id, if the cache happens to hold it and it has not
// expired now.
func (c *Cache) Get(id ID, now time.Time) *Record {
	if e := c.entry(id, now); e != nil {
		return e.Record
	}
	return nil
}

func (c *Cache) entry(id ID, now time.Time) *cached {
	if c == nil || c.entries == nil {
		return nil
	}
	// An ID is a hash, so that its first bytes are as good a key as any. Two
	// IDs that share them are told apart by the record itself.
	e, ok := c.entries.Get(shortID(id))
	if !ok || e.ID != id || e.Expired(now) {
		return nil
	}
	return e
}

// set offers rec to the cache. now is the time that it goes by.
func (c *Cache) set(rec *Record, now time.Time) {
	if c == nil || c.entries == nil || rec.State != Done || rec.Answer == nil || rec.Expired(now) {
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return
	}
	cost := int64(entryOverhead + len(rec.Answer.Header) + len(rec.Answer.Body))
	// Without a TTL, which entry looks at by itself: an index of those costs more
	// than the rest of a Set, and what has expired is the first to be evicted, since
	// nobody asks for it.
	c.entries.Set(shortID(rec.ID), &cached{Record: rec}, cost)
}

// drop takes the record of id out of the cache.
func (c *Cache) drop(id ID) {
	if c == nil || c.entries == nil {
		return
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	if !c.closed {
		c.entries.Del(shortID(id))
		c.entries.Wait() // a Set may be under way
	}
}

// clear takes everything out of the cache.
func (c *Cache) clear() {
	if c == nil || c.entries == nil {
		return
	}
	c.mu.Lock() // no Set may be under way
	defer c.mu.Unlock()
	if !c.closed {
		c.entries.Clear()
	}
}

// Close empties the cache, which then holds nothing more.
func (c *Cache) Close() {
	if c == nil || c.entries == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.entries.Close()
	}
}

func shortID(id ID) uint64 {
	var n uint64
	for _, b := range id[:8] {
		n = n<<8 | uint64(b)
	}
	return n
}
