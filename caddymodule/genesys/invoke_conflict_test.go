package genesys

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// asked is a Conflict hook that counts.
type asked struct {
	n   int
	res Resolution
	err error
}

func (a *asked) resolve(context.Context) (Resolution, error) {
	a.n++
	return a.res, a.err
}

func conflicting(a *asked) Request {
	r := honoredCall()
	r.Conflict = a.resolve
	return r
}

func TestConflictIsPassedOnIfNobodyResolvesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for what, hook := range map[string]*asked{
			"no hook": nil, "zero resolution": {}, "an error": {err: errors.New("the store is down"), res: Resolution{}},
		} {
			up := scripted(says(409, `{"m":1}`, "X-N", "1"), says(200, ""))
			b := benchFor(t, up)
			r := honoredCall()
			if hook != nil {
				r = conflicting(hook)
			}
			reply := b.Invoke(within(t, time.Minute), r)
			wantOutcome(t, reply, outcome{NotRun, Conflicted, 409})
			wantCount(t, up, 1)
			if string(reply.Body) != `{"m":1}` || reply.Header.Get("X-N") != "1" {
				t.Errorf("%s: %+v", what, reply)
			}
			if hook != nil && hook.n != 1 {
				t.Errorf("%s: asked %d times", what, hook.n)
			}
			if hook != nil && hook.err != nil && !strings.Contains(b.log.String(), "the store is down") {
				t.Errorf("not logged: %s", b.log)
			}
		}
	})
}

func TestConflictGoesOnUnderANewKeyAndBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, body := range []string{`{"k":"k-2"}`, ""} {
			hook := &asked{res: Resolution{Key: "k-2", Body: []byte(body)}}
			up := scripted(says(409, ""), drops, says(200, "{}"))
			b := benchFor(t, up)
			start := time.Now()
			wantOutcome(t, b.Invoke(within(t, time.Minute), conflicting(hook)), outcome{Final, Answered, 200})
			wantCount(t, up, 3)
			s := up.seen()
			if s[0].key != "k-1" || s[0].body != string(call().Body) {
				t.Errorf("first %+v", s[0])
			}
			for _, a := range s[1:] {
				if a.key != "k-2" || a.body != body || a.length != int64(len(body)) {
					t.Errorf("then %+v", a)
				}
			}
			if !s[1].at.Equal(start) || hook.n != 1 {
				t.Errorf("asked %d times, sent after %v", hook.n, s[1].at.Sub(start))
			}
		}
	})
}

func TestNewKeyIsTriedAtTheLastAttemptToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(says(409, ""), says(200, ""))
		b := benchFor(t, up)
		b.Policy.Attempts = 1
		hook := &asked{res: Resolution{Key: "k-2"}}
		wantOutcome(t, b.Invoke(within(t, time.Minute), conflicting(hook)), outcome{Final, Answered, 200})
		wantCount(t, up, 2)
	})
}

func TestSecondConflictIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &asked{res: Resolution{Key: "k-2"}}
		up := scripted(says(409, ""), says(409, ""), says(200, ""))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), conflicting(hook)), outcome{NotRun, Conflicted, 409})
		wantCount(t, up, 2)
		if hook.n != 1 {
			t.Errorf("asked %d times", hook.n)
		}
	})
}

func TestAnswerThatSomebodyElseGotIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		theirs := &Reply{Fate: Final, Status: 201, Body: []byte("theirs")}
		hook := &asked{res: Resolution{Answer: theirs, Key: "k-2"}}
		up := scripted(says(409, ""), says(200, ""))
		reply := benchFor(t, up).Invoke(within(t, time.Minute), conflicting(hook))
		wantOutcome(t, reply, outcome{Final, Answered, 201})
		if string(reply.Body) != "theirs" {
			t.Errorf("%+v", reply)
		}
		wantCount(t, up, 1)
	})
}

// A 409 is most likely the upstream's word for the earlier attempt that still
// runs. Another key would run the action a second time.
func TestConflictWithAnEarlierAttemptNeverGetsANewKey(t *testing.T) {
	for what, steps := range map[string][]step{
		"of a call that was resumed": nil,
		"after a reset":              {drops},
		"after a timeout":            {hangs},
		"after a 500":                {says(500, "")},
		"after a cut body":           {cut(200)},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := &asked{res: Resolution{Key: "k-2", Answer: &Reply{Status: 299}}}
				r := conflicting(hook)
				r.Resumed = steps == nil

				up := scripted(append(steps, says(409, ""))...)
				wantOutcome(t, benchFor(t, up).Invoke(within(t, 10*time.Minute), r), outcome{Unknown, Conflicted, 409})
				wantCount(t, up, 4)

				again := scripted(append(steps, says(409, ""), says(409, ""), says(200, "{}"))...)
				wantOutcome(t, benchFor(t, again).Invoke(within(t, 10*time.Minute), r), outcome{Final, Answered, 200})
				for _, a := range append(up.seen(), again.seen()...) {
					if a.key != "k-1" {
						t.Errorf("sent under %q", a.key)
					}
				}
				if hook.n != 0 {
					t.Errorf("asked %d times", hook.n)
				}
			})
		})
	}
}

func TestConflictAfterWhatDidNotRunIsResolved(t *testing.T) {
	for what, s := range map[string]step{
		"unreachable": noDial,
		"limited":     saysCode(429, "too.many.requests"),
		"rejected":    saysCode(401, "bad.credentials"),
		"unavailable": says(503, "", "Retry-After", "1"),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hook := &asked{res: Resolution{Key: "k-2"}}
				up := scripted(s, says(409, ""), says(200, ""))
				wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), conflicting(hook)), outcome{Final, Answered, 200})
				if hook.n != 1 || up.seen()[2].key != "k-2" {
					t.Errorf("asked %d times, sent %+v", hook.n, up.seen())
				}
			})
		})
	}
}

func TestConflictOfAnIgnoredKeyIsTheActionsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hook := &asked{res: Resolution{Key: "k-2"}}
		r := call()
		r.Conflict = hook.resolve
		up := scripted(says(409, "{}"), says(200, ""))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), r), outcome{Final, Answered, 409})
		wantCount(t, up, 1)
		if hook.n != 0 {
			t.Error("asked")
		}
	})
}

func TestRetryAfterOfAConflictIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := scripted(drops, says(409, "", "Retry-After", "20"), says(200, ""))
		wantOutcome(t, benchFor(t, up).Invoke(within(t, time.Minute), honoredCall()), outcome{Final, Answered, 200})
		if d := up.seen()[2].at.Sub(up.seen()[1].at); d < 20*time.Second {
			t.Errorf("sent again after %v", d)
		}
	})
}
