package genesys

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/pacing"
)

// pacedBenchFor must be called inside the bubble that uses the result.
func pacedBenchFor(t *testing.T, transport http.RoundTripper, l pacing.Limits) bench {
	t.Helper()
	b := benchFor(t, transport)
	b.Pacer = pacing.New(nil)
	b.Pacer.Configure(pacing.Config{Limits: l})
	return b
}

// perSecond lets one call start per second, and one be under way.
var perSecond = pacing.Limits{Starts: 10, Window: 10 * time.Second, Burst: 1, Concurrency: 1}

func wantStatus(t *testing.T, p *pacing.Pacer, used, inFlight int) {
	t.Helper()
	if s := p.Status(); s.Used != used || s.InFlight != inFlight {
		t.Errorf("%d are used and %d under way, want %d and %d", s.Used, s.InFlight, used, inFlight)
	}
}

func TestAnAdmissionIsForTheFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, `{}`))
		b := pacedBenchFor(t, up, perSecond)
		_ = b.Invoke(within(t, time.Minute), call()) // which takes the burst
		if b.IsReady() {
			t.Error("it is ready, though that takes a start")
		}
		r := call()
		r.Scope = "a"
		var err error
		if r.Admission, err = b.Ready(t.Context(), time.Now().Add(time.Minute), "a"); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, b.Pacer, 2, 1)
		time.Sleep(time.Second)
		reply := b.Invoke(within(t, time.Minute), r)
		wantOutcome(t, reply, outcome{Final, Answered, 200})
		if a := reply.Journal[0]; a.Paced != time.Second || a.Waited != time.Second || a.Paused != 0 {
			t.Errorf("the journal says %+v", a)
		}
		wantStatus(t, b.Pacer, 2, 0)
	})
}

func TestEveryAttemptTakesAStartAndItsPlaceOnlyWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(503, "service.unavailable", "Retry-After", "5"), says(200, `{}`))
		b := pacedBenchFor(t, up, perSecond)
		replies := make(chan Reply)
		r := call()
		r.Admission, _ = b.Ready(t.Context(), time.Now().Add(time.Minute), "")
		go func() { replies <- b.Invoke(within(t, time.Minute), r) }()
		time.Sleep(2 * time.Second)
		wantStatus(t, b.Pacer, 1, 0) // it waits for the upstream
		wantOutcome(t, <-replies, outcome{Final, Answered, 200})
		wantCount(t, up, 2)
		wantStatus(t, b.Pacer, 2, 0)
	})
}

func TestAPlaceIsTakenUntilTheAnswerHasBeenRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacedBenchFor(t, scripted(trickles), perSecond)
		b.Policy.Timeout = 10 * time.Second
		replies := make(chan Reply)
		go func() { replies <- b.Invoke(within(t, time.Minute), call()) }()
		time.Sleep(9 * time.Second)
		wantStatus(t, b.Pacer, 1, 1)
		<-replies
		wantStatus(t, b.Pacer, 1, 0)
	})
}

func TestWhatCouldNotBeSentCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacedBenchFor(t, scripted(noDial), perSecond)
		wantOutcome(t, b.Invoke(within(t, time.Minute), call()), outcome{NotRun, Unreachable, 0})
		wantStatus(t, b.Pacer, 0, 0)
	})
}

func TestAPanicGivesThePlaceBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacedBenchFor(t, scripted(func(*http.Request) (*http.Response, error) { panic("x") }), perSecond)
		func() {
			defer func() { _ = recover() }()
			b.Invoke(within(t, time.Minute), call())
		}()
		wantStatus(t, b.Pacer, 1, 0)
	})
}

func TestA429LowersTheBudgetForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(429, "too.many.requests.retry.after", "Retry-After", "20"), says(200, `{}`))
		b := pacedBenchFor(t, up, pacing.Limits{Starts: 100, Window: 10 * time.Second})
		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{Final, Answered, 200})
		if s := b.Pacer.Status(); s.Limit >= 100 {
			t.Errorf("the limit is %d", s.Limit)
		}
		if at := up.seen()[1].at.Sub(up.seen()[0].at); at < 20*time.Second {
			t.Errorf("sent again after %v", at)
		}
	})
}

func TestATooLateStartIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, `{}`))
		b := pacedBenchFor(t, up, pacing.Limits{Starts: 1, Window: time.Hour})
		wantOutcome(t, b.Invoke(within(t, time.Minute), call()), outcome{Final, Answered, 200})
		before := time.Now()
		var late *pacing.LateError
		if _, err := b.Ready(t.Context(), before.Add(time.Minute), ""); !errors.As(err, &late) {
			t.Errorf("Ready = %v", err)
		}
		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{NotRun, Paused, 0})
		if !errors.As(reply.Err, &late) || late.RetryAfter < 59*time.Minute || time.Since(before) != 0 {
			t.Errorf("%v after %v", reply.Err, time.Since(before))
		}
		wantCount(t, up, 1)
	})
}

func TestAnAttemptThatWouldBeTooLateIsNotMadeAndTheAnswerStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(503, "service.unavailable", "Retry-After", "1"))
		b := pacedBenchFor(t, up, pacing.Limits{Starts: 1, Window: time.Hour})
		wantOutcome(t, b.Invoke(within(t, time.Minute), call()), outcome{NotRun, Answered, 503})
		wantCount(t, up, 1)
	})
}

func TestAnAdmissionThatMeetsAPauseIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacedBenchFor(t, scripted(says(200, `{}`)), perSecond)
		r := call()
		var err error
		if r.Admission, err = b.Ready(t.Context(), time.Now().Add(time.Minute), ""); err != nil {
			t.Fatal(err)
		}
		b.Pause.Until(time.Now().Add(time.Hour))
		wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{NotRun, Paused, 0})
		wantStatus(t, b.Pacer, 0, 0)
	})
}

func TestAnAbandonedAdmissionCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pacedBenchFor(t, scripted(says(200, `{}`)), perSecond)
		a, err := b.Ready(t.Context(), time.Now().Add(time.Minute), "")
		if err != nil {
			t.Fatal(err)
		}
		a.Abandon()
		wantStatus(t, b.Pacer, 0, 0)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if a, err := b.Ready(ctx, time.Time{}, ""); err == nil {
			t.Errorf("one that has left got %v", a)
		}
		wantStatus(t, b.Pacer, 0, 0)
		(*Admission)(nil).Abandon()
	})
}
