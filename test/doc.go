// Package test holds the end-to-end tests: they build the program, run it as a
// process of its own in front of a sandbox, and use it as its users do, through
// the Caddyfile, HTTP, signals and nothing else.
//
// Those that take seconds, since they wait for leases, crashes or browsers, run side
// by side; but not those that measure how evenly calls are sent.
package test
