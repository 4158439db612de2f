// Package sandbox is a local double of Genesys Cloud for tests: it runs data
// actions that do nothing, keeps a ledger of every one that ran, and fails on
// demand in the ways networks and platforms do. What an app under test claims
// to have done once can then be counted.
//
//	s, err := sandbox.New(sandbox.Config{})
//	…
//	defer s.Close()
//	srv := s.Server()
//	srv.Addr = "127.0.0.1:8089"
//	log.Fatal(srv.ListenAndServe())
//
// With curl, once it listens:
//
//	T=$(curl -s -u sandbox:sandbox -d grant_type=client_credentials \
//	    localhost:8089/oauth/token | jq -r .access_token)
//	curl -H "Authorization: Bearer $T" --json '{"order": 7}' \
//	    localhost:8089/api/v2/integrations/actions/custom_-_1/execute
//	curl localhost:8089/ledger
//
// # Endpoints
//
// Three families of actions execute. Which of them look at Idempotency-Key is
// the point of the sandbox:
//
//	POST /api/v2/integrations/actions/{id}/execute       ignores it
//	POST /api/v2/integrations/actions/{id}/test          ignores it
//	POST /api/v2/integrations/actions/{id}/draft/test    ignores it
//	POST /api/v2/dataactions/actions/{id}/invoke         honours it; body {"input": {…}}
//	POST /api/v2/quality/conversations/{id}/evaluations  honours it; must be a UUID
//
// Where the key is ignored, every request that gets through has an effect of
// its own. Where it is honoured, a key belongs to the path and the body bytes
// it first executed with. For 24 hours from then the same request is answered
// with the same body and X-Idempotent-Replay: true. Another request with the
// key, one while the first still runs, and one after the action failed get 409
// with the code idempotency.conflict. A request that failed before it executed
// leaves its key free.
//
// Further there are POST /oauth/token (and /login/oauth/token), for Basic
// authentication and the client_credentials grant, and some resources to
// read: GET /api/v2/users/me, GET /api/v2/organizations/me,
// GET /api/v2/authorization/subjects/me (the client's role),
// GET /api/v2/integrations/actions (none) and
// GET /api/v2/sandbox/stream?bytes=N.
//
// # Faults
//
// A request asks for its own faults with a header, which proxies pass on:
//
//	Sandbox-Fault: name[=argument][; times=n][, …]
//
// [FaultTable] lists the names. Faults that decide the outcome exclude each
// other: of several, the first that is not used up applies. Those that go with
// others (slow, stall, large, gzip, set-cookie) all apply. With times, a fault
// is used up after so many arrivals of the same call, so that a retry gets
// through. The same call is one with the same header Sandbox-Call, else the
// same Idempotency-Key, else the same path and body. So
//
//	Sandbox-Fault: 503; times=1, execute-then-drop; times=1
//
// answers 503, then executes and drops, then answers.
//
// Action requests without the header take the next entry of the script, if
// there is one, else draw from the configured probabilities. Faults strike
// only what was admitted: a request with a bad token, beyond the rate limit,
// without permission or not well formed is refused as such and uses none up.
// They strike replays like executions; a 409 for a key is never hidden by one.
//
// A code of the platform's on a 4xx says that nothing was executed. Faults
// that execute and answer 4xx therefore send a body without a code.
//
// # Ledger and controls
//
// These need no token, so a sandbox belongs on loopback:
//
//	GET    /ledger[?key=…][&action=…]  {"effects": […], "attempts": […], "summary": {…}}
//	GET    /ledger/summary             the numbers alone
//	DELETE /ledger                     empties it, counters and used-up faults included
//	GET    /sandbox                    seed, switches and known faults
//	PUT    /sandbox/faults             {"execute-then-drop": 0.5}: all probabilities
//	POST   /sandbox/script             ["503", "", "truncate, gzip"]: for the next requests, in turn
//	DELETE /sandbox/script
//	DELETE /sandbox/keys               forgets the keys that are not in use
//	POST   /sandbox/tokens/revoke      revokes all tokens
//	PUT    /sandbox/token-endpoint     {"mode": "ok|down|rate-limited|hang|empty|reject", "times": 2, "latency": "1s"}
//	PUT    /sandbox/permissions        {"granted": false}
//	PUT    /sandbox/client             {"secret": "new"}
//	PUT    /sandbox/limits             {"requests": 300, "window": "10s"}; 0 requests: no limit
//
// Emptying the ledger leaves the keys: a key from before is still replayed.
//
// The ledger holds no tokens, no header values but those of Idempotency-Key
// and Sandbox-Call, and no bodies; its file holds the answers of remembered
// keys, and with them their inputs. In memory the last 200,000 attempts are
// listed and every effect is; a key keeps its answer for 24 hours.
// Restarted with its file, a sandbox knows its effects and keys, but no
// attempts, counters or tokens.
//
// # What it does not imitate
//
// Actions have no definitions: every id exists and every object is a valid
// input. flatten is accepted and changes nothing. There are no divisions, no
// roles beyond one permission switch, no user logins, no limits on concurrent
// executions, no 60-second execution timeout and no CloudFront in front. The
// invoke endpoint is described by a tutorial, not by Genesys, and the real
// platform documents neither how long the evaluations endpoint remembers a key
// nor what a conflict looks like: there the sandbox is a guess.
package sandbox
