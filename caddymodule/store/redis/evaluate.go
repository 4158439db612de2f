package redis

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/rueidis"
)

// evaluation is a script to be run on one key, or on several that are in one slot
// of a Cluster.
type evaluation struct {
	script *script
	key    string
	more   []string
	args   []string

	// Where there is no script, key is an index, into which args are put or from
	// which they are taken. Nobody depends on an index: its failure is nobody's.
	takes bool
}

// exec is do with a script, which others may have to precede, those that are of
// indexes first. They are sent together where one server has all keys, else those
// that precede are. The result is that of the last; where that is no failure, but one
// before is, the error wraps errAside.
func (s *Store) exec(ctx context.Context, evaluations ...evaluation) (rueidis.RedisResult, error) {
	before, main := evaluations[:len(evaluations)-1], evaluations[len(evaluations)-1]
	var aside error
	result, err := s.twice(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		var results []rueidis.RedisResult // of before, and maybe of main
		var result rueidis.RedisResult
		switch {
		case len(before) == 0:
			return evaluate(ctx, c, main)
		case c.Mode() == rueidis.ClientModeCluster:
			results = evaluateAll(ctx, c, before)
			result = evaluate(ctx, c, main)
		default:
			results = evaluateAll(ctx, c, evaluations)
			result = results[len(before)]
		}
		aside = nil
		for i, e := range before {
			if e.script != nil && isFailure(results[i]) {
				aside = results[i].Error()
			}
		}
		return result
	})
	if err == nil && aside != nil {
		err = fmt.Errorf("%w: %s", errAside, aside.Error())
	}
	return result, err
}

// execDurably is exec, for what must not be lost when Redis fails over. Where
// the last has too few replicas, the error wraps errTooFewReplicas.
func (s *Store) execDurably(ctx context.Context, evaluations ...evaluation) (rueidis.RedisResult, error) {
	if s.options.WaitReplicas == 0 {
		return s.exec(ctx, evaluations...)
	}
	// (A copy, since what goes to a connection of its own is moved to the heap, and
	// would take what exec is given with it.)
	before, main := slices.Clone(evaluations[:len(evaluations)-1]), evaluations[len(evaluations)-1]
	if n := len(before); n > 0 && before[n-1].script != nil {
		if result, err := s.exec(ctx, before...); err != nil {
			return result, err
		}
		before = nil
	}
	var replicas int64
	var refused error
	result, err := s.twice(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		var result, wait rueidis.RedisResult
		result, wait = s.evaluateAndWait(ctx, c, before, main)
		replicas, refused = wait.AsInt64()
		if refused != nil && !isFailure(result) && !isRedisError(refused) {
			return wait // its reply was lost, and the script's may come again
		}
		return result
	})
	switch {
	case err != nil:
		return result, err
	case refused != nil:
		return result, fmt.Errorf("%w: %s", errTooFewReplicas, refused.Error())
	case replicas < int64(s.options.WaitReplicas):
		return result, fmt.Errorf("%w: %d of %d have the change after %v", errTooFewReplicas, replicas, s.options.WaitReplicas, s.options.WaitTimeout)
	default:
		return result, nil
	}
}

// evaluateAndWait has Redis change indexes, run a script and then wait for
// replicas, on one connection: WAIT is about what was written on its own.
func (s *Store) evaluateAndWait(ctx context.Context, c rueidis.Client, indexes []evaluation, e evaluation) (result, wait rueidis.RedisResult) {
	if len(indexes) > 0 && c.Mode() == rueidis.ClientModeCluster {
		evaluateAll(ctx, c, indexes)
		indexes = nil
	}
	err := c.Dedicated(func(d rueidis.DedicatedClient) error {
		send := func(script rueidis.Completed) {
			var commands []rueidis.Completed
			for _, i := range indexes {
				commands = append(commands, i.byDigest(d.B()))
			}
			results := d.DoMulti(ctx, append(commands, script,
				d.B().Wait().Numreplicas(int64(s.options.WaitReplicas)).Timeout(s.options.WaitTimeout.Milliseconds()).Build())...)
			result, wait = results[len(indexes)], results[len(indexes)+1]
		}
		send(e.byDigest(d.B()))
		if isKind(result.Error(), "NOSCRIPT") {
			send(e.byText(d.B()))
		}
		return nil
	})
	if err != nil {
		return rueidis.NewErrorResult(err), rueidis.NewErrorResult(err)
	}
	if isKind(result.Error(), "MOVED") || isKind(result.Error(), "ASK") {
		// The client finds the key's new place if it is asked for it.
		c.Do(ctx, c.B().Exists().Key(e.key).Build())
	}
	return result, wait
}

func (e evaluation) byDigest(b rueidis.Builder) rueidis.Completed {
	if e.script == nil {
		return e.ofIndex(b)
	}
	return b.Evalsha().Sha1(e.script.sha1).Numkeys(int64(1 + len(e.more))).Key(e.key).Key(e.more...).Arg(e.args...).Build()
}

func (e evaluation) byText(b rueidis.Builder) rueidis.Completed {
	if e.script == nil {
		return e.ofIndex(b)
	}
	return b.Eval().Script(e.script.text).Numkeys(int64(1 + len(e.more))).Key(e.key).Key(e.more...).Arg(e.args...).Build()
}

func (e evaluation) ofIndex(b rueidis.Builder) rueidis.Completed {
	if e.takes {
		return b.Zrem().Key(e.key).Member(e.args...).Build()
	}
	put := b.Zadd().Key(e.key).ScoreMember()
	for _, member := range e.args {
		put = put.ScoreMember(0, member)
	}
	return put.Build()
}

// evaluate has Redis run a script, by its digest if Redis knows that.
func evaluate(ctx context.Context, c rueidis.Client, e evaluation) rueidis.RedisResult {
	result := c.Do(ctx, e.byDigest(c.B()))
	if isKind(result.Error(), "NOSCRIPT") {
		return c.Do(ctx, e.byText(c.B()))
	}
	return result
}

// evaluateAll is evaluate with several, which are sent together.
func evaluateAll(ctx context.Context, c rueidis.Client, evaluations []evaluation) []rueidis.RedisResult {
	send := func(build func(evaluation, rueidis.Builder) rueidis.Completed) []rueidis.RedisResult {
		commands := make([]rueidis.Completed, len(evaluations))
		for i, e := range evaluations {
			commands[i] = build(e, c.B())
		}
		return c.DoMulti(ctx, commands...)
	}
	results := send(evaluation.byDigest)
	for _, r := range results {
		if isKind(r.Error(), "NOSCRIPT") {
			return send(evaluation.byText) // those that have run may do so twice, as after a lost reply
		}
	}
	return results
}
