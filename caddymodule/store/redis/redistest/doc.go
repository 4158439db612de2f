// Package redistest runs real redis-servers for tests: single ones, replicas,
// sentinels, clusters, and a proxy that loses what a test wants to be lost.
//
// Everything listens on 127.0.0.1 and lives in temporary directories. Functions
// called Start return errors and leave closing to the caller; those called New
// take a test, fail it, and close at its end. All methods are safe for
// concurrent use, except that no method may be called after Close.
//
// It needs redis-server 7.0 or newer in the search path. Where there is none,
// tests are skipped, or, where GENESYS_SIDECAR_NEED_REDIS is 1, fail.
package redistest
