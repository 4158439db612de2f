// Package caddymodule is Caddy's face of genesys-sidecar. It has
//
//   - the app "genesys", the organisation: where it is and who may call it,
//     and what keeps the answers (app.go, org.go, backend.go, storage.go),
//   - the handler "http.handlers.genesys_cloud", which answers data actions
//     (handler.go, action.go, keys.go, send.go, answer.go, problem.go,
//     facade.go, login.go),
//   - the transport "http.reverse_proxy.transport.genesys" and the upstreams
//     "http.reverse_proxy.upstreams.genesys" (transport.go, upstreams.go); both
//     are for all other requests, the transport for data actions too,
//   - the Caddyfile (caddyfile.go, caddyfile_app.go) and the commands under
//     "genesys" (command.go, demo.go).
//
// What decides is below: package idempotency whether a call is sent, package
// genesys how, package upstream over which connection, package store where its
// answer is kept.
package caddymodule
