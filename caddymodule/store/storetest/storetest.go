// Package storetest has the conformance suites of idempotency.Store, Run, of
// idempotency.SharedStore, RunShared, and of idempotency.Backlog, RunBacklog. They read as the specification: every
// subtest is named after what a store must do. A store of one's own runs them in
// its tests:
//
//	func TestConformance(t *testing.T) {
//		storetest.Run(t, storetest.Harness{
//			Open: func(t *testing.T, now func() time.Time) idempotency.Store {
//				return mystore.New(now)
//			},
//		})
//	}
//
// Run them with -race.
//
// Fleet is a SharedStore for the tests of what uses one.
package storetest

import (
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// Harness opens the stores that the suite runs against.
type Harness struct {
	// Open returns an empty store that tells the time by now, which is safe for
	// concurrent use. It fails t where it cannot. The suite closes the store.
	Open func(t *testing.T, now func() time.Time) idempotency.Store

	// Reopen returns a store with the records of the one that Open or Reopen
	// returned last to the same t, which the suite has closed. nil: the store's
	// records do not outlive it, and what that concerns is skipped.
	Reopen func(t *testing.T, now func() time.Time) idempotency.Store

	// RealTime is for stores whose records expire by a clock that the suite
	// cannot set, such as a server's: now is the time of day, and the suite
	// waits where records are to expire. It calls Open for several tests at a
	// time then, and allows records to expire some milliseconds early or late.
	// On a machine so slow that records are gone before they were looked at,
	// the tests concerned are skipped.
	RealTime bool
}

// Run runs the suite against the stores that h opens, one for each subtest. What
// concerns idempotency.Lister is skipped for stores that are none.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name  string
		tests []test
		waits bool // for records to expire
	}{
		{"claim", claimTests, false},
		{"finish", finishTests, false},
		{"release", releaseTests, false},
		{"expiry", expiryTests, true},
		{"unsettled", unsettledTests, false},
		{"tell", tellTests, false},
		{"fidelity", fidelityTests, false},
		{"context", contextTests, false},
		{"reopen", reopenTests, false},
		{"load", loadTests, false},
		{"list", listTests, false},
		{"list expiry", listExpiryTests, true},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					if group.waits && h.RealTime {
						t.Parallel()
					}
					test.run(t, newFixture(t, h))
				})
			}
		})
	}
}

type test struct {
	name string
	run  func(t *testing.T, f *fixture)
}
