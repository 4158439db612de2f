// Package history records what clients see of real sidecars while these are
// killed, stopped, paused and reloaded, and judges the whole of it.
//
// Clients repeat each call, several at a time now and then, with another body now
// and then, leave before they are answered, and come back to old keys (keyed.go);
// those without a key repeat it as SDKs do, or mean it twice (keyless.go). The
// upstream is the sandbox, whose fsynced ledger says what ran. One sidecar has a
// store on disk or in memory; a fleet shares a real Redis, which is killed and
// paused as well. A sidecar whose store is in memory has another address after
// each start, and keys are not taken there: what it promises ends with the process.
//
// The seed alone decides what is done to whom and when (schedule.go); when a call
// meets it is up to the machine, so that a seed brings back the circumstances of a
// failure, not every time the failure.
//
// # What is checked
//
//   - The history of each key, requests and effects, is one that its specification
//     allows: porcupine looks for an order (model.go).
//   - By the ledger alone: no body, of which each call has its own, has more than
//     one effect; where keys are ignored, none is sent again once it may have run;
//     and each key goes up as it is. Calls without a key run again only if both
//     were meant, or after an answer was delivered (effects.go, keyless.go).
//   - What a key was answered once it is answered ever after, byte for byte, kept
//     headers included, and what was known once does not become unknown (pairs.go).
//   - What is told to have run did run, as what it is told to be, and what is told
//     not to have run did not.
//   - When all is over, each sidecar serves, without a restart, and each key that
//     ran is answered for without running again (finish.go).
//   - No sidecar ends by itself, and no log has a data race, a panic or a secret.
package history
