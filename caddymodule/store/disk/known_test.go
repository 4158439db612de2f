package disk

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"genesys-sidecar/caddymodule/idempotency"
)

// awaitKnown returns the filter once it is complete.
func awaitKnown(t *testing.T, s *Store) *known {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.use.RLock()
		k := s.filter.known
		s.use.RUnlock()
		if k != nil {
			return k
		}
		if time.Now().After(deadline) {
			t.Fatal("the filter is not complete")
		}
	}
}

// wantKnown fails the test if the database has a record that the filter lacks.
func wantKnown(t *testing.T, s *Store) {
	t.Helper()
	k := awaitKnown(t, s)
	_, err := s.eachRecord(func(rec *idempotency.Record) error {
		if !k.mayHave(rec.ID) {
			t.Errorf("the filter lacks %s", rec.Key)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func idOf(i int) idempotency.ID { return idempotency.NewID("", "", fmt.Sprint(i)) }

func TestAFilterHasAllThatWasAddedAndLittleElse(t *testing.T) {
	k := newKnown()
	const n = 5 * firstLayer
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := part; i < n; i += 4 {
				k.add(idOf(i))
			}
		})
	}
	wg.Wait()
	for i := range n {
		if !k.mayHave(idOf(i)) {
			t.Fatalf("it lacks %d", i)
		}
	}
	wrong := 0
	for i := n; i < 2*n; i++ {
		if k.mayHave(idOf(i)) {
			wrong++
		}
	}
	if wrong > n/100 {
		t.Errorf("it takes %d of %d for what it has", wrong, n)
	}
}

func TestAFilterThatIsFullMayHaveAnything(t *testing.T) {
	k := newKnown()
	k.add(idOf(1))
	last := (*k.layers.Load())[0]
	for n := 2; last.size < mostKnown/2 || !k.isFull() && n < 100; n++ { // until all layers are used up
		last.left.Store(0)
		k.add(idOf(n))
		if layers := *k.layers.Load(); len(layers) > 0 {
			last = layers[len(layers)-1]
		}
	}
	if !k.isFull() || !k.mayHave(idOf(1000)) {
		t.Error("it goes on growing, or denies what it does not know")
	}
	k.add(idOf(1001)) // to no end
}

func TestAllRecordsAreKnownAfterAnyKindOfEnd(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	fill(t, s, 30)
	wantKnown(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{})
	wantKnown(t, s)
	if awaitKnown(t, s).mayHave(idOf(1)) {
		t.Error("what was never written is known")
	}
	mustClaim(t, s, claim("late"))
	wantKnown(t, s)
}

func TestWhatIsWrittenWhileTheFilterIsMadeIsKnown(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	names := fill(t, s, 30)
	awaitKnown(t, s)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for part := range 8 {
		wg.Go(func() {
			for i := part; ; i += 8 {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.Claim(ctx, claim(fmt.Sprint("busy-", i)), idempotency.Owner{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 20 {
		s.learn()
		rec := claim(names[0])
		if standing, err := s.Claim(ctx, rec, idempotency.Owner{}); standing == nil || err != nil {
			t.Errorf("a key that is in use: %v, %v", standing, err)
		}
	}
	close(stop)
	wg.Wait()
	wantKnown(t, s)
}

func TestARecordTakesOnePlaceInTheFilterHoweverOftenItChanges(t *testing.T) {
	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	k := awaitKnown(t, s)
	for i := range 30 {
		rec := claim(fmt.Sprint("order-", i))
		mustClaim(t, s, rec)
		if err := s.Finish(ctx, answered(rec)); err != nil {
			t.Fatal(err)
		}
	}
	if n := k.count(); n != 30 {
		t.Errorf("30 records take %d places", n)
	}
}

func TestAFilterOfWhatIsGoneIsMadeAnew(t *testing.T) {
	k := newKnown()
	for i := range 2 * firstLayer {
		k.add(idOf(i))
	}
	k.removed.Store(k.count() / 2)
	if k.isStale() {
		t.Error("half of it is still there")
	}
	k.removed.Add(1)
	if !k.isStale() {
		t.Error("most of it is gone")
	}

	s := mustOpen(t, t.TempDir(), Options{SweepInterval: -1})
	fill(t, s, 3)
	k = awaitKnown(t, s)
	rec := claim("gone")
	mustClaim(t, s, rec)
	if err := s.Release(ctx, rec.ID, rec.Owner); err != nil {
		t.Fatal(err)
	}
	if n := k.removed.Load(); n != 1 {
		t.Errorf("%d were removed", n)
	}
	s.learn()
	wantKnown(t, s)
	if k := awaitKnown(t, s); k.mayHave(rec.ID) || k.removed.Load() != 0 {
		t.Error("what is gone is known")
	}
}

func TestARecordThatTheIndexLacksIsNeverTakenForNone(t *testing.T) {
	dir := copyDir(t, "testdata/format2")
	s := mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
	damaged := idempotency.NewID("", "", "b")
	for _, err := range []error{
		s.db.Set(recordKey(damaged), []byte("damaged"), pebble.Sync),
		s.db.Set(formatKey, []byte{2}, pebble.Sync),
		s.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpen(t, dir, Options{Now: fixtureTime, SweepInterval: -1})
	s.learn()
	rec := claim("b")
	if _, err := s.Claim(context.Background(), rec, idempotency.Owner{}); err == nil {
		t.Error("its key was claimed")
	}
}
