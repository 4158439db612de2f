package idempotency

import (
	"slices"
	"strings"
	"time"
)

// MaxAttempts is how many attempts a journal keeps.
const MaxAttempts = 16

// MaxText is how long a text in a journal or a label may be, in bytes. What is
// longer is cut.
const MaxText = 256

// MaxWords is how many words of operators a journal keeps: the latest.
const MaxWords = 8

// Label is what operators know a call by. It decides nothing.
type Label struct {
	Organisation OrganisationID
	Scope        ScopeID
	Action       string // what it calls; at most MaxText bytes
}

// OrganisationID is a digest of an organisation's name.
type OrganisationID [8]byte

// NewOrganisationID returns the OrganisationID of organisation.
func NewOrganisationID(organisation string) OrganisationID {
	sum := hashParts("organisation", organisation)
	return OrganisationID(sum[:])
}

// ScopeID is a digest of a scope within an organisation: a scope may name a
// person, so that it is not kept itself.
type ScopeID [16]byte

// NewScopeID returns the ScopeID of scope within organisation.
func NewScopeID(organisation, scope string) ScopeID {
	sum := hashParts("scope", organisation, scope)
	return ScopeID(sum[:])
}

// Journal is what is kept of a call for those who have to find out about it.
type Journal struct {
	// Attempts are those that were made, in their order. Where they were more
	// than MaxAttempts, the first is kept and the latest.
	Attempts []Attempt

	// Skipped is how many of them are not kept.
	Skipped int

	// Words are what operators have said of the call, in their order.
	Words []Word
}

// Attempt is one sending of a call. It holds no part of the request.
type Attempt struct {
	Started       time.Time
	Waited        time.Duration // before it: for the pause, for a start within the budget, and for the backoff
	Paused        time.Duration // the part of Waited that a pause took which the upstream had asked for
	Paced         time.Duration // the part of Waited that the organisation's budget took
	Took          time.Duration // until its answer was read, or given up
	Written       bool          // a byte of the request may have left
	Status        int           // of the answer; 0: there was none
	CorrelationID string        // by which the upstream knows it
	Verdict       string        // what it meant for the call
	Error         string        // what there was in place of an answer
}

// Word is what an operator has said of a call whose outcome nobody knew.
type Word struct {
	Said     time.Time
	Executed bool   // else: it did not run, and its key is free
	Note     string // at most MaxText bytes
}

// with returns j with further attempts, which it takes over, within the bounds of a
// Journal. It does not change what j holds.
func (j Journal) with(attempts []Attempt) Journal {
	if len(attempts) == 0 {
		return j
	}
	all := attempts
	if len(j.Attempts) > 0 {
		all = slices.Concat(j.Attempts, attempts)
	}
	if over := len(all) - MaxAttempts; over > 0 {
		all = append(all[:1], all[1+over:]...)
		j.Skipped += over
	}
	for i := range all {
		all[i].CorrelationID = cut(all[i].CorrelationID)
		all[i].Error = cut(all[i].Error)
	}
	j.Attempts = all
	return j
}

// says returns j with a further word. It does not change what j holds.
func (j Journal) says(w Word) Journal {
	w.Note = cut(w.Note)
	words := append(append([]Word(nil), j.Words...), w)
	j.Words = words[max(0, len(words)-MaxWords):]
	return j
}

// cut shortens s to MaxText bytes.
func cut(s string) string {
	if len(s) <= MaxText {
		return s
	}
	return strings.ToValidUTF8(s[:MaxText], "")
}
