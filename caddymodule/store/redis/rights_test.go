package redis_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// rights are what the README tells an administrator to grant.
const rights = "~genesys-sidecar:* &genesys-sidecar:* +@connection +info +role +config|get " +
	"+eval +evalsha +get +set +del +getrange +setrange +time +publish +subscribe " +
	"+zadd +zrem +zrange +zremrangebyscore +pttl +pexpire +wait +hgetall +hset +hdel +xadd +xdel +xrange " +
	"+cluster|slots +cluster|shards"

// nothing is what a process has to do before it shows a sign of life.
func nothing(context.Context) error { return nil }

func TestTheRightsThatTheReadmeNamesSuffice(t *testing.T) {
	server := redistest.New(t, redistest.Options{
		Args: append([]string{"--user", "sidecar", "on", ">pw"}, strings.Fields(rights)...),
	})
	replica := redistest.New(t, redistest.Options{ReplicaOf: server})
	if err := replica.WaitSynced(server); err != nil {
		t.Fatal(err)
	}
	var log logBuffer
	where := endpoint(t, strings.Replace(server.URL(), "redis://", "redis://sidecar:pw@", 1))
	options := redis.Options{
		Endpoint: where, WaitReplicas: 1, WaitTimeout: 10 * time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	a, b := opened(t, options), open(t, options) // the other is closed below
	p, q := idempotency.NewProcess(), idempotency.NewProcess()
	a.Join(p, nothing)
	b.Join(q, nothing)

	ctx := t.Context()
	rec := started("a")
	rec.Adoption = idempotency.NewAdoptionID("org", "scope", rec.Fingerprint)
	rec.Attendant = p.NewOwner()
	mustClaim(t, a, rec)
	changed, stop, err := b.Watch(ctx, rec.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if alive, err := b.Ping(ctx, p); !alive || err != nil {
		t.Errorf("pinging: %t, %v", alive, err)
	}
	if ok, err := a.Attend(ctx, rec.ID, rec.Attendant, idempotency.Owner{}); !ok || err != nil {
		t.Errorf("attending: %t, %v", ok, err)
	}
	if standing, err := a.Renew(ctx, rec); standing != nil || err != nil {
		t.Errorf("renewing: %v, %v", standing, err)
	}
	if err := a.Finish(ctx, done(rec, 100)); err != nil {
		t.Errorf("finishing: %v", err)
	}
	select {
	case <-changed:
	case <-time.After(patience):
		t.Error("no notice came")
	}
	if page, err := b.List(ctx, idempotency.Query{}); len(page.Records) != 1 || err != nil {
		t.Errorf("listing: %v, %v", page, err)
	}
	if _, err := b.Tally(ctx); err != nil {
		t.Errorf("counting: %v", err)
	}
	if recs, err := b.Unsettled(ctx, rec.Adoption); len(recs) != 1 || err != nil {
		t.Errorf("unsettled: %v, %v", recs, err)
	}
	for what, err := range map[string]error{
		"telling":   b.Tell(ctx, rec.ID, rec.Owner, time.Now()),
		"settling":  b.Settle(ctx, rec.ID, rec.Owner),
		"releasing": b.Release(ctx, rec.ID, rec.Owner),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if g, err := b.Take(ctx, "org", limits, pacing.Ask{Want: 1}); g.Starts != 1 || err != nil {
		t.Errorf("taking starts: %+v, %v", g, err)
	}
	if err := b.Hold(ctx, "org", limits, time.Second); err != nil {
		t.Errorf("holding starts: %v", err)
	}
	for _, name := range []string{"q", "r"} {
		if standing, err := a.Enqueue(ctx, queued(name, "lane"), idempotency.Owner{}, idempotency.Bounds{Calls: 10}); standing != nil || err != nil {
			t.Errorf("enqueuing: %v, %v", standing, err)
		}
	}
	if mine, _, err := b.Parts(ctx); len(mine) != parts || err != nil {
		t.Errorf("parts: %v, %v", mine, err)
	}
	if err := b.Release(ctx, queued("q", "lane").ID, deferred(t, b, queued("q", "lane").ID).Owner); err != nil {
		t.Errorf("releasing a queued call: %v", err)
	}
	if err := b.Dequeue(ctx, deferred(t, b, queued("r", "lane").ID).Deferred.Place); err != nil {
		t.Errorf("dequeuing: %v", err)
	}
	wantDepth(t, b, 0)
	if err := b.Close(); err != nil {
		t.Errorf("closing: %v", err)
	}
	if mine, _, err := a.Parts(ctx); len(mine) != parts || err != nil {
		t.Errorf("parts when the other has gone: %v, %v", mine, err)
	}
	if g, err := a.Take(ctx, "org", limits, pacing.Ask{}); g.Sharers != 1 || err != nil {
		t.Errorf("when the other has gone: %+v, %v", g, err)
	}
	if text := log.String(); strings.Contains(text, "NOPERM") {
		t.Errorf("the log says:\n%s", text)
	}
}

func TestTheRightsSufficeBehindSentinelAndInACluster(t *testing.T) {
	user := append([]string{"--user", "sidecar", "on", ">pw"}, strings.Fields(rights)...)
	server := redistest.New(t, redistest.Options{Args: user})
	sentinel := redistest.NewSentinel(t, redistest.SentinelOptions{Master: server, Name: "calls"})
	cluster := redistest.NewCluster(t, 3, redistest.Options{Args: user})
	for name, url := range map[string]string{
		"Sentinel":  "redis://sidecar:pw@" + sentinel.Addr() + "?master_set=calls",
		"a Cluster": "redis://sidecar:pw@" + cluster.Addrs()[0],
	} {
		var log logBuffer
		s := opened(t, redis.Options{Endpoint: endpoint(t, url), Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s.Join(idempotency.NewProcess(), nothing)
		for _, key := range []string{"a", "b", "c", "d"} { // of several nodes
			rec := started(key)
			rec.Adoption = idempotency.NewAdoptionID("org", "scope", rec.Fingerprint)
			eventually(t, "claiming with "+name, func() bool {
				made, _ := claim(s, rec)
				return made
			})
			if err := s.Finish(t.Context(), done(rec, 100)); err != nil {
				t.Errorf("finishing with %s: %v", name, err)
			}
		}
		if page, err := s.List(t.Context(), idempotency.Query{}); len(page.Records) != 4 || err != nil {
			t.Errorf("listing with %s: %v, %v", name, page, err)
		}
		if text := log.String(); strings.Contains(text, "NOPERM") {
			t.Errorf("with %s, the log says:\n%s", name, text)
		}
	}
}
