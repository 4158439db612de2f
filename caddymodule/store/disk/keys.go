package disk

import (
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store"
)

// The first byte of a key is its keyspace.
const (
	keyspaceMeta      = 'm' // name -> value
	keyspaceRecord    = 'r' // ID -> record
	keyspaceUnsettled = 'u' // adoption ID, ID -> nothing
	keyspaceExpiry    = 'x' // expiry, as foreseen by the claim, ID -> nothing
	keyspaceStarted   = 't' // start, ID -> nothing
	keyspaceOpen      = 'o' // start, ID -> nothing, of those that are not Done
	keyspaceTicket    = 'q' // number -> ticket
)

// formatKey is where the version of this package's layout is kept, a uvarint.
var formatKey = []byte{keyspaceMeta, 'f', 'o', 'r', 'm', 'a', 't'}

// format is the version of the keyspaces above and what is in them. The
// records themselves carry a version of their own. In format 1, each record had
// exactly one entry in the expiry index, at its expiry. Since 2 an entry tells
// only when to look at the record. Format 3 has the keyspaces that listings go
// through, t and o (see index.go).
//
// Format 4 may have tickets, and records that an older program takes for damaged
// (see store.IsRecent). It would not run the calls that wait, nor answer for them.
// A database becomes one of format 4 with the first such record, and not when it is
// opened: who hands no call over for later, and has none paced, can go back to an
// older program, and need not forget what ran.
const (
	format       = 3
	formatRecent = 4
)

// The functions that make the keys of each call are short enough for the compiler to
// put into their callers: what is made there need not be collected.

func recordKey(id idempotency.ID) []byte {
	return append(append(make([]byte, 0, 1+len(id)), keyspaceRecord), id[:]...)
}

// expiryKey sorts by time of expiry.
func expiryKey(expires time.Time, id idempotency.ID) []byte {
	return append(expiryPrefix(expires), id[:]...)
}

// expiryPrefix is where the records start that expire at t. It has room for an ID.
func expiryPrefix(t time.Time) []byte {
	return store.AppendSortable(append(make([]byte, 0, 1+store.PlaceSize), keyspaceExpiry), t)
}

func unsettledKey(adoption idempotency.AdoptionID, id idempotency.ID) []byte {
	return append(unsettledPrefix(adoption), id[:]...)
}

func unsettledPrefix(adoption idempotency.AdoptionID) []byte {
	return append([]byte{keyspaceUnsettled}, adoption[:]...)
}

// keyAdoption returns the adoption ID that a key of the unsettled records
// starts with.
func keyAdoption(key []byte) (a idempotency.AdoptionID, ok bool) {
	if len(key) < 1+len(a) {
		return a, false
	}
	return idempotency.AdoptionID(key[1 : 1+len(a)]), true
}

// keyID returns the ID that a key ends with.
func keyID(key []byte) (id idempotency.ID, ok bool) {
	if len(key) < len(id) {
		return id, false
	}
	return idempotency.ID(key[len(key)-len(id):]), true
}

// after returns the smallest key that is greater than every key with prefix,
// which must not be all 0xff; keyspaces make sure of that.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
