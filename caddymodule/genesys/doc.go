// Package genesys knows Genesys Cloud: its regions and endpoints, which of its
// requests are data actions, its tokens, its error bodies and rate limits, and
// what an answer says about whether an action ran.
//
// Follow a data action through it: Routes tell that a request is one, Invoker
// sends it, attempt by attempt, paced by a Pause, each with a Token of Tokens,
// and judges what every attempt came to.
//
// The package knows neither the HTTP server it is used by nor how answers are
// kept.
package genesys
