package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// hardware is a machine whose clocks tests set.
type hardware struct {
	start time.Time

	mu    sync.Mutex
	set   time.Duration // guarded by mu; by how much the wall clock was set
	off   time.Duration // guarded by mu; for how long the machine was off or asleep, by true time
	up    time.Duration // guarded by mu; what of that counts as running
	boots int           // guarded by mu
}

func newHardware() *hardware { return &hardware{start: time.Now(), up: time.Hour} }

func (h *hardware) read() (wall time.Time, boot string, uptime time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	passed := time.Since(h.start)
	return h.start.Add(passed + h.off + h.set).Round(0), fmt.Sprint("boot ", h.boots), h.up + passed
}

// setWall sets the wall clock by d.
func (h *hardware) setWall(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set += d
}

// pass lets time pass that Go's own clock does not see.
func (h *hardware) pass(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off, h.up = h.off+d, h.up+d
}

// reboot restarts the machine, which takes d.
func (h *hardware) reboot(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.off, h.up, h.boots = h.off+d, time.Minute-time.Since(h.start), h.boots+1
}

var discard = slog.New(slog.DiscardHandler)

func TestTheClockGoesOnWhateverTheWallClockIsSetTo(t *testing.T) {
	for _, by := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			machine := newHardware()
			var log lockedLog
			c := startClock(clockNote{}, machine.read, log.logger())
			start := c.Now()
			machine.setWall(by)
			time.Sleep(time.Hour)
			if !c.look() || c.look() {
				t.Error("it was not noticed once")
			}
			if passed := c.Now().Sub(start); passed != time.Hour {
				t.Errorf("%v have passed, want an hour", passed)
			}
			log.wantLog(t, "WARN", 1)
			if !strings.Contains(log.String(), "by="+by.String()) {
				t.Errorf("it is not said by how much: %s", &log)
			}
		})
	}
}

func TestTimeThatTheMachineSleptHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := newHardware()
		var log lockedLog
		c := startClock(clockNote{}, machine.read, log.logger())
		start := c.Now()
		time.Sleep(time.Hour)
		machine.pass(8 * time.Hour)
		if passed := c.elapsed(start); passed != 9*time.Hour {
			t.Errorf("%v have passed, want 9h", passed)
		}
		if passed := c.Now().Sub(start); passed != 9*time.Hour {
			t.Errorf("the clock went on by %v, want 9h", passed)
		}
		log.wantLog(t, "WARN", 0)
	})
}

// A virtual machine that was stopped, and whose wall clock was put right, cannot
// be told from one whose wall clock was put wrong.
func TestTheTimeElapsedMayBeAsLongAsTheWallClockSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := newHardware()
		c := startClock(clockNote{}, machine.read, discard)
		before := c.Now()
		time.Sleep(time.Hour)
		machine.setWall(48 * time.Hour)
		if d := c.elapsed(before); d != 49*time.Hour {
			t.Errorf("%v since before, want 49h", d)
		}
		after := c.Now()
		time.Sleep(time.Hour)
		machine.setWall(-48 * time.Hour)
		if d := c.elapsed(after); d != time.Hour {
			t.Errorf("%v since after, want an hour", d)
		}
		for range 2 * maxJumps {
			machine.setWall(time.Minute)
			c.look()
			time.Sleep(time.Minute)
		}
		if d := c.elapsed(before); d < 49*time.Hour {
			t.Errorf("%v since before, want 49h or more", d)
		}
	})
}

// onMachine opens the store in dir on machine.
func onMachine(t *testing.T, dir string, machine *hardware, log *lockedLog) *Store {
	t.Helper()
	return mustOpen(t, dir, Options{machine: machine.read, Logger: log.logger(), SweepInterval: -1})
}

// keptFor claims and finishes a call that is kept for d.
func keptFor(t *testing.T, s *Store, name string, d time.Duration) *idempotency.Record {
	t.Helper()
	rec := claim(name)
	rec.Started = s.Now()
	rec.Expires = rec.Started.Add(d)
	mustClaim(t, s, rec)
	done := answered(rec)
	done.Finished = rec.Started
	if err := s.Finish(ctx, done); err != nil {
		t.Fatal(err)
	}
	return done
}

func isThere(t *testing.T, s *Store, rec *idempotency.Record) bool {
	t.Helper()
	if _, err := s.sweep(); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(ctx, rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	standing, err := s.Claim(ctx, claim(rec.Key), idempotency.Owner{})
	if err != nil || (standing == nil) != (got == nil) {
		t.Fatalf("it is there: %v, and in the way of a claim: %v; %v", got != nil, standing != nil, err)
	}
	return got != nil
}

func TestARecordIsKeptForItsTimeWhateverTheWallClockSays(t *testing.T) {
	const retention = 24 * time.Hour
	for _, tt := range []struct {
		name     string
		set      time.Duration // of the wall clock, while the store is closed
		passed   time.Duration // while the store is closed
		reboot   bool
		there    bool
		warnings int
	}{
		{name: "nothing happens", there: true},
		{name: "forward", set: 48 * time.Hour, there: true, warnings: 1},
		{name: "back", set: -48 * time.Hour, there: true, warnings: 1},
		{name: "back, for longer than that", set: -48 * time.Hour, passed: 25 * time.Hour, warnings: 1},
		{name: "a long rest", passed: 25 * time.Hour},
		{name: "forward and a reboot", set: 48 * time.Hour, reboot: true, there: true, warnings: 1},
		{name: "back and a reboot", set: -48 * time.Hour, reboot: true, there: true, warnings: 1},
		{name: "a reboot at once", reboot: true, passed: time.Minute, there: true},
		{name: "a reboot after days", reboot: true, passed: 72 * time.Hour, there: true, warnings: 1},
	} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, crash: %v", tt.name, crash), func(t *testing.T) {
				dir, machine := t.TempDir(), newHardware()
				s := onMachine(t, dir, machine, new(lockedLog))
				rec := keptFor(t, s, "a", retention)
				before := s.Now()
				if crash {
					dir = copyDir(t, dir)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				machine.setWall(tt.set)
				machine.pass(tt.passed)
				if tt.reboot {
					machine.reboot(0)
				}
				var log lockedLog
				s = onMachine(t, dir, machine, &log)
				// After a crash, the time of the last note is the latest known.
				if back := before.Sub(s.Now()); back > 0 && !crash || back > noteInterval {
					t.Errorf("the clock went back from %v to %v", before, s.Now())
				}
				log.wantLog(t, "WARN", tt.warnings)
				if there := isThere(t, s, rec); there != tt.there {
					t.Errorf("the record is there: %v, want %v", there, tt.there)
				}
			})
		}
	}
}

// After a reboot, nobody knows whether the time that the wall clock says has
// passed.
func TestWhatExpiredDuringARestIsKeptForAnHourOfRunning(t *testing.T) {
	dir, machine, log := t.TempDir(), newHardware(), new(lockedLog)
	s := onMachine(t, dir, machine, log)
	long := keptFor(t, s, "long", 24*time.Hour)
	short := keptFor(t, s, "short", 20*time.Minute)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	machine.setWall(48 * time.Hour)
	machine.reboot(time.Minute)
	var fresh *idempotency.Record
	for _, step := range []struct {
		passed             time.Duration
		long, short, fresh bool
	}{
		{0, true, true, true},
		{10 * time.Minute, true, true, true},
		{11 * time.Minute, true, false, false},
		{38 * time.Minute, true, false, false},
		{2 * time.Minute, false, false, false},
	} {
		machine.pass(step.passed)
		s = onMachine(t, dir, machine, log)
		if fresh == nil {
			fresh = keptFor(t, s, "fresh", 15*time.Minute) // a rest concerns what is from before it
		}
		for rec, want := range map[*idempotency.Record]bool{long: step.long, short: step.short, fresh: step.fresh} {
			got, err := s.Get(ctx, rec.ID)
			if err != nil || (got != nil) != want {
				t.Errorf("%v later, %s is there: %v, want %v; %v", step.passed, rec.Key, got != nil, want, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What an upstream remembers for 24 hours must not be relied on for longer, even
// if the clock may have been behind.
func TestARestCountsAsElapsed(t *testing.T) {
	dir, machine, log := t.TempDir(), newHardware(), new(lockedLog)
	s := onMachine(t, dir, machine, log)
	before := s.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	machine.setWall(48 * time.Hour)
	s = onMachine(t, dir, machine, log)
	if passed := s.Now().Sub(before); passed > time.Hour {
		t.Errorf("the clock went on by %v", passed)
	}
	if d := s.Elapsed(before); d < 48*time.Hour {
		t.Errorf("%v have passed at the most, want 48h", d)
	}
	if d := s.Elapsed(s.Now()); d > time.Hour {
		t.Errorf("%v have passed since now", d)
	}
}

// A machine without a battery starts with its clock in the past, and is put right
// by the network a little later, each time.
func TestAWallClockThatIsPutRightAfterEachBootLosesNothing(t *testing.T) {
	dir, machine, log := t.TempDir(), newHardware(), new(lockedLog)
	machine.setWall(-1000 * time.Hour)
	var recs []*idempotency.Record
	for i := range 5 {
		s := onMachine(t, dir, machine, log)
		recs = append(recs, keptFor(t, s, fmt.Sprint("boot ", i), 24*time.Hour))
		machine.setWall(1000 * time.Hour)
		s.clock.look()
		for _, rec := range recs {
			if got, err := s.Get(ctx, rec.ID); err != nil || got == nil {
				t.Errorf("in round %d, %s is gone, %v", i, rec.Key, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		machine.setWall(-1000 * time.Hour)
		machine.reboot(time.Minute)
	}
}

func TestTheTimeIsNotedWhenTheWallClockIsSet(t *testing.T) {
	dir, machine := t.TempDir(), newHardware()
	s := onMachine(t, dir, machine, new(lockedLog))
	rec := keptFor(t, s, "a", 24*time.Hour)
	machine.setWall(48 * time.Hour)
	if !s.clock.look() {
		t.Fatal("it was not noticed")
	}
	s.keepTime()
	if err := s.db.LogData(nil, nil); err != nil {
		t.Fatal(err)
	}
	crashed := copyDir(t, dir)
	machine.reboot(0)
	s = onMachine(t, crashed, machine, new(lockedLog))
	if passed := s.Now().Sub(rec.Started); passed > time.Hour {
		t.Errorf("the clock went on by %v", passed)
	}
}

func TestADamagedClockIsDamage(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir, Options{Now: time.Now})
	if err := s.db.Set(clockKey, []byte("half past"), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("got %v", err)
	}
}

func TestAJumpIsNotForgottenWithARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		machine := newHardware()
		c := startClock(clockNote{}, machine.read, discard)
		before := c.Now()
		time.Sleep(time.Minute)
		machine.setWall(3 * time.Hour)
		c.look()
		for range 3 {
			c = startClock(c.note(), machine.read, discard)
			if d := c.elapsed(before); d < 3*time.Hour {
				t.Errorf("%v since before, want 3h or more", d)
			}
		}
	})
}
