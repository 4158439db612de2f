package genesys

import (
	"context"
	"sync/atomic"
	"time"

	"genesys-sidecar/caddymodule/pacing"
)

// Admission is the right to send a data action once: there was no pause, there is
// a token, and a start within the organisation's budget was taken. The nil
// Admission is none.
type Admission struct {
	used   atomic.Bool // by an attempt
	token  Token
	slot   *pacing.Slot
	paused time.Duration // how long it took until there was no pause
	all    time.Duration // how long all of it took
}

// Abandon gives back what the admission holds, unless it has been used. It may be
// called concurrently with the Invoke that uses it.
func (a *Admission) Abandon() {
	if a != nil && a.used.CompareAndSwap(false, true) {
		a.slot.Unused()
	}
}

// use returns what the admission holds for an attempt, or nil where that is
// nothing any more.
func (a *Admission) use() *Admission {
	if a == nil || !a.used.CompareAndSwap(false, true) {
		return nil
	}
	return &Admission{token: a.token, slot: a.slot, paused: a.paused, all: a.all}
}

// took returns how long the admission was waited for.
func (a *Admission) took() time.Duration {
	if a == nil {
		return 0
	}
	return a.all
}

// leave gives back the place that an attempt has taken.
func (a *Admission) leave() {
	if a != nil {
		a.slot.Leave()
	}
}

// end gives back the place that an attempt has taken, and the start as well where
// nothing was sent.
func (a *Admission) end(sent attempt) {
	if sent.err != nil && !sent.written {
		a.slot.Unused()
		return
	}
	a.slot.Leave()
}

// Ready waits until the organisation is not paused, unless it is beyond
// deadline, fetches a token, and waits for a start within the budget on behalf of
// scope. Called before a data action is claimed, it keeps what cannot be sent
// anyway from leaving anything behind. Its errors are those of Tokens.Token,
// Pause.Wait and Pacer.Enter.
//
// The admission is for the Request, or has to be abandoned.
func (i *Invoker) Ready(ctx context.Context, deadline time.Time, scope string) (*Admission, error) {
	return i.admit(ctx, deadline, scope, nil)
}

// IsReady tells whether Ready would return at once, and would have taken nothing
// that may be scarce.
func (i *Invoker) IsReady() bool {
	if i.Pacer.Active() {
		return false
	}
	_, paused := i.Pause.Remaining(time.Now())
	return !paused && i.Tokens.AtHand()
}

// admit is Ready, but that what had was admitted to already is not waited for
// again, unless there is a pause by now.
func (i *Invoker) admit(ctx context.Context, deadline time.Time, scope string, had *Admission) (*Admission, error) {
	began := time.Now()
	a := had
	if a == nil {
		a = new(Admission)
	}
	_, paused := i.Pause.Remaining(began)
	if err := i.Pause.Wait(ctx, deadline); err != nil {
		a.Abandon()
		return nil, err
	}
	if paused {
		a.paused += time.Since(began)
	}
	var err error
	if a.token, err = i.Tokens.Token(ctx); err != nil {
		a.Abandon()
		return nil, err
	}
	if had == nil {
		if a.slot, err = i.Pacer.Enter(ctx, scope, deadline); err != nil {
			return nil, err
		}
		if a.slot.Paced() > 0 {
			// The token may have been replaced in that time.
			if a.token, err = i.Tokens.Token(ctx); err != nil {
				a.Abandon()
				return nil, err
			}
		}
	}
	a.all += time.Since(began)
	return a, nil
}
