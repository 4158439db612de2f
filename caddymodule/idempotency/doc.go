// Package idempotency decides, for a call that must not run twice, whether to
// run it, to wait for it, or to tell its answer again.
//
// Follow a call through it: ParseKey and Request.Fingerprint say which call it
// is, Gate decides what becomes of it, a Store remembers it as a Record, and a
// Cache in front of the store repeats finished answers cheaply.
//
// The package knows neither the HTTP server it is used by nor the upstream
// that it protects.
package idempotency
