package genesys

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestZeroPauseLetsThrough(t *testing.T) {
	var p Pause
	if err := p.Wait(t.Context(), time.Time{}); err != nil {
		t.Error(err)
	}
	if d, paused := p.Remaining(time.Now()); d != 0 || paused {
		t.Errorf("Remaining = %v, %v", d, paused)
	}
}

func TestPauseIsExtendedAndNeverShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		now := time.Now()
		p.Until(now.Add(10 * time.Second))
		p.Until(now.Add(5 * time.Second))
		if d, paused := p.Remaining(now); d != 10*time.Second || !paused {
			t.Errorf("Remaining = %v, %v; want 10s", d, paused)
		}
		if d, paused := p.Remaining(now.Add(10 * time.Second)); d != 0 || paused {
			t.Errorf("Remaining at its end = %v, %v", d, paused)
		}
	})
}

func TestWaitersLeaveAfterThePauseButNotTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		end := time.Now().Add(10 * time.Second)
		p.Until(end)
		var mu sync.Mutex
		moments := map[time.Time]bool{}
		for range 50 {
			go func() {
				if err := p.Wait(t.Context(), time.Time{}); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				moments[time.Now()] = true
			}()
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(moments) < 25 {
			t.Errorf("50 waiters left at %d moments", len(moments))
		}
		for m := range moments {
			if m.Before(end) || m.After(end.Add(pauseJitter)) {
				t.Errorf("one left %v after the end", m.Sub(end))
			}
		}
	})
}

func TestWaitersWaitOutAnExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		start := time.Now()
		p.Until(start.Add(10 * time.Second))
		time.AfterFunc(9*time.Second, func() { p.Until(start.Add(30 * time.Second)) })
		if err := p.Wait(t.Context(), time.Time{}); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 30*time.Second || d > 31*time.Second {
			t.Errorf("waited %v, want 30s and a little", d)
		}
	})
}

func TestPauseBeyondTheDeadlineIsToldAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		start := time.Now()
		p.Until(start.Add(10 * time.Second))

		var paused *PausedError
		err := p.Wait(t.Context(), start.Add(10*time.Second-1))
		if !errors.As(err, &paused) || !paused.Until.Equal(start.Add(10*time.Second)) || time.Since(start) != 0 {
			t.Errorf("Wait = %v after %v", err, time.Since(start))
		}

		// An extension past the deadline is told when it is made.
		time.AfterFunc(3*time.Second, func() { p.Until(start.Add(time.Hour)) })
		err = p.Wait(t.Context(), start.Add(time.Minute))
		if !errors.As(err, &paused) || !paused.Until.Equal(start.Add(time.Hour)) || time.Since(start) != 3*time.Second {
			t.Errorf("Wait = %v after %v", err, time.Since(start))
		}
	})
}

func TestJitterDoesNotPassTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		end := time.Now().Add(10 * time.Second)
		p.Until(end)
		if err := p.Wait(t.Context(), end); err != nil {
			t.Error(err)
		}
		if now := time.Now(); !now.Equal(end) {
			t.Errorf("left %v after the end", now.Sub(end))
		}
	})
}

func TestAPauseThatTheContextDoesNotOutlastIsToldAsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		// The call's own time began before that of the wait.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		time.Sleep(time.Second)
		began := time.Now()
		deadline := began.Add(time.Minute)
		end := began.Add(59*time.Second + 500*time.Millisecond)
		p.Until(end)
		var paused *PausedError
		if err := p.Wait(ctx, deadline); !errors.As(err, &paused) || !paused.Until.Equal(end) {
			t.Errorf("Wait = %v, want that it is paused until %v", err, end)
		}
		if time.Since(began) != 0 {
			t.Errorf("it took %v to tell", time.Since(began))
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		start := time.Now()
		p.Until(start.Add(time.Hour))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := p.Wait(ctx, time.Time{}); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("Wait = %v after %v", err, time.Since(start))
		}
	})
}

func TestPauseEndsWithinADayWhateverWasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p Pause
		start := time.Now()
		p.Until(start.Add(1000 * time.Hour))
		if d, paused := p.Remaining(start); d != 24*time.Hour || !paused {
			t.Errorf("Remaining = %v, %v; want 24h", d, paused)
		}
		if err := p.Wait(t.Context(), time.Time{}); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 24*time.Hour || d > 24*time.Hour+pauseJitter {
			t.Errorf("waited %v, want 24h and a little", d)
		}
	})
}

func TestPausedErrorTellsTheEnd(t *testing.T) {
	err := &PausedError{Until: time.Date(2026, 3, 1, 13, 0, 42, 0, time.FixedZone("", 3600))}
	if want := "waiting for the rate limit: paused until 2026-03-01T12:00:42Z"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}
