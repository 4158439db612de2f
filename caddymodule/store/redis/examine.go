package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/redis/rueidis"
)

// Examined is what was found out about a node of Redis.
type Examined struct {
	Address  string
	Version  string
	Replica  bool
	Findings []string // what weakens a promise, and what to do about it
	Err      error    // why nothing could be found out, or why it cannot be used
}

// Examine looks at the Redis that o leads to without opening a store in it: it
// reads its settings and writes nothing. Its error says that there is no
// connection to be had.
func Examine(ctx context.Context, o Options) ([]Examined, error) {
	o = o.withDefaults()
	option, err := o.clientOption()
	if err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, o.CommandTimeout)
	defer cancel()
	if err := client.Do(ctx, client.B().Ping().Build()).Error(); err != nil {
		return nil, fmt.Errorf("asking for a sign of life: %w", err)
	}

	nodes := client.Nodes()
	var all []Examined
	for _, addr := range slices.Sorted(maps.Keys(nodes)) {
		e := Examined{Address: addr}
		about, err := ask(ctx, nodes[addr])
		if err == nil {
			e.Version, e.Replica = about["redis_version"], about["role"] == "slave"
			err = about.checkVersion()
		}
		if e.Err = err; err == nil && !e.Replica {
			e.Findings = about.findings(o.WaitReplicas)
		}
		all = append(all, e)
	}
	return all, nil
}
