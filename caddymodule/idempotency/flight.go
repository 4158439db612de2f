package idempotency

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// flight is a call under way in this process, and what its callers wait for.
type flight struct {
	id          ID
	fingerprint Fingerprint
	callers     atomic.Int64
	ours        atomic.Bool // the call was claimed here
	unrecorded  atomic.Bool // its outcome could not be recorded so far; set before done

	unanswered event // it is clear that no answer is recorded, if that is before bound and done
	bound      event // the call is claimed under fingerprint, here or by another process
	followed   event // the call is found to be under way in another process
	done       event // out and err are set

	// own is the context of the caller on whose goroutine the call flies, which counts
	// among callers until then; nil: there is none, or it has alighted. For that
	// goroutine alone.
	own context.Context

	held     sync.Mutex
	claim    *Record       // guarded by held; the claim under which the call is being sent
	renewal  *time.Timer   // guarded by held; see renew.go
	renewing chan struct{} // guarded by held; closed when the renewal under way is over; nil: none

	key      string // of the call's record; to be read once bound has happened
	deferred bool   // the call was handed over; to be read once bound has happened

	mu       sync.Mutex
	desert   context.CancelCauseFunc // guarded by mu; ends Prepare, while that is under way
	freed    bool                    // guarded by mu; it is clear that the call did not run
	promised bool                    // guarded by mu; somebody was told that the answer can be asked for
	out      Outcome                 // guarded by mu until done; where err is nil
	err      error                   // guarded by mu until done
	rest     io.ReadCloser           // guarded by mu; the first taker has it
}

func newFlight(id ID, fp Fingerprint) *flight {
	return &flight{id: id, fingerprint: fp}
}

// waited returns how many callers wait for f. Only the goroutine that flies it calls
// waited.
func (f *flight) waited() int64 {
	n := f.callers.Load()
	if f.own != nil && f.own.Err() != nil {
		n--
	}
	return n
}

// admit decides whether a caller that is not the first may wait for f. As long
// as nothing has been claimed, f may turn out to be the wrong request for its
// key, and the caller the right one. One that is in a hurry waits for nothing
// but a look into the store, or a claim that takes its place.
func (f *flight) admit(ctx context.Context, expired <-chan time.Time, call Call, hurry bool) error {
	var unanswered <-chan struct{}
	if hurry {
		unanswered = f.unanswered.signal()
	}
	select {
	case <-f.bound.signal():
	case <-f.done.signal():
	case <-unanswered:
	case <-expired:
		return ErrInUse
	case <-ctx.Done():
		return ctx.Err()
	}
	bound, done := f.bound.has(), f.done.has()
	switch {
	case f.fingerprint == call.Fingerprint && hurry && !done:
		return ErrInUse
	case f.fingerprint == call.Fingerprint:
		return nil
	case bound:
		return ErrKeyReused
	case done:
		return errAgain
	default:
		return ErrInUse
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// bind notes that the call is claimed under the flight's fingerprint, by rec. Only
// the goroutine that flies it calls bind and follow.
func (f *flight) bind(rec *Record) {
	if !f.bound.has() {
		f.key, f.deferred = rec.Key, rec.Deferred != nil
		f.bound.happen()
	}
}

// beginPreparing has desert called when the last caller leaves, from now on until
// endPreparing.
func (f *flight) beginPreparing(desert context.CancelCauseFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.desert = desert
	if f.callers.Load() == 0 {
		desert(errAgain)
	}
}

func (f *flight) endPreparing() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.desert = nil
}

// deserted is called when the last caller has left. One that comes later finds
// out that it has to begin anew.
func (f *flight) deserted() {
	f.mu.Lock()
	if f.desert != nil {
		f.desert(errAgain)
	}
	f.mu.Unlock()
	f.dropRest()
}

// follow notes that the call is under way in another process, so that all
// callers here repeat it.
func (f *flight) follow(rec *Record) {
	f.followed.happen() // first: see promise
	f.bind(rec)
}

// finish tells the callers, present and to come, how the flight ended.
func (f *flight) finish(out *Outcome, err error) {
	f.mu.Lock()
	f.err = err
	if out != nil {
		f.out, f.rest = *out, out.Rest
		f.out.tooLarge, f.out.Rest = f.rest != nil, nil
	}
	f.mu.Unlock()
	f.done.happen()
	if f.waited() == 0 {
		f.dropRest()
	}
}

// outcome returns what to tell one caller of a flight that is done.
func (f *flight) outcome(first bool) (*Outcome, error) {
	if f.err != nil {
		return nil, f.err
	}
	out := f.out
	if !first && out.Manner == Executed {
		out.Manner = Shared
	}
	if out.tooLarge {
		// Only one caller can have an answer that was not kept.
		if out.Rest = f.takeRest(); out.Rest == nil {
			switch out.Fate {
			case Kept:
				return nil, &ResultUnavailableError{out.ID, out.Key, out.Answer.Status}
			case Freed:
				return nil, ErrInUse // it did not run, and may be tried again
			case Unsure:
				out.Answer = nil
			}
		}
	}
	return &out, nil
}

// takeRest returns the unread rest of the answer to the first who asks.
func (f *flight) takeRest() io.ReadCloser {
	f.mu.Lock()
	defer f.mu.Unlock()
	rest := f.rest
	f.rest = nil
	return rest
}

// dropRest closes the rest of an answer that nobody waits for any more.
func (f *flight) dropRest() {
	if rest := f.takeRest(); rest != nil {
		_ = rest.Close()
	}
}
