package idempotency

import "time"

// finished returns the record of a call that was sent as rec and has come to
// result now.
func finished(rec *Record, result Result, now time.Time, retention time.Duration) *Record {
	end := *rec
	end.Finished = now
	end.Expires = end.Finished.Add(retention)
	end.Journal = rec.Journal.with(result.Attempts)
	end.Deferred = nil
	switch {
	case result.Fate == Freed && rec.Deferred != nil: // its caller is yet to ask why
		end.State = Released
	case result.Fate != Unsure:
		end.State = Done
	case rec.Honored:
		end.State = Open
	default:
		end.State = Unknown
	}
	if result.Rest == nil {
		end.Answer = result.Answer
	}
	return &end
}

// told returns what the caller of a call that has just ended as rec is told.
func told(rec *Record, result Result) *Outcome {
	return &Outcome{
		ID:       rec.ID,
		Manner:   Executed,
		Fate:     result.Fate,
		Key:      rec.Key,
		Answer:   result.Answer,
		Rest:     result.Rest,
		Doubtful: result.Doubtful,
		Journal:  rec.Journal,
		owner:    rec.Owner,
	}
}

// replay tells what rec holds now to a caller with fingerprint fp.
func replay(rec *Record, fp Fingerprint, now time.Time) (*Outcome, error) {
	if rec.Fingerprint != fp {
		return nil, ErrKeyReused
	}
	out := &Outcome{
		ID:      rec.ID,
		Manner:  Replayed,
		Key:     rec.Key,
		Answer:  rec.Answer,
		Stored:  true,
		Expires: rec.Expires,
		TTL:     max(rec.Expires.Sub(now), 0),
		Journal: rec.Journal,
		owner:   rec.Owner,
	}
	switch {
	case rec.State == Open:
		out.Answer = nil // it says that the call may be tried again, which is over
	case rec.State == Done && rec.Answer == nil:
		return nil, &ResultUnavailableError{rec.ID, rec.Key, rec.lastStatus()}
	case rec.State == Done:
		out.Fate = Kept
	}
	return out, nil
}

// lastStatus returns the status of the answer to the last attempt; 0 where none is
// known, or an operator has said what became of the call.
func (r *Record) lastStatus() int {
	if n := len(r.Journal.Attempts); n > 0 && len(r.Journal.Words) == 0 {
		return r.Journal.Attempts[n-1].Status
	}
	return 0
}
