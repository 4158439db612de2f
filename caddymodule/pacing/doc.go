// Package pacing makes the calls of an organisation wait for their turn, so that
// a burst costs waiting and not errors: it keeps a budget of starts, and of calls
// at a time, and shares it fairly among those who call.
//
// It knows nothing of HTTP, nor of what a call is.
package pacing
