package storetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/memory"
	"genesys-sidecar/caddymodule/store/storetest"
)

const lease = 300 * time.Millisecond

var ctx = context.Background()

func TestSuiteCanWaitForAClockThatItCannotSet(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open:     func(*testing.T, func() time.Time) idempotency.Store { return memory.New(memory.Options{}) },
		RealTime: true,
	})
}

func TestMemberIsAStore(t *testing.T) {
	storetest.Run(t, storetest.Harness{
		Open: func(t *testing.T, now func() time.Time) idempotency.Store {
			store := memory.New(memory.Options{Now: now})
			return storetest.NewFleet(store, lease).Member()
		},
	})
}

func TestMemberIsABacklog(t *testing.T) {
	storetest.RunBacklog(t, storetest.Harness{
		Open: func(t *testing.T, now func() time.Time) idempotency.Store {
			store := memory.New(memory.Options{Now: now})
			return storetest.NewFleet(store, lease).Member()
		},
	})
}

func TestSuiteOfBacklogsCanWaitForAClockThatItCannotSet(t *testing.T) {
	storetest.RunBacklog(t, storetest.Harness{
		Open:     func(*testing.T, func() time.Time) idempotency.Store { return memory.New(memory.Options{}) },
		RealTime: true,
	})
}

func TestFleetIsASharedStore(t *testing.T) {
	storetest.RunShared(t, storetest.SharedHarness{
		Open: func(t *testing.T, n int) []idempotency.SharedStore {
			fleet := storetest.NewFleet(memory.New(memory.Options{}), lease)
			var members []idempotency.SharedStore
			for range n {
				members = append(members, fleet.Member())
			}
			return members
		},
		Lease: lease,
	})
}

// pair is two members of a fleet in a bubble, a minute after they joined.
func pair(t *testing.T, run func(t *testing.T, fleet *storetest.Fleet, a, b *storetest.Member, p idempotency.Process)) {
	synctest.Test(t, func(t *testing.T) {
		fleet := storetest.NewFleet(memory.New(memory.Options{}), time.Second)
		a, b, p := fleet.Member(), fleet.Member(), idempotency.NewProcess()
		b.Join(p, func(context.Context) error { return nil })
		time.Sleep(time.Minute)
		run(t, fleet, a, b, p)
	})
}

func wantLife(t *testing.T, m *storetest.Member, p idempotency.Process, want idempotency.Life) {
	t.Helper()
	got, err := m.Life(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Alive != want.Alive || !got.Seen.Equal(want.Seen) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// wantPing pings p and fails the test unless it is answered so, after that time.
func wantPing(t *testing.T, m *storetest.Member, p idempotency.Process, want bool, after time.Duration) {
	t.Helper()
	start := time.Now()
	got, err := m.Ping(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); got != want || took != after {
		t.Errorf("got %v after %v, want %v after %v", got, took, want, after)
	}
}

func TestCrashedMemberIsDeadAfterTheLease(t *testing.T) {
	pair(t, func(t *testing.T, _ *storetest.Fleet, a, b *storetest.Member, p idempotency.Process) {
		wantPing(t, a, p, true, 0)
		b.Crash()
		crash := time.Now()
		wantLife(t, a, p, idempotency.Life{Alive: true, Seen: crash})
		time.Sleep(time.Second - 1)
		wantLife(t, a, p, idempotency.Life{Alive: true, Seen: crash})
		wantPing(t, a, p, false, 1)
		wantLife(t, a, p, idempotency.Life{Seen: crash})
		if _, err := b.Get(ctx, idempotency.ID{}); !errors.Is(err, storetest.ErrGone) {
			t.Errorf("a call of a crashed process got the error %v, want %q", err, storetest.ErrGone)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		wantPing(t, a, p, false, 0)
	})
}

func TestClosedMemberIsDeadAtOnceToThoseWhoHeardIt(t *testing.T) {
	pair(t, func(t *testing.T, fleet *storetest.Fleet, a, b *storetest.Member, p idempotency.Process) {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		end := time.Now()
		wantLife(t, a, p, idempotency.Life{Seen: end})
		wantPing(t, a, p, false, 0)
		time.Sleep(1)
		wantLife(t, fleet.Member(), p, idempotency.Life{Alive: true, Seen: end})
	})
}

func TestStoppedMemberIsDeadAfterTheLeaseUntilItGoesOn(t *testing.T) {
	pair(t, func(t *testing.T, _ *storetest.Fleet, a, b *storetest.Member, p idempotency.Process) {
		b.Pause()
		stop := time.Now()
		wantPing(t, a, p, false, time.Second)
		wantLife(t, a, p, idempotency.Life{Seen: stop})
		called := make(chan error)
		go func() {
			_, err := b.Get(ctx, idempotency.ID{})
			called <- err
		}()
		synctest.Wait()
		select {
		case err := <-called:
			t.Errorf("a stopped process has called (%v)", err)
		default:
		}
		b.Resume()
		if err := <-called; err != nil {
			t.Error(err)
		}
		wantLife(t, a, p, idempotency.Life{Alive: true, Seen: time.Now()})

		b.Pause()
		go func() {
			time.Sleep(time.Second / 2)
			b.Resume()
		}()
		wantPing(t, a, p, true, time.Second/2)
		b.Pause()
		b.Crash()
		wantPing(t, a, p, false, time.Second)
	})
}

func TestNewMemberCannotTellYetWhoIsDead(t *testing.T) {
	pair(t, func(t *testing.T, fleet *storetest.Fleet, a, b *storetest.Member, p idempotency.Process) {
		never := idempotency.NewProcess()
		wantLife(t, a, never, idempotency.Life{})
		c := fleet.Member()
		wantLife(t, c, never, idempotency.Life{Alive: true})
		wantPing(t, c, never, false, time.Second)
		fleet.Certain(true)
		wantLife(t, fleet.Member(), never, idempotency.Life{})
		fleet.Certain(false)

		a.Pause()
		time.Sleep(time.Minute)
		a.Resume()
		wantLife(t, a, never, idempotency.Life{Alive: true})
		time.Sleep(time.Second)
		wantLife(t, a, never, idempotency.Life{})
	})
}

func TestMutedFleetLosesNotices(t *testing.T) {
	pair(t, func(t *testing.T, fleet *storetest.Fleet, a, b *storetest.Member, p idempotency.Process) {
		rec := &idempotency.Record{
			ID: idempotency.NewID("org", "scope", "x"), State: idempotency.Started,
			Owner: p.NewOwner(), Expires: time.Now().Add(time.Hour),
		}
		changed, stop, err := a.Watch(ctx, rec.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		fleet.Mute(true)
		if _, err := b.Claim(ctx, rec, idempotency.Owner{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			t.Error("a notice came through")
		default:
		}
		fleet.Mute(false)
		if err := b.Finish(ctx, rec); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
		default:
			t.Error("no notice came through")
		}
	})
}
