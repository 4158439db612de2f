package pacing

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

var errDown = errors.New("connection refused")

// fleet has n pacers that share f.
func fleet(t *testing.T, f *fake, n int, c Config) []*counter {
	members := make([]*counter, n)
	for i := range members {
		c.Shared, c.Name = &member{f, fmt.Sprint(i)}, "org"
		members[i] = counting(t, c)
	}
	return members
}

func starts(members []*counter) (all []time.Duration) {
	for _, c := range members {
		c.mu.Lock()
		all = append(all, c.starts...)
		c.mu.Unlock()
	}
	slices.Sort(all)
	return all
}

func TestAFleetSpendsOneBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Starts: 300, Window: time.Minute, Concurrency: 50}
		members := fleet(t, newFake(), 3, Config{Limits: l})
		for i, c := range members {
			for j := range 200 {
				go func() { _ = c.call(t.Context(), fmt.Sprint(i, j%3), time.Time{}, 5*time.Second) }()
			}
		}
		for range 1000 {
			time.Sleep(200*time.Millisecond + 1)
			synctest.Wait()
			now := 0
			for _, c := range members {
				c.mu.Lock()
				now += c.now
				c.mu.Unlock()
			}
			if now > 50 {
				t.Fatalf("%d are under way", now)
			}
		}
		all := starts(members)
		if len(all) != 600 || most(all, time.Minute) > 300 || all[599] > 125*time.Second {
			t.Errorf("%d started, %d of them in one window, the last after %v", len(all), most(all, time.Minute), all[len(all)-1])
		}
		for _, c := range members {
			if c.p.sharing.running || c.p.waiting != 0 || c.p.inFlight != 0 {
				t.Errorf("left are %+v", c.p.Status())
			}
		}
	})
}

func TestPlacesOfAFleetAreNeverTakenTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		members := fleet(t, f, 2, Config{Limits: Limits{Concurrency: 5}})
		members[0].burst(t, 5, "a", 10*time.Second)
		members[1].burst(t, 5, "a", 10*time.Second)
		members[0].wantStarts(t, 5)
		members[1].wantStarts(t, 0)
		time.Sleep(10*time.Second + 200*time.Millisecond)
		synctest.Wait()
		members[1].wantStarts(t, 5) // and has not waited for the next report
		time.Sleep(time.Minute)
		synctest.Wait()
		n, first := f.told("0")
		_, second := f.told("1")
		if first != 0 || second != 0 {
			t.Errorf("%d and %d are told to be under way", first, second)
		}
		time.Sleep(time.Hour)
		if got, _ := f.told("0"); got != n {
			t.Errorf("asked %d times with nothing to do", got-n)
		}
	})
}

func TestCallsUnderWayAreReportedAsLongAsTheyAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fleet(t, f, 1, Config{Limits: minute})[0]
		c.burst(t, 2, "a", 20*time.Second)
		before, _ := f.told("0")
		time.Sleep(19 * time.Second)
		after, flying := f.told("0")
		if n := after - before; n < 9 || n > 10 || flying != 2 {
			t.Errorf("%d reports in 19 seconds, of %d calls", n, flying)
		}
	})
}

func TestTheReserveIsLeftInASharedBudgetToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fleet(t, newFake(), 1, Config{Limits: minute})[0]
		c.burst(t, 1, "quiet", 0)
		c.burst(t, 3000, "noisy", 0)
		time.Sleep(45 * time.Second)
		for range 10 {
			time.Sleep(7*time.Second + 10*time.Millisecond)
			before := time.Now()
			if err := c.call(t.Context(), "quiet", time.Time{}, 0); err != nil || time.Since(before) != 0 {
				t.Errorf("after %v: %v in %v", before.Sub(c.start), err, time.Since(before))
			}
		}
		c.wantWithin(t, minute)
	})
}

func TestWithoutTheSharedBudgetEachHasItsShareUntilItIsBack(t *testing.T) {
	for name, c := range map[string]struct {
		share, sharers, want int
	}{"as heard": {0, 3, 100}, "configured": {60, 3, 60}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.shares = c.sharers
				l := Limits{Starts: 300, Window: time.Minute, Concurrency: 30}
				m := fleet(t, f, 1, Config{Limits: l, Share: c.share})[0]
				m.burst(t, 1, "a", 0)
				time.Sleep(5 * time.Second)
				f.fail(errDown)
				m.burst(t, 2000, "a", time.Second)
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				m.mu.Lock()
				n := most(m.starts, time.Minute)
				m.mu.Unlock()
				if n > c.want || n < c.want*95/100 {
					t.Errorf("%d in a window without it, want %d", n, c.want)
				}
				if s := m.p.Status(); s.Shared || !s.Fallback || s.Limit != c.want {
					t.Errorf("%+v", s)
				}
				before, _ := f.told("0")
				time.Sleep(time.Minute)
				if after, _ := f.told("0"); after-before < 50 || after-before > 65 {
					t.Errorf("it was tried %d times in a minute", after-before)
				}
				f.fail(nil)
				time.Sleep(90 * time.Second)
				synctest.Wait()
				if s := m.p.Status(); !s.Shared || s.Fallback || s.Used < 290 || m.p.limits != l {
					t.Errorf("%+v, by %+v", s, m.p.limits)
				}
				// It does not know what was started without it.
				m.wantWithin(t, Limits{Starts: l.Starts + c.want, Window: l.Window, Concurrency: l.Concurrency})
			})
		})
	}
}

func TestAHoldIsToldToTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		members := fleet(t, f, 2, Config{Limits: minute})
		members[0].burst(t, 1, "a", 0)
		members[0].p.Hold(30 * time.Second)
		synctest.Wait()
		members[1].burst(t, 1, "a", 0)
		members[1].wantStarts(t, 0)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		members[1].wantStarts(t, 1)
		if f.holds != 1 {
			t.Errorf("told %d times", f.holds)
		}
	})
}

func TestASharedBudgetThatIsUsedUpRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fleet(t, newFake(), 1, Config{Limits: minute})[0]
		c.burst(t, 130, "a", 0)
		before := time.Now()
		late := wantLate(t, c.call(t.Context(), "a", before.Add(10*time.Second), 0), PastDeadline)
		if time.Since(before) != 0 || late.RetryAfter < 19*time.Second || late.RetryAfter > 22*time.Second {
			t.Errorf("told after %v to come in %v", time.Since(before), late.RetryAfter)
		}
		time.Sleep(late.RetryAfter)
		if err := c.call(t.Context(), "a", time.Now().Add(time.Second), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestASlowSharedBudgetHoldsNobodyPastItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.slow = 800 * time.Millisecond
		c := fleet(t, f, 1, Config{Limits: minute})[0]
		before := time.Now()
		wantLate(t, c.call(t.Context(), "a", before.Add(100*time.Millisecond), 0), PastDeadline)
		if d := time.Since(before); d != 100*time.Millisecond {
			t.Errorf("told after %v", d)
		}
		time.Sleep(time.Second)
	})
}

func TestAnotherSharedBudgetIsTakenOverWhileSomeWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fleet(t, f, 1, Config{Limits: Limits{Starts: 1, Window: time.Hour}})[0]
		c.burst(t, 10, "a", 0)
		c.wantStarts(t, 1)
		c.p.Configure(Config{Limits: minute, Shared: &member{newFake(), "x"}, Name: "org"})
		synctest.Wait()
		c.wantStarts(t, 10)
		c.burst(t, 100, "a", 0)
		c.p.Configure(Config{Limits: minute})
		time.Sleep(30 * time.Second)
		synctest.Wait()
		c.wantStarts(t, 110)
	})
}

func TestPlacesAreLeftToOthersInASharedBudgetToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.flying["elsewhere"] = 5
		c := fleet(t, f, 1, Config{Limits: Limits{Concurrency: 20}})[0]
		c.burst(t, 1, "quiet", time.Hour)
		c.burst(t, 11, "noisy", time.Hour)
		c.burst(t, 10, "noisy", time.Hour)
		time.Sleep(time.Second)
		c.wantStarts(t, 13) // 2 are left to others
		c.burst(t, 5, "quiet", time.Hour)
		time.Sleep(time.Second)
		synctest.Wait()
		c.wantStarts(t, 15)
	})
}

func TestWhoNeedsNoPlaceDoesNotWaitForOneOfTheFleets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.flying["elsewhere"] = 5
		c := fleet(t, f, 1, Config{Limits: Limits{Starts: 300, Window: time.Minute, Concurrency: 5}})[0]
		slot, err := c.p.Start(t.Context(), "a", time.Now().Add(time.Second))
		if slot == nil || err != nil {
			t.Fatal(err)
		}
		slot.Unused() // which nobody can be told
		if f.budget.used != 1 || c.p.budget.used != 1 {
			t.Errorf("%d are used of the shared budget, %d of the own", f.budget.used, c.p.budget.used)
		}
		wantLate(t, c.call(t.Context(), "a", time.Now().Add(time.Second), 0), PastDeadline)
	})
}

func TestStartsFromTheShareAreToldToTheSharedBudgetOnceItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fleet(t, f, 1, Config{Limits: Limits{Starts: 100, Window: 10 * time.Second, Burst: 10}, Share: 50})[0]
		enter := func() *Slot {
			slot, err := c.p.Enter(t.Context(), "", time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			return slot
		}
		enter().Leave() // which the budget has granted
		f.fail(errors.New("away"))
		const alone = 5
		for range alone {
			defer enter().Leave()
		}
		f.fail(nil)
		time.Sleep(2 * retryEvery)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.own != alone {
			t.Errorf("it was told of %d starts", f.own)
		}
		if f.budget.used != 1+alone {
			t.Errorf("%d count", f.budget.used)
		}
	})
}

func TestAStartThatComesLateIsToldToTheSharedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := fleet(t, f, 1, Config{Limits: Limits{Starts: 100, Window: 10 * time.Second, Burst: 10}})[0]
		var slots []*Slot
		for range 2 {
			slot, err := c.p.Enter(t.Context(), "", time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			slots = append(slots, slot)
		}
		time.Sleep(10 * time.Millisecond)
		slots[0].Sending() // soon enough
		time.Sleep(5 * time.Second)
		slots[1].Sending()
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.late != 1 {
			t.Errorf("it was told of %d", f.late)
		}
		f.budget.advance(12 * time.Second)
		if f.budget.used != 1 {
			t.Errorf("%d count when the first is a window ago", f.budget.used)
		}
	})
}
