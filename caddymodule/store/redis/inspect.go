package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/rueidis"
)

// inspection is what was said of Redis' settings before: the same is not said
// again with every connection.
type inspection struct {
	mu   sync.Mutex
	said []string // guarded by mu
}

// leastVersion is the first major version whose scripts can have flags.
const leastVersion = 7

// inspect looks at how Redis is set up and warns of what weakens a promise. It
// fails if this Redis cannot be used at all.
func (s *Store) inspect(ctx context.Context, client rueidis.Client) error {
	var findings []string
	var silent error
	answered := false
	for addr, node := range client.Nodes() {
		about, err := ask(ctx, node)
		if err != nil { // others may serve; in a Cluster, one that is down does not stop them
			silent = fmt.Errorf("asking %s for its settings: %w", addr, err)
			continue
		}
		answered = true
		if about["role"] == "slave" {
			continue // in a Cluster, or behind Sentinel; a single one refuses to be written
		}
		if err := about.checkVersion(); err != nil {
			return fmt.Errorf("checking %s: %w", addr, err)
		}
		for _, f := range about.findings(s.options.WaitReplicas) {
			findings = append(findings, addr+": "+f)
		}
	}
	if !answered && silent != nil {
		return silent
	}
	slices.Sort(findings)

	s.inspected.mu.Lock()
	defer s.inspected.mu.Unlock()
	for _, f := range findings {
		if !slices.Contains(s.inspected.said, f) {
			addr, f, _ := strings.Cut(f, ": ")
			s.log.Warn("redis is set up so that a promise is weakened: "+f, slog.String("redis", addr))
		}
	}
	s.inspected.said = findings
	return nil
}

// settings are what INFO and CONFIG GET say, by name.
type settings map[string]string

// ask asks node for its settings. CONFIG is not allowed everywhere; INFO has
// nearly all there is to know.
func ask(ctx context.Context, node rueidis.Client) (settings, error) {
	about := make(settings)
	info, err := node.Do(ctx, node.B().Info().Build()).ToString()
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			about[name] = value
		}
	}
	config, err := node.Do(ctx, node.B().ConfigGet().Parameter("appendfsync").Build()).AsStrMap()
	if err != nil && !isRedisError(err) {
		return nil, err
	}
	maps.Copy(about, config)
	return about, nil
}

func (a settings) checkVersion() error {
	version := a["redis_version"] // Valkey says here what Redis it is compatible with
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < leastVersion {
		return errors.New("its version is " + version + "; it has to be Redis 7 or later, or Valkey")
	}
	return nil
}

// findings returns what weakens a promise, and what to do about it.
func (a settings) findings(waitReplicas int) []string {
	var found []string
	if policy := a["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		found = append(found, "maxmemory-policy is "+policy+": under pressure Redis forgets calls, which then may run twice; set it to noeviction")
	}
	switch {
	case a["aof_enabled"] == "0":
		found = append(found, "appendonly is no: when Redis ends, it forgets the calls since its last snapshot, which then may run twice; set it to yes")
	case a["appendfsync"] != "" && a["appendfsync"] != "always":
		found = append(found, "appendfsync is "+a["appendfsync"]+": when its machine loses power, Redis forgets the latest calls, which then may run twice; set it to always")
	}
	replicas, _ := strconv.Atoi(a["connected_slaves"])
	switch {
	case replicas > 0 && waitReplicas == 0:
		found = append(found, "it has replicas and nobody waits for them: when one takes over, the latest calls are forgotten and may run twice; set wait_replicas")
	case replicas < waitReplicas:
		found = append(found, fmt.Sprintf("it has %d replicas and wait_replicas is %d: all calls are refused until it has that many", replicas, waitReplicas))
	}
	return found
}
