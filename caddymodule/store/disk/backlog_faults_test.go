package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"genesys-sidecar/caddymodule/idempotency"
)

// handOver takes calls through all that can become of them, and returns those that
// were acknowledged as queued, and may not be lost. It goes on after errors.
func handOver(s *Store) (waiting []*idempotency.Record) {
	enqueue := func(name string) *idempotency.Record {
		rec := queued(name)
		if standing, err := s.Enqueue(ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
			return nil
		}
		kept, err := s.Get(ctx, rec.ID)
		if err != nil {
			return nil
		}
		return kept
	}
	if rec := enqueue("waits"); rec != nil {
		waiting = append(waiting, rec)
	}
	if rec := enqueue("ends"); rec != nil {
		next := *rec
		next.State, next.Owner = idempotency.Started, process.NewOwner()
		if _, err := s.Claim(ctx, &next, rec.Owner); err == nil {
			_ = s.Finish(ctx, ended(&next))
		}
		_ = s.Dequeue(ctx, rec.Deferred.Place)
	}
	if rec := enqueue("is cancelled"); rec != nil {
		_ = s.Release(ctx, rec.ID, rec.Owner)
	}
	if rec := enqueue("waits, too"); rec != nil {
		waiting = append(waiting, rec)
	}
	return waiting
}

func TestNoFaultOfTheDiskLosesACallThatWasHandedOver(t *testing.T) {
	template := t.TempDir()
	s := mustOpen(t, template, Options{})
	before := mustEnqueue(t, s, queued("before"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for n := int64(0); ; n += 2 {
		dir := copyDir(t, template)
		disk, failed := failsAt(n)
		waiting := []*idempotency.Record{before}
		if s, err := open(dir, Options{}, disk); err == nil {
			waiting = append(waiting, handOver(s)...)
			_ = s.Close()
		}
		well := mustOpen(t, dir, Options{})
		wantIndexes(t, well)
		wantTicketOfEach(t, well)
		for _, rec := range waiting {
			if got, err := well.Get(ctx, rec.ID); err != nil || got == nil || got.State != idempotency.Queued || got.Deferred.Place != rec.Deferred.Place {
				t.Errorf("after fault %d, %s is %+v, %v", n, rec.Key, got, err)
			}
		}
		if err := well.Close(); err != nil {
			t.Error(err)
		}
		if !failed.Load() {
			if len(waiting) != 3 {
				t.Errorf("without a fault, %d calls wait, want 3", len(waiting))
			}
			return
		}
	}
}

// handOverForever enqueues in lanes, a goroutine each, and prints a line as soon as
// a call is acknowledged.
func handOverForever(s *Store) error {
	var wg sync.WaitGroup
	errs := make(chan error, 1)
	run := fmt.Sprintf("%x", process)
	for w := range 16 {
		wg.Go(func() {
			for i := 0; ; i++ {
				rec := queued(fmt.Sprintf("%02d-%s-%09d", w, run, i))
				copy(rec.Deferred.Lane[:], fmt.Sprintf("lane %02d\x00\x00\x00\x00\x00\x00\x00\x00\x00", w))
				standing, err := s.Enqueue(ctx, rec, idempotency.Owner{}, idempotency.Bounds{})
				if standing != nil {
					err = errors.New("an ID was there already")
				}
				if err == nil {
					_, err = os.Stdout.WriteString("queued " + rec.Key + "\n")
				}
				if err != nil {
					errs <- err
					return
				}
			}
		})
	}
	return <-errs
}

func TestKillLosesNoCallThatWasHandedOverNorItsPlace(t *testing.T) {
	dir := t.TempDir()
	acknowledged := make(map[string]bool)
	note := func(line string) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "queued ")
		if !ok {
			t.Fatalf("the child wrote %q", line)
		}
		acknowledged[name] = true
	}
	for range 3 {
		cmd, out := startChild(t, "hand over", dir)
		for range crashAfter / 3 {
			line, err := out.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			note(line)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		for line := range strings.Lines(string(rest)) {
			if strings.HasSuffix(line, "\n") {
				note(line)
			}
		}

		s := mustOpen(t, dir, Options{})
		wantIndexes(t, s)
		wantTicketOfEach(t, s)
		tickets, err := s.Tickets(ctx, onlyPart, "", 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		last := make(map[idempotency.LaneID]string) // of this run's calls
		here := make(map[string]bool)
		for _, ticket := range tickets {
			rec, err := s.Get(ctx, ticket.ID)
			if err != nil || rec == nil || rec.State != idempotency.Queued || string(rec.Deferred.Body) != rec.Key {
				t.Fatalf("of the ticket %+v there is %+v, %v", ticket, rec, err)
			}
			here[rec.Key] = true
			if was := last[ticket.Lane]; was[:max(0, len(was)-10)] == rec.Key[:len(rec.Key)-10] && rec.Key <= was {
				t.Fatalf("%s comes after %s", rec.Key, was)
			}
			last[ticket.Lane] = rec.Key
		}
		for name := range acknowledged {
			if !here[name] {
				t.Errorf("%s is gone", name)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d calls", len(acknowledged))
}

func TestAStoreThatServesAgainHasTheTicketsOfItsRecords(t *testing.T) {
	for name, broken := range disturbances {
		t.Run(name, func(t *testing.T) {
			toggle := &errorfs.Toggle{Injector: errorfs.InjectorFunc(broken.fails)}
			s, err := open(t.TempDir(), Options{reopenDelay: 5 * time.Millisecond}, errorfs.Wrap(vfs.Default, toggle))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var told atomic.Int64
			s.OnEnqueue(func(idempotency.Part) { told.Add(1) })
			waiting := []*idempotency.Record{mustEnqueue(t, s, queued("first"))}

			toggle.On()
			for i := 0; ; i++ {
				rec := queued(fmt.Sprint(i))
				rec.Deferred.Body = bytes.Repeat([]byte("x"), 256<<10) // a few fill a table
				if _, err := s.Enqueue(ctx, rec, idempotency.Owner{}, idempotency.Bounds{}); err != nil {
					break
				}
				waiting = append(waiting, rec)
			}
			if err := s.Dequeue(ctx, waiting[0].Deferred.Place); !errors.Is(err, ErrFailed) {
				t.Errorf("got the error %v, want %q", err, ErrFailed)
			}
			before := told.Load()
			toggle.Off()
			eventually(t, "the store to serve again", func() bool { return serves(s) })
			eventually(t, "word that there may be tickets", func() bool { return told.Load() > before })
			wantIndexes(t, s)
			wantTicketOfEach(t, s)
			for _, rec := range waiting {
				if got, err := s.Get(ctx, rec.ID); err != nil || got == nil || got.State != idempotency.Queued {
					t.Errorf("of %s there is %+v, %v", rec.Key, got, err)
				}
			}
			mustEnqueue(t, s, queued("after"))
			wantTicketOfEach(t, s)
		})
	}
}
