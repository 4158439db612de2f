package disk

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// heldSyncs returns a disk that holds up syncs of data while hold says so, until
// one is let go.
func heldSyncs(hold *atomic.Bool) (disk vfs.FS, held, letGo chan struct{}) {
	held, letGo = make(chan struct{}), make(chan struct{})
	return errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && hold.Load() {
			held <- struct{}{}
			<-letGo
		}
		return nil
	})), held, letGo
}

func TestChangesThatComeDuringASyncShareTheNext(t *testing.T) {
	var hold atomic.Bool
	disk, held, letGo := heldSyncs(&hold)
	s, err := open(t.TempDir(), Options{SweepInterval: -1, Now: time.Now}, disk)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	awaitKnown(t, s) // or whoever makes the filter waits for the first claim, and all others for that

	const n = 20
	claimed := make(chan error, 1+n)
	stripes := map[*stripe]bool{} // two records that share one are claimed one after the other
	claimNext := func() {
		for i := len(stripes); ; i++ {
			rec := claim(fmt.Sprint("name ", i, len(stripes)))
			if stripe := s.row(rec.ID).stripe; !stripes[stripe] {
				stripes[stripe] = true
				go func() {
					_, err := s.Claim(ctx, rec, idempotency.Owner{})
					claimed <- err
				}()
				return
			}
		}
	}
	hold.Store(true)
	claimNext()
	<-held
	claimNext()
	eventually(t, "another to gather", func() bool { return gathered(s) > 0 })
	each := gathered(s)
	for range n - 1 {
		claimNext()
	}
	eventually(t, "all others to gather", func() bool { return gathered(s) == n*each })
	if len(claimed) > 0 {
		t.Error("a claim was acknowledged that no sync has ended for")
	}

	letGo <- struct{}{}
	<-held // theirs
	hold.Store(false)
	if err := <-claimed; err != nil || len(claimed) > 0 {
		t.Errorf("the first sync ended: %v, and %d more claims were acknowledged", err, len(claimed))
	}
	letGo <- struct{}{}
	for range n {
		if err := <-claimed; err != nil {
			t.Error(err)
		}
	}
}

// gathered returns how many entries the group has that is gathering.
func gathered(s *Store) uint32 {
	s.groups.mu.Lock()
	defer s.groups.mu.Unlock()
	if s.groups.next == nil {
		return 0
	}
	return s.groups.next.batch.Count()
}
