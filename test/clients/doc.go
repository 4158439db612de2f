// Command clients has real HTTP clients, and the SDKs of Genesys, send orders to
// a sandbox of Genesys Cloud, directly and through a sidecar, while things go
// wrong, and writes down how often each order was executed:
//
//	go run ./test/clients
//
// Each client is a small program in a directory of its own, written as an app
// would be. It is told by its environment what to send and where:
//
//	CLIENT_URL               the base URL: all that differs between the two
//	CLIENT_PATH, CLIENT_ACTION, CLIENT_BODY   the order
//	CLIENT_TOKEN             a token, for who logs in elsewhere
//	CLIENT_ID, CLIENT_SECRET for SDKs, which log in themselves
//	CLIENT_KEY               an Idempotency-Key; empty: none
//	CLIENT_TIMEOUT           in seconds, for each try
//	CLIENT_TRIES             how often to try at the most
//	CLIENT_WARM              not empty: first use the connection for a GET
//	CLIENT_MODE              the client's own
//
// and prints a line with the status it ended with, or "error" and what went
// wrong, then the body. No client knows what will go wrong, nor which of the two
// it talks to. What counts is the sandbox's ledger.
//
// The command fails if an order that was meant once was executed more than once
// through the sidecar, if a client failed through the sidecar that succeeded
// directly with one execution (unless nobody could know whether the order was
// executed), and if it was told of a success that never was.
package main
