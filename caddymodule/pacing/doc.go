// Package pacing lets an organisation's calls start within its budget: so many in
// a window of time, so many at once. What is past the budget waits in a bounded
// queue, which is fair to the callers' scopes.
//
// It knows nothing of HTTP, and of no store.
package pacing
