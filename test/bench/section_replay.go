package main

import "context"

// distinctReplays is among how many stored answers those that are told again
// are.
const distinctReplays = 1000

// sectionReplay compares a stored answer, told again, with answers that cost
// next to nothing to make up.
func (b *bench) sectionReplay(ctx context.Context) error {
	cached, err := b.startSidecar(ctx, sidecarConfig{store: diskStore})
	if err != nil {
		return err
	}
	uncached, err := b.startSidecar(ctx, sidecarConfig{store: diskStore, cacheOff: true})
	if err != nil {
		return err
	}
	bare, err := b.startCaddy(ctx, answerSize)
	if err != nil {
		return err
	}
	fromL1, err := b.toldAgain(ctx, "sidecar, replay from L1", &cached.server, distinctReplays)
	if err != nil {
		return err
	}
	fromDisk, err := b.toldAgain(ctx, "sidecar, replay from disk, L1 off", &uncached.server, distinctReplays)
	if err != nil {
		return err
	}
	contenders := []contender{fromL1, ownAnswers("Caddy respond", bare.respond), fromDisk}
	const l1, respond, disk = 0, 1, 2

	tutorial, err := b.startTutorial(ctx, true)
	if err != nil {
		return err
	}
	if tutorial != nil {
		c, err := b.toldAgain(ctx, "tutorial's program, replay", tutorial, distinctReplays)
		if err != nil {
			return err
		}
		contenders = append(contenders, c)
	}
	others, err := b.otherReplays(ctx)
	if err != nil {
		return err
	}
	contenders = append(contenders, others...)

	all, err := b.duel(ctx, b.rounds, b.load(), contenders...)
	if err != nil {
		return err
	}
	b.report.addDetails("An answer told again", contenders, all, respond)
	b.report.atLeast("replay from L1", "Caddy `respond`, same size", speedRatio(all[l1], all[respond]), 0.90)
	b.report.atLeast("replay from disk, L1 off", "Caddy `respond`, same size", speedRatio(all[disk], all[respond]), 0.50)
	if tutorial != nil {
		b.report.atLeast("replay from L1", "the tutorial's program", speedRatio(all[l1], all[disk+1]), 7)
		b.report.note("Caddy's respond, which has nothing to look up, against the tutorial's replay: %s.", ratioText(speedRatio(all[respond], all[disk+1])))
	}
	return nil
}

// otherReplays returns what is there for context: servers that do less, or that
// keep answers in another way.
func (b *bench) otherReplays(ctx context.Context) ([]contender, error) {
	var others []contender
	nginx, err := b.startNginx(ctx)
	if err != nil {
		return nil, err
	}
	if nginx != nil {
		hit, err := b.toldAgain(ctx, "nginx proxy_cache, hit", nginx.cache, distinctReplays)
		if err != nil {
			return nil, err
		}
		others = append(others, ownAnswers("nginx return", nginx.static), hit)
	}
	varnish, err := b.startVarnish(ctx)
	if err != nil {
		return nil, err
	}
	if varnish != nil {
		hit, err := b.toldAgain(ctx, "Varnish, hit", varnish, distinctReplays)
		if err != nil {
			return nil, err
		}
		others = append(others, hit)
	}
	return others, nil
}
