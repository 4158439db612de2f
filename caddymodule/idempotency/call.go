package idempotency

import (
	"context"
	"errors"
	"io"
	"time"
)

// Call is one caller's wish to have a request run at most once.
type Call struct {
	// ID names the call's record. It is ignored where Key is empty.
	ID ID

	// Key is the key that the caller brought or that was derived for it. The
	// empty Key marks a keyless call, which adopts an orphan like it or else
	// runs under a key made up for it.
	Key string

	// UpstreamKey is what the upstream is sent, where this call is the one
	// that is sent. It is ignored where Key is empty.
	UpstreamKey string

	// NewID returns the ID that belongs to a made-up key. Keyless calls only.
	NewID func(key string) ID

	// NewUpstreamKey returns what the upstream is sent for a made-up key.
	// Keyless calls only.
	NewUpstreamKey func(key string) string

	// Adoption names the calls that this one may adopt, and be adopted by.
	// Keyless calls only; zero: none.
	Adoption AdoptionID

	// AdoptWindow is how long after its end (or, if later, after its caller
	// was last told that the outcome is unknown, or after a crash) a call may
	// be adopted.
	AdoptWindow time.Duration

	// Present tells whether the caller is still there, where that can be known
	// before the context ends. It must not block. nil: the context says it all.
	// Keyless calls only.
	Present func() bool

	// Asked says that Replay has just had nothing to tell of ID, so that the cache
	// need not be asked again. Nothing depends on it but time.
	Asked bool

	// Stays says that the caller has nothing better to do than to wait until its
	// call has ended, even if its context ends before: Do may use its goroutine for
	// the call then, which spares two switches to others and back. Whether a caller
	// is still there goes by the context all the same, though it counts among the
	// waiters of Limits until then.
	Stays bool

	// Fingerprint tells this request from another under the same key.
	Fingerprint Fingerprint

	// Honored says that the upstream is known to honor UpstreamKey.
	Honored bool

	// Label is what operators know the call by.
	Label Label

	// Retention is how long the answer is kept, from completion.
	Retention time.Duration

	// Wait is how long a duplicate waits for the call that it repeats; 0: not
	// at all. The call's own caller waits until Deadline.
	Wait time.Duration

	// Deadline bounds the whole call, from its start.
	Deadline time.Duration

	// Sender sends the call, where this is the one that is sent.
	Sender Sender

	// Later is the call itself, where it is to be handed over: Do then returns as
	// soon as it is on record, with an outcome that is Pending, and it is sent when
	// its turn comes. Only a call that may have been sent before is sent at once,
	// by Sender. The store must be a Backlog.
	Later *Deferred

	recorded  bool      // there is a record of it, so that it cannot be claimed unseen
	prepared  bool      // Prepare was called
	place     Place     // of a call whose turn has come; see turn.go
	attendant Owner     // of a keyless call, where others can see the store; see attend.go
	claiming  *claiming // of a keyless call that adopts none
}

// Sender sends one call. Its methods are called from one goroutine at a time.
type Sender interface {
	// Fits tells what keeps the call from ever being sent as it is, if anything does;
	// it is asked before Prepare, and before the call is handed over. Do returns its
	// error as it does that of Prepare. It must not block.
	Fits() error

	// Prepared tells whether Prepare would succeed at once. Then the call is claimed
	// without that, and without a look into the store, which the claim takes anyway.
	Prepared() bool

	// Prepare is called once before the claim, unless Prepared says that it need
	// not be; if it fails, nothing is claimed and Do returns its error, with
	// ErrUnresolved where that applies. Its context ends when nobody waits for
	// the call any more. What it has taken hold of is for Send, or for Abandon.
	Prepare(context.Context) error

	// Abandon is called where the call is not sent after all, so that nothing of
	// what Prepare has taken hold of stays behind. It may be called more than once.
	Abandon()

	// Send sends the call, once claimed. Its context has the call's deadline
	// and does not end when a caller leaves.
	Send(context.Context, *Claim) Result

	// Ended is called once for a call that was sent, when its outcome has been
	// recorded, or could not be at once. callers is how many are there to be
	// told. It must not block.
	Ended(end *Record, fate Fate, callers int64)
}

// Claim is the right to send a call. It belongs to one goroutine.
type Claim struct {
	gate    *Gate
	flight  *flight
	record  *Record
	resumed bool
}

// ID returns the ID of the call.
func (c *Claim) ID() ID { return c.record.ID }

// UpstreamKey returns the key to send.
func (c *Claim) UpstreamKey() string { return c.record.UpstreamKey }

// Resumed tells whether the call may have been sent before, under the same
// upstream key.
func (c *Claim) Resumed() bool { return c.resumed }

// Honored tells whether the upstream is known to honor UpstreamKey.
func (c *Claim) Honored() bool { return c.record.Honored }

// Rekey makes key the one to send, durably, before anything is sent with it:
// else a crash would forget that key, and the call would be sent again with
// yet another.
func (c *Claim) Rekey(ctx context.Context, key string) error {
	next := *c.record
	next.UpstreamKey = key
	next.Started = c.gate.clock.Now()
	if err := c.gate.store.Finish(ctx, &next); err != nil {
		return storeError(err)
	}
	c.record = &next
	c.gate.hold(c.flight, c.record)
	return nil
}

// Answered asks the store once more whether somebody else has finished the
// call meanwhile, and returns the answer if so.
func (c *Claim) Answered(ctx context.Context) (*Answer, bool) {
	rec, err := c.gate.store.Get(ctx, c.record.ID)
	if err != nil || rec == nil || rec.State != Done || rec.Owner == c.record.Owner {
		return nil, false
	}
	return rec.Answer, true
}

// Fate is what is known of a call once it has been sent.
type Fate uint8

const (
	// Unsure: the call may have run or not.
	Unsure Fate = iota

	// Kept: the call is over and its answer is final.
	Kept

	// Freed: the call did not run, or its upstream looks after the key by
	// itself; the key may be used again.
	Freed

	// Pending: the call was handed over and is on record, or is under way. It is
	// a fate of outcomes only.
	Pending
)

// Result is what came of sending a call. The zero Result is Unsure and has
// nothing to tell.
type Result struct {
	Fate   Fate
	Answer *Answer // what to tell; nil: nothing

	// Rest is what follows Answer.Body where the body is too large to be kept;
	// nil otherwise. It is read by one caller at most and always closed.
	Rest io.ReadCloser

	// Temporary says of a call that is Freed that what kept it from running will
	// pass. One that was handed over waits for another turn then.
	Temporary bool

	// Doubtful says of a call that is Freed that what the answer speaks of, an
	// earlier call of the upstream's under the same key, may have run.
	Doubtful bool

	// Attempts are those that were made, for the journal, which takes them over.
	Attempts []Attempt
}

// Manner is how an outcome came about.
type Manner uint8

const (
	Executed Manner = iota + 1 // this call was sent for this caller
	Replayed                   // the answer was recorded before
	Shared                     // the caller waited for another's call
)

// Outcome is what a caller is to be told.
type Outcome struct {
	ID       ID
	Manner   Manner
	Fate     Fate
	Key      string        // the key under which the call can be repeated
	Answer   *Answer       // nil: there is none to tell, see Fate
	Rest     io.ReadCloser // see Result; to be closed by who got the outcome
	Stored   bool          // repeats will be told the same
	Expires  time.Time     // when the record ends, by the store's clock; zero unless Stored
	TTL      time.Duration // how far off that is, where the outcome is Replayed
	Adopted  bool          // the call was made by another caller, who had left
	Waits    bool          // of a Pending one: its turn has not come
	Doubtful bool          // see Result
	Journal  Journal       // how the call went

	tooLarge bool // the answer was not kept
	owner    Owner
	settle   func(delivered bool)
}

// Tracked tells whether Settle does anything with what it is told.
func (o *Outcome) Tracked() bool { return o.settle != nil }

// Settle must be called once, after the outcome was written to its caller.
// delivered says whether the caller can be taken to have received all of it.
func (o *Outcome) Settle(delivered bool) {
	if o.settle != nil {
		o.settle(delivered)
	}
}

// ResultUnavailableError is an ErrResultUnavailable.
type ResultUnavailableError struct {
	ID     ID     // of the call
	Key    string // the key under which it is known; empty: it was erased
	Status int    // of the answer; 0: nobody knows
}

func (e *ResultUnavailableError) Error() string { return ErrResultUnavailable.Error() }

// Is makes e an ErrResultUnavailable.
func (e *ResultUnavailableError) Is(target error) bool { return target == ErrResultUnavailable }

var (
	// ErrKeyReused is returned for a key that belongs to another request.
	ErrKeyReused = errors.New("the key was used for another request")

	// ErrInUse is returned to a duplicate that has waited its time.
	ErrInUse = errors.New("the first call with this key is still under way")

	// ErrResultUnavailable is returned for a call that has ended, but whose answer
	// was too large to keep.
	ErrResultUnavailable = errors.New("the call has ended, but its answer was not kept")

	// ErrReleased is returned to who asks for a call that did not run: it was
	// cancelled, or an operator has said so. Its key is free.
	ErrReleased = errors.New("the call did not run")

	// ErrOverloaded is returned where a bound of the gate would be exceeded.
	ErrOverloaded = errors.New("too many calls are under way")

	// ErrClosed is returned once the gate has been closed.
	ErrClosed = errors.New("the gate is closed")

	// ErrUnresolved is wrapped by errors about a call that was started before:
	// whether it ran is not known, and could not be found out now; and about one that
	// may have been handed over, though the store did not say so.
	ErrUnresolved = errors.New("whether the call ran is still unknown")

	// ErrStore is wrapped by errors of the store.
	ErrStore = errors.New("the store does not answer")
)
