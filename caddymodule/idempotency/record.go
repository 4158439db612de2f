package idempotency

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// ID names a record: a length-prefixed hash of organisation, scope and key,
// so that one caller's key can never reach another caller's record.
//
// Stores keep it, and the other hashes that records are found by, in the clear,
// even where they encrypt. It tells nothing of a key that nobody can guess; but who
// has the store and guesses organisation, scope and key can see that the guess was
// right. So keys should be random, or at least hold nothing personal.
type ID [sha256.Size]byte

// NewID returns the ID of key as used by scope within organisation.
func NewID(organisation, scope, key string) ID {
	return ID(hashParts("record", organisation, scope, key))
}

// NewHashID returns the ID of calls that have no key but are known by their
// fingerprint, as made by scope within organisation.
func NewHashID(organisation, scope string, fp Fingerprint) ID {
	return ID(hashParts("hash", organisation, scope, string(fp[:])))
}

// String returns a short digest of the ID, fit for logs.
func (id ID) String() string { return hex.EncodeToString(id[:6]) }

// AdoptionID names all keyless calls that are alike: same organisation, scope
// and fingerprint; who has a store can confirm a guess of all three, as with an
// ID. The zero AdoptionID marks a call that brought its own key
// and is never adopted.
type AdoptionID [sha256.Size]byte

// NewAdoptionID returns the AdoptionID of calls with fingerprint fp that scope
// makes within organisation.
func NewAdoptionID(organisation, scope string, fp Fingerprint) AdoptionID {
	return AdoptionID(hashParts("adoption", organisation, scope, string(fp[:])))
}

// hashParts hashes parts so that no two different lists of parts have the same
// input: each part is preceded by its length.
func hashParts(parts ...string) [sha256.Size]byte {
	b := make([]byte, 0, 256) // on the stack, as a rule
	for _, p := range parts {
		b = appendPart(b, p)
	}
	return sha256.Sum256(b)
}

// Owner is the fencing token of one claim. Its first half tells the process
// that made the claim, its second half is random. Only who holds the token of
// a record's latest claim may change that record. The zero Owner owns nothing.
type Owner [16]byte

// Process is the half of an Owner that tells which process made the claim.
type Process [8]byte

// NewProcess returns a random Process.
func NewProcess() (p Process) {
	_, _ = rand.Read(p[:]) // never fails: crypto/rand ends the process instead
	return p
}

// NewOwner returns a fresh token for a claim by p.
func (p Process) NewOwner() (o Owner) {
	copy(o[:], p[:])
	_, _ = rand.Read(o[len(p):])
	return o
}

// Process returns the process that made the claim.
func (o Owner) Process() Process { return Process(o[:len(Process{})]) }

// State is where a call stands.
type State uint8

const (
	// Started: claimed, and possibly sent. No answer is recorded.
	Started State = iota + 1

	// Done: the call ran and its answer is known. Where Answer is nil, the
	// answer was too large to keep (or was given up to make room): a tombstone.
	Done

	// Unknown: nobody can tell whether the call ran. Answer is what the
	// callers are told, where there is something to tell.
	Unknown

	// Open: nobody can tell whether the call ran, but its upstream honors the
	// key, so that the same request may try again under it.
	Open

	// Released: an operator has said that the call did not run. Its key is free for
	// any request; the record is there for its journal. So is that of a call that
	// was handed over for later and came to nothing: it was cancelled, and has no
	// Answer, or it was refused, and Answer tells why.
	Released

	// Queued: the call was handed over for later and waits for its turn. Nothing
	// has been sent under its claim.
	Queued
)

// String returns the state's name as used in logs and listings.
func (s State) String() string {
	switch s {
	case Started:
		return "started"
	case Done:
		return "done"
	case Unknown:
		return "unknown"
	case Open:
		return "open"
	case Released:
		return "released"
	case Queued:
		return "queued"
	default:
		return "invalid"
	}
}

// Record is what a store keeps of a call. Stores hand out records that others
// hold as well: whoever receives one must not change it or what it points to.
type Record struct {
	ID          ID
	State       State
	Owner       Owner       // token of the latest claim
	Fingerprint Fingerprint // of the request that made the claim
	Key         string      // the caller's key, or the one made up for a keyless call
	UpstreamKey string      // the key that the upstream was or will be sent
	Honored     bool        // the upstream is known to honor UpstreamKey
	Adoption    AdoptionID  // zero: the call brought a key
	Started     time.Time   // when UpstreamKey was first claimed for sending
	Finished    time.Time   // when the state became other than Started; zero before
	Told        time.Time   // when a caller was last told that the outcome is unknown; zero: never
	Expires     time.Time   // when the record counts as gone
	Attendant   Owner       // who has a caller for a keyless call; kept by a SharedStore only
	Answer      *Answer     // see State
	Label       Label       // what operators know the call by
	Journal     Journal     // what is known of how it went
	Deferred    *Deferred   // the call itself, where it was handed over for later and has not ended; excludes Answer
}

// Expired tells whether the record counts as gone at now.
func (r *Record) Expired(now time.Time) bool { return !now.Before(r.Expires) }

// wasSent tells whether the call may have been sent, for all that is known.
func (r *Record) wasSent() bool { return r.State != Released && r.State != Queued }

// OwnedBy tells whether owner is the token of the record's latest claim. The
// zero Owner owns nothing.
func (r *Record) OwnedBy(owner Owner) bool { return owner != Owner{} && r.Owner == owner }

// Answer is a finished answer, immutable once recorded.
type Answer struct {
	Status int
	Header Header // end-to-end headers only; no Set-Cookie
	Body   []byte // without content encoding
}
