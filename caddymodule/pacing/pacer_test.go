package pacing

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithoutALimitEveryoneEntersAtOnce(t *testing.T) {
	for name, p := range map[string]*Pacer{"none": nil, "not configured": New(nil)} {
		slot, err := p.Enter(t.Context(), "a", time.Now().Add(-time.Hour))
		if slot != nil || err != nil || p.Active() || slot.Paced() != 0 {
			t.Errorf("%s: %v, %v", name, slot, err)
		}
		slot.Leave()
		slot.Unused()
		p.Hold(time.Hour)
		if s := p.Status(); s.Queue != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestNoWindowHasMoreStartsThanTheLimitWhateverArrives(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			l := Limits{
				Starts: 1 + r.IntN(200), Window: time.Duration(1+r.IntN(20_000)) * time.Millisecond,
				Concurrency: r.IntN(3) * (1 + r.IntN(30)),
			}
			l.Burst = r.IntN(l.Starts + 1)
			c := counting(t, Config{Limits: l, Queue: 1 + r.IntN(500)})
			for range 1500 {
				if r.IntN(4) == 0 {
					time.Sleep(time.Duration(r.Int64N(int64(l.Window / 20))))
				}
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if r.IntN(5) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(r.Int64N(int64(l.Window))))
				}
				var deadline time.Time
				if r.IntN(3) == 0 {
					deadline = time.Now().Add(time.Duration(r.Int64N(3 * int64(l.Window))))
				}
				scope, takes := fmt.Sprint(r.IntN(6)), time.Duration(r.Int64N(int64(l.Window/5)))
				if r.IntN(200) == 0 {
					c.p.Hold(time.Duration(r.Int64N(int64(l.Window))))
				}
				go func() {
					defer cancel()
					_ = c.call(ctx, scope, deadline, takes)
				}()
			}
			time.Sleep(2000 * l.Window)
			synctest.Wait()
			c.wantWithin(t, l)
			if len(c.all()) == 0 || c.p.waiting != 0 || c.p.inFlight != 0 || len(c.p.queued) != 0 {
				t.Errorf("%d started; left are %d waiting and %d under way", len(c.all()), c.p.waiting, c.p.inFlight)
			}
			if err := c.call(t.Context(), "z", time.Time{}, 0); err != nil || len(c.p.scopes) > 1 {
				t.Errorf("afterwards %v, and %d scopes are kept", err, len(c.p.scopes))
			}
		})
	}
}

func TestABurstCostsWaitingAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: minute})
		c.burst(t, 2000, "a", time.Second)
		if s := c.p.Status(); s.Waiting != 1970 || s.InFlight != 30 || s.Used != 30 || s.NextSlot != 200*time.Millisecond ||
			len(s.Scopes) != 1 || s.Scopes[0] != (ScopeStatus{"a", 1970}) {
			t.Errorf("the status is %+v", s)
		}
		time.Sleep(7 * time.Minute)
		synctest.Wait()
		c.wantStarts(t, 2000)
		c.wantWithin(t, minute)
		if last := c.all()[1999]; last > 410*time.Second {
			t.Errorf("the last started after %v", last)
		}
	})
}

func TestScopesTakeTurnsHoweverMuchEachWants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: minute})
		c.burst(t, 500, "noisy", 0)
		c.burst(t, 50, "a", 0)
		c.burst(t, 50, "b", 0)
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		c.wantWithin(t, minute)
		// The noisy one has had 30 of them before, and 20 more until all have 50.
		for _, scope := range []string{"a", "b"} {
			if last := c.of(scope)[49]; last > 25*time.Second {
				t.Errorf("the last of %s started after %v", scope, last)
			}
		}
	})
}

func TestEquallyBackloggedScopesGoRoundRobin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 60, Window: time.Minute, Burst: 1}})
		c.burst(t, 1, "first", 0) // takes the burst
		for _, scope := range []string{"a", "b", "c"} {
			c.burst(t, 10, scope, 0)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, scope := range c.order[1:] {
			if want := string(rune('a' + i%3)); scope != want {
				t.Fatalf("the order is %v", c.order)
			}
		}
	})
}

func TestWhoHasHadMoreIsNotNextForHavingWaitedLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 60, Window: time.Minute, Burst: 1}})
		c.burst(t, 10, "b", 0)
		time.Sleep(9500 * time.Millisecond)
		c.burst(t, 1, "c", 0)
		c.burst(t, 5, "b", 0)
		c.burst(t, 4, "c", 0)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for i, scope := range c.order[10:] {
			if (scope == "c") != (i < 5) {
				t.Fatalf("the order is %v", c.order)
			}
		}
	})
}

func TestOneThatHasHadLittleFindsAReserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: minute})
		c.burst(t, 1, "quiet", 0)
		c.burst(t, 3000, "noisy", 0)
		time.Sleep(40 * time.Second) // until that has had more than its share
		for range 20 {
			time.Sleep(15*time.Second + 10*time.Millisecond)
			before := time.Now()
			if err := c.call(t.Context(), "quiet", time.Time{}, 0); err != nil || time.Since(before) != 0 {
				t.Errorf("after %v: %v in %v", before.Sub(c.start), err, time.Since(before))
			}
		}
		c.wantWithin(t, minute)
	})
}

func TestNothingIsReservedWhereOneIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 300, Window: time.Minute, Concurrency: 50}})
		c.burst(t, 60, "a", time.Hour)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		c.wantStarts(t, 50)
	})
}

func TestPlacesAreBoundedAndSomeLeftToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Limits{Concurrency: 20}
		c := counting(t, Config{Limits: l})
		c.burst(t, 1, "quiet", time.Hour)
		c.burst(t, 100, "noisy", time.Minute)
		c.wantStarts(t, 18) // 2 are left to others
		c.burst(t, 3, "quiet", time.Hour)
		c.wantStarts(t, 20)
		time.Sleep(time.Minute + time.Second)
		synctest.Wait()
		if n := len(c.of("quiet")); n != 4 {
			t.Errorf("%d of 4 quiet ones have started", n)
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		c.wantStarts(t, 104)
		c.wantWithin(t, l)
	})
}

func TestWhoNeedsNoPlaceDoesNotWaitForOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 300, Window: time.Minute, Concurrency: 1}})
		c.burst(t, 3, "a", time.Hour)
		slot, err := c.p.Start(t.Context(), "a", time.Now().Add(time.Second))
		if slot == nil || err != nil || slot.Paced() != 0 {
			t.Errorf("got %v, %v", slot, err)
		}
		slot.Leave()
		if s := c.p.Status(); s.Used != 2 || s.InFlight != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestWhoCannotStartInTimeIsRefusedAtOnceAndToldWhenItCould(t *testing.T) {
	for _, waiting := range []int{0, 1, 17, 200, 299, 300, 900} {
		synctest.Test(t, func(t *testing.T) {
			c := counting(t, Config{Limits: minute})
			c.burst(t, 30+waiting, "a", 0)
			before := time.Now()
			late := wantLate(t, c.call(t.Context(), "a", before.Add(100*time.Millisecond), 0), PastDeadline)
			if time.Since(before) != 0 || late.RetryAfter < time.Duration(waiting)*195*time.Millisecond {
				t.Fatalf("told after %v to come in %v", time.Since(before), late.RetryAfter)
			}
			// It is not told to come earlier than it can start, nor much later.
			time.Sleep(late.RetryAfter)
			came := time.Now()
			err := c.call(t.Context(), "a", came.Add(300*time.Millisecond), 0)
			if err != nil || time.Since(came) > 200*time.Millisecond {
				t.Errorf("with %d waiting: when it came back it had %v after %v", waiting, err, time.Since(came))
			}
			// (The burst is paid for at the end of the first window.)
			if exact := time.Duration(waiting+1) * 200 * time.Millisecond; late.RetryAfter > exact+exact/20+7*time.Second {
				t.Errorf("with %d waiting it was told to come in %v", waiting, late.RetryAfter)
			}
		})
	}
}

func TestAQuietOneIsRefusedByItsOwnTurnAndNotByTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 300, Window: time.Minute, Burst: 1}})
		c.burst(t, 1000, "noisy", 0)
		err := c.call(t.Context(), "quiet", time.Now().Add(time.Second), 0)
		if err != nil {
			t.Errorf("got %v", err)
		}
		late := wantLate(t, c.call(t.Context(), "quiet2", time.Now().Add(time.Millisecond), 0), PastDeadline)
		if late.RetryAfter > time.Second {
			t.Errorf("it was told to come in %v", late.RetryAfter)
		}
	})
}

func TestWhoseDeadlineComesWhileItWaitsIsRefusedThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Concurrency: 1}})
		c.burst(t, 1, "a", time.Minute)
		before := time.Now()
		wantLate(t, c.call(t.Context(), "a", before.Add(10*time.Second), 0), PastDeadline)
		if d := time.Since(before); d != 10*time.Second {
			t.Errorf("after %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		wantLate(t, c.call(ctx, "a", time.Time{}, 0), PastDeadline)
		if c.p.waiting != 0 {
			t.Errorf("%d wait", c.p.waiting)
		}
	})
}

func TestWhoHasLeftTakesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 10, Window: 10 * time.Second, Burst: 1}})
		c.burst(t, 1, "a", 0)
		ctx, cancel := context.WithCancel(t.Context())
		for range 5 {
			go func() {
				if err := c.call(ctx, "a", time.Time{}, 0); !errors.Is(err, context.Canceled) {
					t.Errorf("one that has left got %v", err)
				}
			}()
		}
		synctest.Wait()
		cancel()
		synctest.Wait()
		if err := c.call(t.Context(), "b", time.Time{}, 0); err != nil || time.Since(c.start) != time.Second {
			t.Errorf("the next one got %v after %v", err, time.Since(c.start))
		}
		if err := c.call(ctx, "a", time.Time{}, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("one that comes when it has left got %v", err)
		}
		c.wantStarts(t, 2)
	})
}

// fickle is a context that ends after it was asked so often whether it has. It
// tells nobody.
type fickle struct {
	context.Context
	asked *int
	after int
}

func (f fickle) Done() <-chan struct{} { return nil }

func (f fickle) Err() error {
	if *f.asked++; *f.asked > f.after {
		return context.Canceled
	}
	return nil
}

func TestASlotForOneThatLeavesAtThatMomentIsGivenBack(t *testing.T) {
	for after := range 3 { // it leaves before it comes, while it waits, with the slot in its hand
		synctest.Test(t, func(t *testing.T) {
			c := counting(t, Config{Limits: Limits{Concurrency: 1, Starts: 10, Window: time.Minute}})
			c.burst(t, 1, "a", time.Second)
			slot, err := c.p.Enter(fickle{t.Context(), new(int), after}, "a", time.Time{})
			if slot != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, %v", slot, err)
			}
			if s := c.p.Status(); s.Used != 1 || s.InFlight > 1 || s.Waiting != 0 {
				t.Errorf("%+v", s)
			}
			time.Sleep(time.Minute)
			if s := c.p.Status(); s.InFlight != 0 {
				t.Errorf("%d places are taken", s.InFlight)
			}
		})
	}
}

func TestTheLongestQueueMakesRoomForOneWithLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 300, Window: time.Minute, Burst: 1}, Queue: 10})
		c.burst(t, 11, "noisy", 0)
		wantLate(t, c.call(t.Context(), "noisy", time.Time{}, 0), QueueFull)
		c.burst(t, 2, "quiet", 0)
		if s := c.p.Status(); s.Waiting != 10 || s.Scopes[1] != (ScopeStatus{"quiet", 2}) {
			t.Errorf("%+v", s)
		}
		if n := len(c.late); n != 3 || c.late[1].Reason != Displaced || c.late[2].Reason != Displaced {
			t.Errorf("%d were refused: %v", n, c.late)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		c.wantStarts(t, 11)
	})
}

func TestAHoldStopsAllAndRefusesThoseItIsTooLongFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Starts: 100, Window: 10 * time.Second, Burst: 1}})
		c.burst(t, 50, "a", 0)
		errs := make(chan error, 1)
		go func() { errs <- c.call(t.Context(), "a", c.start.Add(20*time.Second), 0) }()
		time.Sleep(time.Second)
		synctest.Wait()
		n := len(c.all())
		c.p.Hold(time.Minute)
		late := wantLate(t, <-errs, PastDeadline)
		if late.RetryAfter < time.Minute || c.p.Status().Held != time.Minute {
			t.Errorf("it was told to come in %v", late.RetryAfter)
		}
		time.Sleep(time.Minute - 1)
		synctest.Wait()
		c.wantStarts(t, n)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := len(c.all()) - n; got < 9 || got > 12 { // as many as before it
			t.Errorf("%d started in the window after the hold, of %d before", got, n)
		}
	})
}

func TestAHoldStopsThoseWhoWaitForPlacesAloneToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := counting(t, Config{Limits: Limits{Concurrency: 5}})
		c.p.Hold(time.Minute)
		if err := c.call(t.Context(), "a", time.Time{}, 0); err != nil || time.Since(c.start) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(c.start))
		}
	})
}

func TestNewLimitsHoldForThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := Limits{Starts: 1, Window: time.Hour}
		c := counting(t, Config{Limits: slow})
		c.burst(t, 101, "a", time.Second)
		c.wantStarts(t, 1)
		c.p.Configure(Config{Limits: Limits{Starts: 100, Window: time.Hour, Burst: 50}})
		synctest.Wait()
		if n := len(c.all()); n < 49 || n > 50 {
			t.Errorf("%d have started", n)
		}
		c.p.Configure(Config{})
		synctest.Wait()
		c.wantStarts(t, 101)
		if c.p.waiting != 0 || c.p.Active() {
			t.Errorf("%d wait", c.p.waiting)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		c.p.Configure(Config{Limits: Limits{Concurrency: 1}})
		if err := c.call(t.Context(), "a", time.Now(), 0); err != nil {
			t.Errorf("with no other call under way: %v", err)
		}
	})
}

func TestAnUnusedSlotIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.Configure(Config{Limits: Limits{Starts: 1, Window: time.Hour, Concurrency: 1}})
		for range 5 {
			slot, err := p.Enter(t.Context(), "a", time.Now())
			if err != nil {
				t.Fatal(err)
			}
			slot.Unused()
			slot.Unused()
			slot.Leave()
		}
		if s := p.Status(); s.Used != 0 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
		slot, _ := p.Enter(t.Context(), "a", time.Time{})
		slot.Leave()
		slot.Unused()
		if s := p.Status(); s.Used != 1 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAStartCountsFromWhenItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(nil)
		p.Configure(Config{Limits: Limits{Starts: 2, Window: time.Minute, Burst: 2}})
		first, _ := p.Enter(t.Context(), "a", time.Time{})
		second, _ := p.Enter(t.Context(), "a", time.Time{})
		time.Sleep(30 * time.Second)
		first.Sending()
		second.Sending()
		second.Unused()
		if s := p.Status(); s.Used != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(59 * time.Second)
		if s := p.Status(); s.Used != 1 {
			t.Errorf("%+v", s)
		}
		time.Sleep(2 * time.Second)
		first.Sending() // again, which changes nothing, nor is it counted any more
		if s := p.Status(); s.Used != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func BenchmarkEnterWithoutALimit(b *testing.B) {
	p := New(nil)
	for b.Loop() {
		slot, _ := p.Enter(b.Context(), "a", time.Time{})
		slot.Leave()
	}
}

func BenchmarkEnterUncontended(b *testing.B) {
	p := New(nil)
	p.Configure(Config{Limits: Limits{Starts: 1 << 40, Window: time.Second, Burst: 1 << 40, Concurrency: 50}})
	for b.Loop() {
		slot, _ := p.Enter(b.Context(), "a", time.Time{})
		slot.Leave()
	}
}

func BenchmarkEnterWith1000WaitingScopes(b *testing.B) {
	p := New(nil)
	p.Configure(Config{Limits: Limits{Starts: 1, Window: time.Hour}})
	for i := range 1000 {
		go func() { _, _ = p.Enter(b.Context(), fmt.Sprint("w", i), time.Time{}) }()
	}
	for p.Status().Waiting < 999 {
		time.Sleep(time.Millisecond)
	}
	b.Run("refused", func(b *testing.B) {
		for b.Loop() {
			_, _ = p.Enter(b.Context(), "a", time.Now().Add(time.Minute))
		}
	})
	b.Run("queued and cancelled", func(b *testing.B) {
		for b.Loop() {
			ctx, cancel := context.WithCancel(b.Context())
			cancelled := context.AfterFunc(ctx, func() {})
			go cancel()
			_, _ = p.Enter(ctx, "a", time.Time{})
			cancelled()
		}
	})
}
