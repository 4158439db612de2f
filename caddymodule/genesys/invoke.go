package genesys

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"genesys-sidecar/caddymodule/pacing"
)

// Policy is how a data action is sent. A zero field means its default.
type Policy struct {
	Attempts   int           // how often at the most; 4
	Backoff    time.Duration // before the first repetition, at the most; 250ms
	BackoffMax time.Duration // before any repetition, at the most; 10s
	Timeout    time.Duration // for one attempt, body included; 65s
	MaxBody    int64         // how much of an answer is kept, in bytes; 8 MiB
}

// DefaultPolicy has the values that zero fields of a Policy stand for. The
// platform itself gives an action 60 seconds.
var DefaultPolicy = Policy{
	Attempts:   4,
	Backoff:    250 * time.Millisecond,
	BackoffMax: 10 * time.Second,
	Timeout:    65 * time.Second,
	MaxBody:    8 << 20,
}

func (p Policy) withDefaults() Policy {
	d := DefaultPolicy
	if p.Attempts > 0 {
		d.Attempts = p.Attempts
	}
	if p.Backoff > 0 {
		d.Backoff = p.Backoff
	}
	if p.BackoffMax > 0 {
		d.BackoffMax = p.BackoffMax
	}
	if p.Timeout > 0 {
		d.Timeout = p.Timeout
	}
	if p.MaxBody > 0 {
		d.MaxBody = p.MaxBody
	}
	return d
}

// Invoker sends data actions of one organisation. It is safe for concurrent
// use.
type Invoker struct {
	// Transport sends one attempt. The token to use is in the request's
	// context (TokenFrom). It must not send a request twice, and must call
	// GotConn of an httptrace.ClientTrace before it writes: a request for
	// which it does not counts as never sent.
	Transport http.RoundTripper

	Tokens *Tokens
	Pause  *Pause
	Pacer  *pacing.Pacer // nil: nothing is limited
	Policy Policy
	Log    *slog.Logger

	// Forbidden is called with a 403's error body, which tells the permission
	// that the OAuth client's roles lack.
	Forbidden func(ErrorBody)
}

// Request is a data action to send.
type Request struct {
	Method string
	URL    *url.URL
	Header http.Header // end-to-end headers, in a map that is Invoke's from now on; the key is added
	Body   []byte
	Key    string

	// Honored says that the upstream is known to honor Key.
	Honored bool

	// Resumed says that the request may have been sent before under Key.
	Resumed bool

	// Scope is whose call it is, for the pacer.
	Scope string

	// Admission is what Ready has returned for it. The first attempt uses it up.
	// nil: Ready was not called.
	Admission *Admission

	// Conflict is called when the upstream has something against the key and
	// is not just busy with an earlier attempt. It may return an answer that
	// somebody else has got meanwhile, or another key and body to go on with.
	Conflict func(context.Context) (Resolution, error)
}

// Resolution is what to do about a conflict; the zero Resolution passes it on.
type Resolution struct {
	Answer *Reply
	Key    string
	Body   []byte
}

// Cause is why a Reply has no answer of the upstream to pass on.
type Cause uint8

const (
	Answered    Cause = iota // there is an answer
	Unreachable              // nothing could be sent
	Broken                   // the connection was lost, or the answer was cut
	TimedOut                 // there was no answer in time
	GaveUp                   // the last of several attempts failed; see Reply.Status
	Conflicted               // the upstream has something against the key
	Paused                   // the organisation is paused, or its budget used up, for too long
	NoToken                  // there is no token; see Reply.Err
)

// Reply is what came of a data action.
type Reply struct {
	Fate     Fate
	Cause    Cause
	Status   int // the upstream's last; 0: none
	Header   http.Header
	Body     []byte
	Rest     *Rest // see Policy.MaxBody; nil: Body is whole
	Err      error // for other Causes than Answered and Conflicted
	Attempts int

	// Journal has the attempts, in their order.
	Journal []Attempt
}

// Invoke sends r until its fate is known, or as far as sending it again could
// not run it twice. It returns at the deadline of ctx at the latest; while an attempt
// is under way, its being cancelled is for the Transport to heed or not. It keeps
// nothing of ctx but for Reply.Rest, whose reading ctx ends as well.
func (i *Invoker) Invoke(ctx context.Context, r Request) Reply {
	p := i.Policy.withDefaults()
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(p.Timeout)
	}

	reply := Reply{Fate: NotRun}
	last := NotRun      // the fate of the last attempt, by itself
	unsure := r.Resumed // an earlier attempt may have run
	renewed := false
	admitted := r.Admission.use()
	j := journal{since: time.Now().Add(-admitted.took())}
	var admission *Admission
	defer func() { admission.leave() }() // also where an attempt panics
	for n := 1; ; n++ {
		var err error
		admission, err = i.admit(ctx, deadline, r.Scope, admitted)
		admitted = nil
		if err != nil {
			if n == 1 || reply.Status == http.StatusUnauthorized && !unsure {
				closeRest(reply)
				attempts := reply.Attempts
				reply = refusal(err)
				reply.Attempts = attempts
			}
			break
		}

		closeRest(reply)
		var a attempt
		var v verdict
		j.begin(time.Now(), admission)
		tok := admission.token
		a, reply, v = i.try(ctx, p, r, admission, n)
		j.end(a, v, time.Now())
		admission.end(a)
		last = v.fate
		if v.limited {
			i.Pacer.Hold(v.after)
			if v.hasAfter {
				i.Pause.Until(time.Now().Add(v.after))
			}
		}
		if a.status == http.StatusForbidden && a.isPlatform && RefusedBeforeRunning(a.status, a.errorBody.Code) {
			i.forbidden(a.errorBody, tok)
		}

		if v.conflict {
			if unsure {
				v.again = true // most likely the earlier attempt still runs
				closeRest(reply)
				reply.Cause, reply.Rest = Conflicted, nil
			} else if resolved, done := i.resolve(ctx, &r, reply); done {
				resolved.Journal = j.attempts
				return resolved
			} else {
				continue // under another key
			}
		}
		if v.fate == Unknown {
			unsure = true
		}
		if v.renew {
			i.Tokens.Invalidate(tok)
			if !renewed {
				renewed = true
				continue
			}
		}
		if !v.again || n >= p.Attempts {
			break
		}
		wait := jitter(p.Backoff, p.BackoffMax, n)
		if v.hasAfter {
			// Never earlier than told, nor all at once. The sum can overflow.
			wait = max(v.after, v.after+rand.N(p.Backoff))
		}
		if time.Now().Add(wait).After(deadline) {
			break
		}
		if !sleep(ctx, wait) {
			break
		}
	}

	reply.Journal = j.attempts
	if unsure && reply.Fate == NotRun {
		reply.Fate = Unknown
	}
	if r.Honored && last == Unknown && reply.Cause == Answered {
		// It says nothing about the action, and sending it again was of no use.
		closeRest(reply)
		reply = Reply{Fate: Unknown, Cause: GaveUp, Status: reply.Status, Attempts: reply.Attempts,
			Journal: reply.Journal, Err: errors.New(http.StatusText(reply.Status))}
	}
	return reply
}

// refusal is the reply to a request that was not sent at all because of err.
func refusal(err error) Reply {
	var paused *PausedError
	var late *pacing.LateError
	if errors.As(err, &paused) || errors.As(err, &late) {
		return Reply{Fate: NotRun, Cause: Paused, Err: err}
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Reply{Fate: NotRun, Cause: Unreachable, Err: err}
	}
	return Reply{Fate: NotRun, Cause: NoToken, Err: err}
}

// resolve asks what to do about a conflict, which reply is. It returns what to
// reply if that is the end of it; else it gives r another key to go on under.
func (i *Invoker) resolve(ctx context.Context, r *Request, reply Reply) (final Reply, done bool) {
	res := Resolution{}
	if r.Conflict != nil {
		var err error
		if res, err = r.Conflict(ctx); err != nil {
			i.Log.Error("resolving a conflict", slog.Any("error", err))
		}
	}
	switch {
	case res.Answer != nil:
		closeRest(reply)
		return *res.Answer, true
	case res.Key != "":
		r.Key, r.Body = res.Key, res.Body
		r.Conflict = nil // once
		return Reply{}, false
	default:
		closeRest(reply)
		reply.Cause, reply.Rest = Conflicted, nil
		return reply, true
	}
}

// forbidden has a token replaced that the platform itself refused with body, so
// that a role that is granted counts from the next call on.
func (i *Invoker) forbidden(body ErrorBody, tok Token) {
	i.Tokens.Renew(tok)
	if i.Forbidden != nil {
		i.Forbidden(body)
	}
}

// jitter returns a random duration up to an exponentially growing bound ("full
// jitter").
func jitter(base, most time.Duration, n int) time.Duration {
	bound := most
	if n < 30 && base<<(n-1) > 0 {
		bound = min(base<<(n-1), most)
	}
	return rand.N(bound + 1)
}

// sleep waits for d, and returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
