package idempotency

import (
	"testing"
	"testing/synctest"
	"time"
)

// The cache goes by the first bytes of an ID. One caller's answer must not be
// told to another whose ID happens to begin alike.
func TestCacheTellsIDsApartThatBeginAlike(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache, err := NewCache(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		a, b := NewID("o", "a", "k"), NewID("o", "a", "k")
		b[len(b)-1]++
		cache.set(&Record{ID: a, State: Done, Answer: &Answer{}, Expires: time.Now().Add(time.Hour)}, time.Now())
		time.Sleep(time.Second)
		if cache.Get(a, time.Now()) == nil {
			t.Fatal("it does not hold the record")
		}
		if rec := cache.Get(b, time.Now()); rec != nil {
			t.Errorf("it takes %v for the other", rec.ID)
		}
	})
}
