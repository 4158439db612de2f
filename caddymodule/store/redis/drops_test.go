package redis_test

import (
	"sync/atomic"
	"testing"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

func TestAProcessThatMayHaveMissedADropIsToldToDropAll(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	s := opened(t, redis.Options{Endpoint: endpoint(t, server.URL())})
	var all atomic.Int32
	s.OnDrop(func(_ idempotency.ID, everything bool) {
		if everything {
			all.Add(1)
		}
	})
	eventually(t, "it listens", func() bool {
		fields, err := server.Do("PUBSUB", "NUMSUB", "genesys-sidecar:news")
		list, ok := fields.([]any)
		return err == nil && ok && len(list) == 2 && list[1] == int64(1)
	})
	before := all.Load()
	if _, err := server.Do("CLIENT", "KILL", "TYPE", "pubsub"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is told to drop all", func() bool { return all.Load() > before })
}
