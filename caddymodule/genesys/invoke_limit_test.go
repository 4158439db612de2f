package genesys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimitedIsSentAgainNeverEarlierThanTold(t *testing.T) {
	for what, c := range map[string]struct {
		status int
		after  func(time.Time) string
	}{
		"429 in seconds": {429, func(time.Time) string { return "42" }},
		"429 as a date":  {429, func(now time.Time) string { return now.Add(42 * time.Second).UTC().Format(http.TimeFormat) }},
		"503 in seconds": {503, func(time.Time) string { return "42" }},
		"503 as a date":  {503, func(now time.Time) string { return now.Add(42 * time.Second).UTC().Format(http.TimeFormat) }},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, r := range []Request{call(), honoredCall()} {
					up := scripted(says(c.status, "{}", "Retry-After", c.after(time.Now())), says(200, ""))
					wantOutcome(t, benchFor(t, up).Invoke(within(t, 2*time.Minute), r), outcome{Final, Answered, 200})
					wantCount(t, up, 2)
					// A date has no fractions.
					told := up.seen()[0].at.Add(42 * time.Second)
					if strings.HasSuffix(what, "date") {
						told = told.Truncate(time.Second)
					}
					if d := up.seen()[1].at.Sub(told); d < 0 || d > 2*time.Second {
						t.Errorf("sent again %v after the time told", d)
					}
				}
			})
		})
	}
}

func TestAHonoredFailureIsSentAgainNeverEarlierThanTold(t *testing.T) {
	for _, status := range []int{500, 502, 504, 408} {
		synctest.Test(t, func(t *testing.T) {
			up := scripted(says(status, "", "Retry-After", "42"), says(200, ""))
			wantOutcome(t, benchFor(t, up).Invoke(within(t, 2*time.Minute), honoredCall()), outcome{Final, Answered, 200})
			if d := up.seen()[1].at.Sub(up.seen()[0].at); d < 42*time.Second {
				t.Errorf("%d: sent again after %v", status, d)
			}
		})
	}
}

func TestRepetitionsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		moments := map[time.Duration]bool{}
		for range 20 {
			up := scripted(says(503, "", "Retry-After", "5"), says(200, ""))
			benchFor(t, up).Invoke(within(t, time.Minute), call())
			moments[up.seen()[1].at.Sub(up.seen()[0].at)] = true
		}
		if len(moments) < 10 {
			t.Errorf("20 calls were sent again at %d moments", len(moments))
		}
	})
}

func TestLimitPausesTheWholeOrganisation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(saysCode(429, "too.many.requests.retry.after", "Retry-After", "30"), says(200, ""))
		b := benchFor(t, up)
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			wantOutcome(t, b.Invoke(within(t, 2*time.Minute), call()), outcome{Final, Answered, 200})
		})
		synctest.Wait()
		for range 3 { // others
			wg.Go(func() {
				wantOutcome(t, b.Invoke(within(t, 2*time.Minute), call()), outcome{Final, Answered, 200})
			})
		}
		wg.Wait()
		wantCount(t, up, 5)
		for _, a := range up.seen()[1:] {
			if d := a.at.Sub(start); d < 30*time.Second || d > 32*time.Second {
				t.Errorf("one was sent after %v", d)
			}
		}
	})
}

func TestAnUnavailableUpstreamPausesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(says(503, "", "Retry-After", "30")))
		b.Policy.Attempts = 1
		b.Invoke(within(t, time.Minute), call())
		if d, paused := b.Pause.Remaining(time.Now()); paused {
			t.Errorf("paused for %v", d)
		}
	})
}

func TestLimitPastTheDeadlineIsPassedOnAtOnce(t *testing.T) {
	for _, after := range []string{"60", "86400", "99999999999999999999"} {
		for _, status := range []int{429, 503} {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				up := scripted(says(status, `{"m":1}`, "Retry-After", after))
				reply := benchFor(t, up).Invoke(within(t, time.Minute), call())
				wantOutcome(t, reply, outcome{NotRun, Answered, status})
				if reply.Header.Get("Retry-After") != after || string(reply.Body) != `{"m":1}` || time.Since(start) != 0 {
					t.Errorf("%+v after %v", reply, time.Since(start))
				}
				wantCount(t, up, 1)
			})
		}
	}
}

func TestLongPauseRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, ""))
		b := benchFor(t, up)
		start := time.Now()
		b.Pause.Until(start.Add(10 * time.Minute))

		reply := b.Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{NotRun, Paused, 0})
		var paused *PausedError
		if !errors.As(reply.Err, &paused) || !paused.Until.Equal(start.Add(10*time.Minute)) {
			t.Errorf("%+v", reply)
		}
		if _, err := b.Ready(t.Context(), start.Add(time.Minute), ""); !errors.As(err, &paused) || !paused.Until.Equal(start.Add(10*time.Minute)) {
			t.Errorf("Ready = %v", err)
		}
		if b.login.count() != 0 {
			t.Error("a token was fetched for nothing")
		}
		r := honoredCall()
		r.Resumed = true
		wantOutcome(t, b.Invoke(within(t, time.Minute), r), outcome{Unknown, Paused, 0})
		if time.Since(start) != 0 {
			t.Errorf("it took %v", time.Since(start))
		}
		wantCount(t, up, 0)

		// What can wait, waits before it is claimed.
		if _, err := b.Ready(t.Context(), start.Add(10*time.Minute), ""); err != nil || time.Since(start) != 10*time.Minute {
			t.Errorf("Ready for a later deadline = %v after %v", err, time.Since(start))
		}
	})
}

func TestPauseThatGrowsTooLongEndsAWaitingCallWithTheLastAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const whole = `{"m":"a body that is not all kept"}`
		up := scripted(func(r *http.Request) (*http.Response, error) {
			resp, err := says(503, "", "Retry-After", "5")(r)
			resp.Body = &closable{Reader: bytes.NewReader([]byte(whole)), closed: func() {}}
			return resp, err
		})
		b := benchFor(t, up)
		b.Policy.MaxBody = 4
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { b.Pause.Until(start.Add(time.Hour)) })
		reply := b.Invoke(within(t, 30*time.Second), call())
		wantOutcome(t, reply, outcome{NotRun, Answered, 503})
		wantCount(t, up, 1)
		wantWhole(t, reply, whole)
	})
}

func TestRejectionWithALongBodyIsClosedIfThereIsNoNewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole := string(bytes.Repeat([]byte(" "), 10)) + platformBody(401, "bad.credentials")
		closes := 0
		b := benchFor(t, scripted(func(r *http.Request) (*http.Response, error) {
			connected(r)
			resp := answer(401, "")
			resp.Body = &closable{Reader: bytes.NewReader([]byte(whole)), closed: func() { closes++ }}
			return resp, nil
		}))
		b.Policy.MaxBody = 5
		b.login.answer = func(n int, _ *http.Request) (*http.Response, error) {
			if n > 1 {
				return answer(503, ""), nil
			}
			return grantAnswer(n, 86400), nil
		}
		wantOutcome(t, b.Invoke(within(t, time.Minute), honoredCall()), outcome{NotRun, NoToken, 0})
		if closes != 1 {
			t.Errorf("closed %d times", closes)
		}
	})
}

func TestDiscardedAnswersAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := 0
		long := func(status int, header ...string) step {
			return func(r *http.Request) (*http.Response, error) {
				connected(r)
				open++
				resp := answer(status, "", header...)
				resp.Body = &closable{Reader: bytes.NewReader(make([]byte, 100)), closed: func() { open-- }}
				return resp, nil
			}
		}
		for _, s := range [][]step{
			{long(500), says(200, "")},
			{long(401), says(200, "")},
			{long(503, "Retry-After", "1"), long(429, "Retry-After", "1"), says(200, "")},
			{long(500)}, // gives up
			{long(409)},
			{drops, long(409), says(200, "")},
		} {
			for _, res := range []Resolution{{}, {Answer: &Reply{Fate: Final}}} {
				b := benchFor(t, scripted(s...))
				b.Policy.MaxBody = 10
				hook := &asked{res: res}
				if reply := b.Invoke(within(t, time.Minute), conflicting(hook)); reply.Rest != nil || open != 0 {
					t.Errorf("%d left open, %+v", open, reply)
				}
			}
		}
	})
}

// closable counts what closes it, and fails when read afterwards.
type closable struct {
	io.Reader
	closed func()
	done   bool
}

func (c *closable) Read(p []byte) (int, error) {
	if c.done {
		return 0, http.ErrBodyReadAfterClose
	}
	return c.Reader.Read(p)
}

func (c *closable) Close() error {
	if !c.done {
		c.done = true
		c.closed()
	}
	return nil
}

// wantWhole reads an answer to its end and closes it.
func wantWhole(t *testing.T, reply Reply, want string) {
	t.Helper()
	if reply.Rest == nil {
		t.Fatalf("no rest: %+v", reply)
	}
	rest, err := io.ReadAll(reply.Rest)
	if got := string(reply.Body) + string(rest); err != nil || got != want {
		t.Errorf("read %.60q (%d bytes), %v", got, len(got), err)
	}
	if err := reply.Rest.Close(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
