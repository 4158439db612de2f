package genesys

import "time"

// Attempt is what one sending of a data action came to, as far as it is kept.
// It holds no part of the request, nor of the answer's body.
type Attempt struct {
	Started       time.Time
	Waited        time.Duration // before it: for the pause, a token, a start within the budget, and the backoff
	Paused        time.Duration // the part of Waited that the organisation's pause took
	Paced         time.Duration // the part of Waited that its budget took
	Took          time.Duration // until its answer was read, or given up
	Written       bool          // a byte of it may have left
	Status        int           // 0: there was no answer
	CorrelationID string        // ININ-Correlation-Id of the answer
	Verdict       Verdict
	Err           error // instead of a whole answer
}

// Verdict is what an attempt meant for its call.
type Verdict string

// The verdicts. What was retried was sent again.
const (
	VerdictFinal          Verdict = "final"
	VerdictNotRun         Verdict = "not_run"
	VerdictUnknown        Verdict = "unknown"
	VerdictRetriedNotRun  Verdict = "retried_not_run"
	VerdictRetriedUnknown Verdict = "retried_unknown"
)

// Verdicts are all there are.
var Verdicts = []Verdict{VerdictFinal, VerdictNotRun, VerdictUnknown, VerdictRetriedNotRun, VerdictRetriedUnknown}

// journal notes the attempts of a call.
type journal struct {
	attempts []Attempt
	since    time.Time // when the last attempt had ended, or the call began
}

// begin notes that an attempt begins by admission, so that the one before was
// retried.
func (j *journal) begin(now time.Time, admission *Admission) {
	if n := len(j.attempts); n > 0 {
		switch last := &j.attempts[n-1]; last.Verdict {
		case VerdictNotRun:
			last.Verdict = VerdictRetriedNotRun
		case VerdictUnknown:
			last.Verdict = VerdictRetriedUnknown
		}
	}
	j.attempts = append(j.attempts, Attempt{Started: now, Waited: now.Sub(j.since),
		Paused: admission.paused, Paced: admission.slot.Paced()})
}

// end notes what came of the attempt that has begun last.
func (j *journal) end(a attempt, v verdict, now time.Time) {
	last := &j.attempts[len(j.attempts)-1]
	last.Took = now.Sub(last.Started)
	last.Written = a.written
	last.Status = a.status
	last.CorrelationID = a.header.Get("ININ-Correlation-Id")
	last.Err = a.err
	switch v.fate {
	case Final:
		last.Verdict = VerdictFinal
	case NotRun:
		last.Verdict = VerdictNotRun
	default:
		last.Verdict = VerdictUnknown
	}
	j.since = now
}
