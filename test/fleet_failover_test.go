package test

import (
	"fmt"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func TestRedisFailsOverBySentinel(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	const password = "a-password-of-redis"
	durable := []string{"--appendonly", "yes", "--appendfsync", "always"}
	master := redistest.New(t, redistest.Options{Password: password, Args: durable})
	replica := redistest.New(t, redistest.Options{Password: password, Args: durable, ReplicaOf: master})
	must(t, replica.WaitSynced(master))
	sentinel := redistest.NewSentinel(t, redistest.SentinelOptions{Master: master, Name: "main", Password: "of-sentinel"})
	must(t, sentinel.WaitSees(1, 0))

	store := onRedis("redis://"+sentinel.Addr()+"?master_set=main", "password "+password, "sentinel_password of-sentinel")
	fleet := newFleet(t, p, 2, store)
	first := fleet[0].send(t, keyed(1))
	if first.status != 200 {
		t.Fatalf("got %+v", first)
	}
	call := newCall(execute, "k", "slow=1s")
	under := fleet[0].begin(t, call)
	waitFor(t, func() bool { return p.Summary().Effects == 2 })
	must(t, replica.WaitSynced(master))
	must(t, master.Kill())
	must(t, sentinel.WaitMaster(replica))

	wantReplay(t, fleet[1].served(t, keyed(1)), first)
	for i, s := range fleet {
		if a := s.served(t, keyed(2+i)); a.status != 200 || a.replayed() {
			t.Errorf("after the failover: %+v", a)
		}
	}
	wantReplay(t, fleet[1].send(t, call), under())
	p.wantEffects(t, 4)
	for _, s := range fleet {
		s.keepsSecret(t, password)
		s.keepsSecret(t, "of-sentinel")
	}
}

func TestRedisIsACluster(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	c := redistest.NewCluster(t, 3, redistest.Options{Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	urls := "redis://" + strings.Join(c.Addrs(), " redis://")
	fleet := newFleet(t, p, 2, onRedis(urls, shortLease))

	const keys = 20 // over all its servers
	for i := range keys {
		first := fleet[0].send(t, keyed(i))
		wantReplay(t, fleet[1].send(t, keyed(i)), first)
	}
	p.wantEffects(t, keys)
	for _, s := range c.Servers {
		if n, err := s.Do("DBSIZE"); err != nil || n == int64(0) {
			t.Errorf("a server has %v records: %v", n, err)
		}
	}

	// Notices and signs of life arrive, wherever the key is.
	const calls = 6
	for i := range calls {
		call := newCall(execute, fmt.Sprint("w", i), "slow=300ms")
		first := fleet[0].begin(t, call)
		waitFor(t, func() bool { return p.Summary().Effects == keys+1+i })
		again := fleet[1].send(t, call)
		wantReplay(t, again, first())
		if cs := again.header.Get("Cache-Status"); cs != "genesys; fwd=miss; collapsed" {
			t.Errorf("it did not wait: %s", cs)
		}
	}
	fleet[0].orphan(t, newCall(execute, "", "slow=1s"))
	if a := fleet[1].send(t, newCall(execute, "", "")); a.status != 200 || !a.replayed() {
		t.Errorf("the orphan was not adopted: %+v", a)
	}
	p.wantEffects(t, keys+calls+1)
	lost := newCall(execute, "lost", "slow=1h")
	fleet[0].abandon(t, lost)
	fleet[0].kill(t)
	wantUnknown(t, fleet[1].send(t, lost))
	p.wantEffects(t, keys+calls+2)
}

// failover is a Redis with a replica, and in front of them what leads to the
// one that is the master.
type failover struct {
	master, replica *redistest.Server
	proxy           *redistest.Proxy
}

func newFailover(t *testing.T) *failover {
	t.Helper()
	master := newRedis(t)
	replica := redistest.New(t, redistest.Options{ReplicaOf: master, Args: []string{"--appendonly", "yes", "--appendfsync", "always"}})
	must(t, replica.WaitSynced(master))
	return &failover{master, replica, redistest.NewProxy(t, master.Addr())}
}

// promote has the replica take over from a master that is dead.
func (f *failover) promote(t *testing.T) {
	t.Helper()
	must(t, f.master.Kill())
	must(t, f.replica.Resume())
	must(t, f.replica.Promote())
	f.proxy.Point(f.replica.Addr())
	f.proxy.Cut()
}

// Redis tells a client that it has a change before its replicas have it. This
// is no promise of the sidecar's but a limit, which the README tells.
func TestRedisFailoverThatForgetsACallRunsItAgainUnlessReplicasAreWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	f := newFailover(t)
	fleet := newFleet(t, p, 2, onRedis(f.proxy.URL()))
	must(t, f.replica.Pause())
	_, err := f.master.Do("CLIENT", "KILL", "TYPE", "replica") // what is on its way is lost with the connection
	must(t, err)
	if a := fleet[0].send(t, keyed(1)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	f.promote(t)
	if a := fleet[1].served(t, keyed(1)); a.status != 200 || a.replayed() {
		t.Errorf("got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestRedisFailoverForgetsNothingWhereReplicasAreWaitedFor(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	f := newFailover(t)
	fleet := newFleet(t, p, 2, onRedis(f.proxy.URL(), "wait_replicas 1 1s"))
	for i, s := range fleet { // it has its token, so that a call is a claim and nothing else
		if a := s.send(t, keyed(i)); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}

	must(t, f.replica.Pause())
	wantRefused(t, fleet[0].send(t, keyed(2)))
	wantRefused(t, fleet[1].send(t, newCall(invoke, "", "")))
	if n := p.Summary().Attempts; n != 2 {
		t.Errorf("the upstream got %d attempts", n)
	}

	must(t, f.replica.Resume())
	must(t, f.replica.WaitSynced(f.master))
	first := fleet[0].served(t, keyed(2))
	if first.status != 200 || first.replayed() {
		t.Errorf("with the replica: %+v", first)
	}
	f.promote(t)
	wantReplay(t, fleet[1].served(t, keyed(2)), first)
	p.wantEffects(t, 3)
}

// The promoted replica has none itself, and what is new is refused. What is
// recorded is told all the same: that is nothing that could be lost.
func TestRedisWithoutItsReplicasStillReplays(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	f := newFailover(t)
	fleet := newFleet(t, p, 2, onRedis(f.proxy.URL(), "wait_replicas 1 1s"))
	first := fleet[0].send(t, keyed(1))
	if a := fleet[1].send(t, keyed(2)); first.status != 200 || a.status != 200 {
		t.Fatalf("one got %+v, the other %+v", first, a)
	}
	must(t, f.replica.Kill())
	wantRefused(t, fleet[1].send(t, keyed(3)))
	wantReplay(t, fleet[1].send(t, keyed(1)), first)
	p.wantEffects(t, 2)
}
