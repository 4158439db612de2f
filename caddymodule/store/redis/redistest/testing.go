package redistest

import (
	"errors"
	"io"
	"os"
	"testing"
)

// needVariable, set to 1, says that a missing redis-server is a failure.
const needVariable = "GENESYS_SIDECAR_NEED_REDIS"

// New starts a server for t, which is closed when t ends. It skips t where
// redis-server is not installed, and fails t if the server does not start.
func New(t testing.TB, opts Options) *Server {
	t.Helper()
	return keep(t, func() (*Server, error) { return Start(opts) }, func(s *Server) {
		t.Logf("the end of the log of redis-server at %s:\n%s", s.Addr(), s.Log())
	})
}

// NewSentinel is New for a sentinel.
func NewSentinel(t testing.TB, opts SentinelOptions) *Sentinel {
	t.Helper()
	return keep(t, func() (*Sentinel, error) { return StartSentinel(opts) }, func(s *Sentinel) {
		t.Logf("the end of the log of the sentinel at %s:\n%s", s.Addr(), s.Log())
	})
}

// NewCluster is New for a cluster of n servers.
func NewCluster(t testing.TB, n int, opts Options) *Cluster {
	t.Helper()
	return keep(t, func() (*Cluster, error) { return StartCluster(n, opts) }, func(c *Cluster) {
		for _, s := range c.Servers {
			t.Logf("the end of the log of the cluster's server at %s:\n%s", s.Addr(), s.Log())
		}
	})
}

// NewProxy starts a proxy in front of target for t, which is closed when t ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	return keep(t, func() (*Proxy, error) { return StartProxy(target) }, func(*Proxy) {})
}

// keep starts something for t and closes it at the end of t, after explain
// where t has failed.
func keep[T io.Closer](t testing.TB, start func() (T, error), explain func(T)) T {
	t.Helper()
	v, err := start()
	switch {
	case errors.Is(err, ErrNotInstalled) && os.Getenv(needVariable) != "1":
		t.Skipf("%v (with %s=1 this is a failure)", err, needVariable)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			explain(v)
		}
		if err := v.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return v
}
