package pacing

import (
	"fmt"
	"time"
)

// Reason is why a call gets no start.
type Reason string

// The reasons.
const (
	// PastDeadline: it cannot start before its deadline, or has not.
	PastDeadline Reason = "it cannot start before its deadline"

	// QueueFull: as many wait as may.
	QueueFull Reason = "too many calls wait"

	// Displaced: too many wait, and most of them are of its own scope, so that it
	// had to make room for one of another.
	Displaced Reason = "too many calls of its scope wait"
)

// LateError says that a call gets no start within the budget.
type LateError struct {
	// RetryAfter is how long it is until the call could start if it came then,
	// and nobody else came meanwhile.
	RetryAfter time.Duration

	Reason Reason
}

func (e *LateError) Error() string {
	return fmt.Sprintf("waiting for a start within the budget: %s; there is one in %s", e.Reason, e.RetryAfter.Round(time.Millisecond))
}
