package genesys

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAnswerIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(201, `{"ok":true}`, "ININ-Correlation-Id", "c-1"))
		reply := benchFor(t, up).Invoke(within(t, time.Minute), call())
		wantOutcome(t, reply, outcome{Final, Answered, 201})
		if string(reply.Body) != `{"ok":true}` || reply.Rest != nil || reply.Attempts != 1 || reply.Header.Get("ININ-Correlation-Id") != "c-1" {
			t.Errorf("%+v", reply)
		}
		wantCount(t, up, 1)
	})
}

func TestEveryAttemptHasTheSameKeyBodyAndHeader(t *testing.T) {
	for _, body := range []string{`{"n":9007199254740993}`, ""} {
		synctest.Test(t, func(t *testing.T) {
			up := scripted(drops, says(500, ""), says(503, "", "Retry-After", "1"), says(200, "{}"))
			r := honoredCall()
			r.Body = []byte(body)
			r.Header.Set("Idempotency-Key", "the caller's own")
			r.Header.Set("X-Idempotency-Key", "x-1")
			r.Header.Set("X-App", "1")
			wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), r), outcome{Final, Answered, 200})
			wantCount(t, up, 4)
			first := up.seen()[0]
			for _, a := range up.seen() {
				if a.key != "k-1" || a.body != body || a.length != int64(len(body)) || a.method != "POST" || a.token != "token-1" {
					t.Errorf("%+v", a)
				}
				if a.header.Get("X-App") != "1" || len(a.header) != len(first.header) {
					t.Errorf("header %v, at first %v", a.header, first.header)
				}
			}
		})
	}
}

// What a request may have come to before the upstream knows no key.
var ambiguous = map[string]struct {
	step step
	want outcome // in the end
}{
	"executed, then dropped":   {drops, outcome{Unknown, Broken, 0}},
	"timeout":                  {hangs, outcome{Unknown, TimedOut, 0}},
	"truncated body":           {cut(200), outcome{Unknown, Broken, 200}},
	"truncated body of a 503":  {cut(503), outcome{Unknown, Broken, 503}},
	"body that never ends":     {trickles, outcome{Unknown, TimedOut, 200}},
	"500":                      {says(500, "e"), outcome{Unknown, Answered, 500}},
	"502":                      {says(502, "e"), outcome{Unknown, Answered, 502}},
	"503":                      {says(503, "e"), outcome{Unknown, Answered, 503}},
	"504":                      {says(504, "e"), outcome{Unknown, Answered, 504}},
	"504 of the platform":      {saysCode(504, "request.timeout"), outcome{Unknown, Answered, 504}},
	"408":                      {says(408, "e"), outcome{Unknown, Answered, 408}},
	"429 of the remote's":      {says(429, "e"), outcome{Unknown, Answered, 429}},
	"500 with a Retry-After":   {says(500, "e", "Retry-After", "1"), outcome{Unknown, Answered, 500}},
	"408 with a Retry-After":   {says(408, "e", "Retry-After", "1"), outcome{Unknown, Answered, 408}},
	"599, which has no name":   {says(599, "e"), outcome{Unknown, Answered, 599}},
	"REFUSED_STREAM, too late": {refusesTooLate, outcome{Unknown, Broken, 200}},
}

func refusesTooLate(r *http.Request) (*http.Response, error) {
	resp, err := cut(200)(r)
	resp.Body = failingBody{errors.New("stream error: stream ID 1; REFUSED_STREAM; received from peer")}
	return resp, err
}

type failingBody struct{ err error }

func (f failingBody) Read([]byte) (int, error) { return 0, f.err }
func (f failingBody) Close() error             { return nil }

func TestIgnoredIsSentOnceOnceAByteMayHaveLeft(t *testing.T) {
	for what, c := range ambiguous {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := scripted(c.step, says(200, "{}"))
				reply := benchFor(t, up).Invoke(within(t, 10*time.Minute), call())
				wantOutcome(t, reply, c.want)
				if c.want.cause == Answered && len(reply.Body) == 0 {
					t.Error("the answer's body is gone")
				}
				if reply.Attempts != 1 {
					t.Errorf("%d attempts", reply.Attempts)
				}
				wantCount(t, up, 1)
			})
		})
	}
}

func TestHonoredIsSentAgainToTheAnswer(t *testing.T) {
	for what, c := range ambiguous {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := scripted(c.step, c.step, says(200, "{}"))
				reply := benchFor(t, up).Invoke(within(t, 10*time.Minute), honoredCall())
				wantOutcome(t, reply, outcome{Final, Answered, 200})
				if reply.Attempts != 3 {
					t.Errorf("%d attempts", reply.Attempts)
				}
				wantCount(t, up, 3)
			})
		})
	}
}

func TestHonoredGivesUpWithAnUnknownFate(t *testing.T) {
	for what, c := range ambiguous {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := scripted(c.step)
				reply := benchFor(t, up).Invoke(within(t, 10*time.Minute), honoredCall())
				want := c.want
				if want.cause == Answered {
					want.cause = GaveUp
				}
				wantOutcome(t, reply, want)
				if reply.Attempts != 4 || reply.Rest != nil {
					t.Errorf("%+v", reply)
				}
				wantCount(t, up, 4)
			})
		})
	}
}

func TestTheLastFailureTellsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := benchFor(t, scripted(says(500, ""), hangs, cut(200), drops))
		wantOutcome(t, b.Invoke(within(t, 10*time.Minute), honoredCall()), outcome{Unknown, Broken, 0})
		b = benchFor(t, scripted(drops, drops, drops, hangs))
		wantOutcome(t, b.Invoke(within(t, 10*time.Minute), honoredCall()), outcome{Unknown, TimedOut, 0})
	})
}

func TestWhatWasNotWrittenIsSentAgainAndEndsNotRun(t *testing.T) {
	for _, r := range []Request{call(), honoredCall()} {
		synctest.Test(t, func(t *testing.T) {
			up := scripted(noDial)
			reply := benchFor(t, up).Invoke(within(t, time.Minute), r)
			wantOutcome(t, reply, outcome{NotRun, Unreachable, 0})
			wantCount(t, up, 4)

			up = scripted(noDial, noDial, says(200, "{}"))
			reply = benchFor(t, up).Invoke(within(t, time.Minute), r)
			wantOutcome(t, reply, outcome{Final, Answered, 200})
			wantCount(t, up, 3)
		})
	}
}

func TestIgnoredEndsWhenADialFailureIsFollowedByAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(noDial, drops, says(200, "{}"))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), call()), outcome{Unknown, Broken, 0})
		wantCount(t, up, 2)
	})
}

func TestNotRunAfterAnAmbiguousAttemptStaysUnknown(t *testing.T) {
	for what, c := range map[string]struct {
		last step
		want outcome
	}{
		"unreachable":    {noDial, outcome{Unknown, Unreachable, 0}},
		"403":            {saysCode(403, "missing.permissions"), outcome{Unknown, Answered, 403}},
		"404":            {says(404, ""), outcome{Unknown, Answered, 404}},
		"401":            {saysCode(401, "bad.credentials"), outcome{Unknown, Answered, 401}},
		"409":            {says(409, ""), outcome{Unknown, Conflicted, 409}},
		"503, for later": {says(503, "", "Retry-After", "1"), outcome{Unknown, Answered, 503}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := scripted(drops, c.last)
				wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), honoredCall()), c.want)
			})
		})
	}
}

func TestAnswerAfterAnAmbiguousAttemptIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := honoredCall()
		r.Resumed = true
		wantOutcome(t, benchFor(t, scripted(drops, says(201, ""))).Invoke(within(t, time.Minute), r), outcome{Final, Answered, 201})
	})
}

func TestBackoffGrowsAtRandomAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 8
		gaps := make([][]time.Duration, n-1)
		for range 200 {
			up := scripted(drops)
			b := benchFor(t, up)
			b.Policy = Policy{Attempts: n, Backoff: 100 * time.Millisecond, BackoffMax: time.Second}
			b.Invoke(within(t, time.Hour), honoredCall())
			seen := up.seen()
			if len(seen) != n {
				t.Fatalf("%d attempts", len(seen))
			}
			for i := range gaps {
				gaps[i] = append(gaps[i], seen[i+1].at.Sub(seen[i].at))
			}
		}
		for i, g := range gaps {
			bound := min(100*time.Millisecond<<i, time.Second)
			least, most := slices.Min(g), slices.Max(g)
			if most > bound || most < bound*8/10 || least > bound*2/10 {
				t.Errorf("repetition %d after %v to %v, want all up to %v", i+1, least, most, bound)
			}
		}
	})
}

func TestJitterDoesNotOverflow(t *testing.T) {
	for n := 1; n < 200; n++ {
		if d := jitter(time.Hour, 2*time.Hour, n); d < 0 || d > 2*time.Hour {
			t.Fatalf("attempt %d: %v", n, d)
		}
	}
}

func TestAttemptsAreBounded(t *testing.T) {
	for n, want := range map[int]int{0: 4, 1: 1, 2: 2, 7: 7, -1: 4} {
		synctest.Test(t, func(t *testing.T) {
			for _, s := range []step{drops, noDial, says(503, "", "Retry-After", "1"), saysCode(429, "too.many.requests")} {
				up := scripted(s)
				b := benchFor(t, up)
				b.Policy.Attempts = n
				if reply := b.Invoke(within(t, time.Hour), honoredCall()); reply.Attempts != want {
					t.Errorf("Attempts %d: told %d", n, reply.Attempts)
				}
				wantCount(t, up, want)
			}
		})
	}
}

func TestEachAttemptHasItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, s := range []step{hangs, trickles} {
			start := time.Now()
			b := benchFor(t, scripted(s))
			b.Invoke(within(t, time.Hour), call())
			if d := time.Since(start); d != 65*time.Second {
				t.Errorf("by default it took %v", d)
			}
			start = time.Now()
			b.Policy.Timeout = 3 * time.Second
			if reply := b.Invoke(within(t, time.Hour), call()); !errors.Is(reply.Err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
				t.Errorf("%v after %v", reply.Err, time.Since(start))
			}
		}
	})
}

func TestDeadlineBoundsTheWholeCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		up := scripted(hangs)
		reply := benchFor(t, up).Invoke(within(t, 100*time.Second), honoredCall())
		wantOutcome(t, reply, outcome{Unknown, TimedOut, 0})
		if d := time.Since(start); d != 100*time.Second {
			t.Errorf("took %v", d)
		}
		wantCount(t, up, 2)

		// No repetition is begun that the deadline would end before it starts.
		start = time.Now()
		up = scripted(drops)
		b := benchFor(t, up)
		b.Policy = Policy{Attempts: 1000, Backoff: 10 * time.Second, BackoffMax: 10 * time.Second}
		wantOutcome(t, b.Invoke(within(t, time.Minute), honoredCall()), outcome{Unknown, Broken, 0})
		if d := time.Since(start); d > time.Minute {
			t.Errorf("took %v", d)
		}
		for _, a := range up.seen() {
			if a.at.Sub(start) >= time.Minute {
				t.Errorf("one began after %v", a.at.Sub(start))
			}
		}
	})
}

func TestWithoutADeadlineTheTimeoutOfOneAttemptBoundsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := benchFor(t, scripted(says(503, "", "Retry-After", "40")))
		wantOutcome(t, b.Invoke(t.Context(), call()), outcome{NotRun, Answered, 503})
		if d := time.Since(start); d < 40*time.Second || d > 65*time.Second {
			t.Errorf("took %v", d)
		}
	})
}

func TestCancellingEndsTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, c := range map[string]struct {
			step step
			want outcome
		}{
			"while it is sent":  {hangs, outcome{Unknown, Broken, 0}},
			"while it is read":  {trickles, outcome{Unknown, Broken, 200}},
			"while it waits":    {says(503, "", "Retry-After", "60"), outcome{Unknown, Answered, 503}},
			"while none is had": {noDial, outcome{Unknown, Unreachable, 0}},
		} {
			b := benchFor(t, scripted(drops, c.step))
			b.Policy = Policy{Attempts: 100, Backoff: time.Millisecond, BackoffMax: time.Hour}
			ctx, cancel := context.WithCancel(within(t, time.Hour))
			start := time.Now()
			time.AfterFunc(5*time.Second, cancel)
			reply := b.Invoke(ctx, honoredCall())
			if d := time.Since(start); d != 5*time.Second {
				t.Errorf("%s: took %v", what, d)
			}
			wantOutcome(t, reply, c.want)
		}
	})
}

func TestEndedContextSendsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(200, ""))
		b := benchFor(t, up)
		b.login.took = time.Minute
		reply := b.Invoke(within(t, time.Second), call())
		wantOutcome(t, reply, outcome{NotRun, Unreachable, 0})
		wantCount(t, up, 0)
	})
}
