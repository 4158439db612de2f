package disk

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// heldSyncs returns a disk that, once it is switched on, holds up each sync of data
// until that is let go.
func heldSyncs() (disk *errorfs.Toggle, held, letGo chan struct{}) {
	held, letGo = make(chan struct{}), make(chan struct{})
	return &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData {
			held <- struct{}{}
			<-letGo
		}
		return nil
	})}, held, letGo
}

// apart returns n records, no two of which share a lock.
func apart(s *Store, n int) (recs []*idempotency.Record) {
	taken := map[*stripe]bool{}
	for i := 0; len(recs) < n; i++ {
		rec := claim(fmt.Sprint("name ", i))
		if stripe := s.row(rec.ID).stripe; !taken[stripe] {
			taken[stripe] = true
			recs = append(recs, rec)
		}
	}
	return recs
}

func TestChangesThatComeDuringASyncShareTheNext(t *testing.T) {
	disk, held, letGo := heldSyncs()
	s, err := open(t.TempDir(), Options{SweepInterval: -1, Now: time.Now}, errorfs.Wrap(vfs.Default, disk))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	awaitKnown(t, s) // or whoever makes the filter waits for the first claim, and all others for that

	const n = 20
	claimed := make(chan error, 1+n)
	claimAll := func(recs []*idempotency.Record) {
		for _, rec := range recs {
			go func() {
				_, err := s.Claim(ctx, rec, idempotency.Owner{})
				claimed <- err
			}()
		}
	}
	recs := apart(s, 1+n)
	disk.On()
	claimAll(recs[:1])
	<-held
	claimAll(recs[1:2])
	eventually(t, "another to gather", func() bool { return gathered(s) > 0 })
	each := gathered(s)
	claimAll(recs[2:])
	eventually(t, "all others to gather", func() bool { return gathered(s) == n*each })
	if len(claimed) > 0 {
		t.Error("a claim was acknowledged that no sync has ended for")
	}

	letGo <- struct{}{}
	<-held // theirs
	disk.Off()
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
