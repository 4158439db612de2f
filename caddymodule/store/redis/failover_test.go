package redis_test

import (
	"errors"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// pair is a master and its replica behind an address that can be pointed at
// either, as a virtual address or a name is.
type pair struct {
	master, replica *redistest.Server
	proxy           *redistest.Proxy
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{master: redistest.New(t, redistest.Options{Args: safe})}
	p.replica = redistest.New(t, redistest.Options{Args: safe, ReplicaOf: p.master})
	if err := p.replica.WaitSynced(p.master); err != nil {
		t.Fatal(err)
	}
	p.proxy = redistest.NewProxy(t, p.master.Addr())
	return p
}

// failOver ends the master and has the replica take its place.
func (p *pair) failOver(t *testing.T, s *redis.Store) {
	t.Helper()
	if err := p.master.Kill(); err != nil {
		t.Fatal(err)
	}
	p.part(t)
	p.proxy.Point(p.replica.Addr())
	eventually(t, "the store serves again", func() bool { return serves(s) })
}

// part has the replica get nothing more of what the master is told.
func (p *pair) part(t *testing.T) {
	t.Helper()
	if err := p.replica.Promote(); err != nil {
		t.Fatal(err)
	}
}

// This is what the README warns of: without wait_replicas, a replica that takes
// over may not have the latest claims.
func TestWithoutWaitingForReplicasAClaimCanBeLostInAFailover(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL())})
	before, latest := started("a"), started("b")
	mustClaim(t, s, before)
	if err := p.replica.WaitSynced(p.master); err != nil {
		t.Fatal(err)
	}
	p.part(t)
	mustClaim(t, s, latest)
	p.failOver(t, s)
	wantState(t, s, before.ID, idempotency.Started)
	wantState(t, s, latest.ID, 0)

	// While its call runs, or with its answer, it is recorded anew.
	eventually(t, "renewing", func() bool {
		standing, err := s.Renew(t.Context(), latest)
		return standing == nil && err == nil
	})
	wantState(t, s, latest.ID, idempotency.Started)
}

func TestAClaimThatReplicasHaveSurvivesAFailover(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL()), WaitReplicas: 1, WaitTimeout: 10 * time.Second})
	rec, open := started("a"), started("b")
	mustClaim(t, s, rec)
	mustClaim(t, s, open)
	if err := s.Finish(t.Context(), done(rec, 100)); err != nil {
		t.Fatal(err)
	}
	p.failOver(t, s)
	wantState(t, s, rec.ID, idempotency.Done)
	wantState(t, s, open.ID, idempotency.Started)
}

func TestAClaimThatTooFewReplicasHaveIsNotMade(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL()), WaitReplicas: 1, WaitTimeout: 200 * time.Millisecond})
	under := started("a")
	eventually(t, "a claim is made", func() bool {
		made, _ := claim(s, under)
		return made
	})
	if err := p.replica.Pause(); err != nil {
		t.Fatal(err)
	}
	rec := started("b")
	if made, err := claim(s, rec); made || !errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("a claim: %v, %v", made, err)
	}
	wantState(t, s, rec.ID, 0)

	// An answer is kept where it can be, and is not said to be stored.
	if err := s.Finish(t.Context(), done(under, 100)); err == nil {
		t.Error("an answer was stored, it says")
	}
	wantState(t, s, under.ID, idempotency.Done)

	if err := p.replica.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "claims are made again", func() bool {
		made, _ := claim(s, rec)
		return made
	})
	if err := s.Finish(t.Context(), done(under, 100)); err != nil {
		t.Errorf("finishing again: %v", err)
	}
}

// What is claimed over must not go with the claim.
func TestATakeOverThatTooFewReplicasHaveLeavesARecord(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL()), WaitReplicas: 1, WaitTimeout: 200 * time.Millisecond})
	first, second := started("a"), started("a")
	eventually(t, "a claim is made", func() bool {
		made, _ := claim(s, first)
		return made
	})
	if err := p.replica.Pause(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Claim(t.Context(), second, first.Owner)
	if err == nil || errors.Is(err, idempotency.ErrNotMade) {
		t.Errorf("taking over: %v", err)
	}
	wantState(t, s, first.ID, idempotency.Started)
}

// A claim that is sent again because its reply was lost finds itself made.
func TestAClaimThatIsSentTwiceWaitsForReplicasToo(t *testing.T) {
	p := newPair(t)
	s := opened(t, redis.Options{Endpoint: endpoint(t, p.proxy.URL()), WaitReplicas: 1, WaitTimeout: 300 * time.Millisecond})
	eventually(t, "a claim is made", func() bool {
		made, _ := claim(s, started("a"))
		return made
	})
	if err := p.replica.Pause(); err != nil {
		t.Fatal(err)
	}
	lost := p.proxy.LoseReply(func(request []byte) bool { return command("EVAL")(request) && command(":r:")(request) })
	rec := started("b")
	if made, err := claim(s, rec); made || err == nil {
		t.Errorf("a claim that no replica has: %t, %v", made, err)
	}
	<-lost
	wantState(t, s, rec.ID, 0)
}

// What stands in a claim's way needs no replicas.
func TestWhatIsStoredIsToldThoughReplicasAreMissing(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	e := endpoint(t, server.URL())
	rec := started("a")
	s := opened(t, redis.Options{Endpoint: e})
	mustClaim(t, s, rec)
	if err := s.Finish(t.Context(), done(rec, 10)); err != nil {
		t.Fatal(err)
	}
	s = opened(t, redis.Options{Endpoint: e, WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	standing, err := s.Claim(t.Context(), started("a"), idempotency.Owner{})
	if err != nil || standing == nil || standing.State != idempotency.Done {
		t.Errorf("claiming what is done: %v, %v", standing, err)
	}
}

func TestAClusterWithoutReplicasHasTooFew(t *testing.T) {
	cluster := redistest.NewCluster(t, 3, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, "redis://"+cluster.Addrs()[0]), WaitReplicas: 1, WaitTimeout: 50 * time.Millisecond})
	for _, name := range []string{"a", "b", "c", "d"} {
		rec := started(name)
		if made, err := claim(s, rec); made || !errors.Is(err, idempotency.ErrNotMade) {
			t.Errorf("a claim: %t, %v", made, err)
		}
		wantState(t, s, rec.ID, 0)
	}
}

func TestAStoreFollowsTheMasterThatSentinelNames(t *testing.T) {
	master := redistest.New(t, redistest.Options{Args: safe})
	replica := redistest.New(t, redistest.Options{Args: safe, ReplicaOf: master})
	sentinel := redistest.NewSentinel(t, redistest.SentinelOptions{
		Master: master, Name: "calls", Quorum: 1, DownAfter: 300 * time.Millisecond,
	})
	if err := sentinel.WaitSees(1, 0); err != nil {
		t.Fatal(err)
	}
	s := opened(t, redis.Options{
		Endpoint:     endpoint(t, "redis://"+sentinel.Addr()+"?master_set=calls"),
		WaitReplicas: 1, WaitTimeout: 3 * time.Second,
	})
	rec := started("a")
	mustClaim(t, s, rec)
	if err := master.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := sentinel.WaitMaster(replica); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store serves again", func() bool { return serves(s) })
	wantState(t, s, rec.ID, idempotency.Started)
	// There is no replica any more, so that nothing new can be promised.
	made, err := claim(s, started("b"))
	if made || err == nil {
		t.Errorf("a claim: %v, %v", made, err)
	}
}
