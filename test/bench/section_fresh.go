package main

import (
	"context"
	"fmt"
	"runtime"
)

// sectionFresh compares a call that runs, and is kept, with one that is only
// passed on.
func (b *bench) sectionFresh(ctx context.Context) error {
	bare, err := b.startCaddy(ctx, answerSize)
	if err != nil {
		return err
	}
	contenders := []contender{freshCalls("Caddy reverse_proxy", bare.proxy)}
	const proxy, firstStore = 0, 1
	disk := 0
	for _, s := range stores {
		sidecar, err := b.startSidecar(ctx, sidecarConfig{store: s})
		if err != nil {
			return err
		}
		if s.name == diskStore.name {
			disk = len(contenders)
		}
		contenders = append(contenders, freshCalls("sidecar, fresh, "+s.name, &sidecar.server))
	}
	// What the sidecar does differently from Caddy, and Caddy can be told too.
	roomy, err := b.startCaddy(ctx, answerSize, fmt.Sprintf("GOMAXPROCS=%d", runtime.GOMAXPROCS(0)+diskStoreProcs))
	if err != nil {
		return err
	}
	tuned := len(contenders)
	contenders = append(contenders,
		freshCalls("Caddy reverse_proxy, 256 connections kept", bare.keeping),
		freshCalls("Caddy reverse_proxy, GOMAXPROCS as with the disk store", roomy.proxy),
		freshCalls("Caddy reverse_proxy, both", roomy.keeping))

	written, err := b.startTutorial(ctx, false)
	if err != nil {
		return err
	}
	shared, err := b.startTutorial(ctx, true)
	if err != nil {
		return err
	}
	firstTutorial := len(contenders)
	if written != nil && shared != nil {
		asWritten := freshCalls("tutorial's program, fresh, as written", written)
		asWritten.slow = true
		contenders = append(contenders, asWritten, freshCalls("tutorial's program, fresh, client and token shared", shared))
	}
	others, err := b.otherCalls(ctx)
	if err != nil {
		return err
	}
	contenders = append(contenders, others...)

	all, err := b.duel(ctx, b.rounds, b.load(), contenders...)
	if err != nil {
		return err
	}
	b.report.addDetails("A call that runs", contenders, all, proxy)
	for i, s := range stores {
		b.report.add(target{
			what: "fresh call, " + s.name + " store" + s.note, against: "Caddy `reverse_proxy`",
			got: speedRatio(all[firstStore+i], all[proxy]), limit: s.fresh, then: s.then,
		})
		for j, how := range []string{"told to keep 256 connections", "with GOMAXPROCS as with the disk store", "with both"} {
			b.report.note("A fresh call with the %s store, against Caddy's reverse_proxy %s: %s.",
				s.name, how, ratioText(speedRatio(all[firstStore+i], all[tuned+j])))
		}
	}
	if written != nil && shared != nil {
		b.report.atLeast("fresh call, disk store", "the tutorial's program, as written", speedRatio(all[disk], all[firstTutorial]), 300)
		b.report.atLeast("fresh call, disk store", "the tutorial's program, client and token shared", speedRatio(all[disk], all[firstTutorial+1]), 15)
		b.report.note("Caddy's reverse_proxy, which keeps nothing, against the tutorial's program: %s as written, %s with client and token shared.",
			ratioText(speedRatio(all[proxy], all[firstTutorial])), ratioText(speedRatio(all[proxy], all[firstTutorial+1])))
	}
	return nil
}

// otherCalls returns what is there for context: servers that pass calls on, and
// some that keep the answers without promising anything about them.
func (b *bench) otherCalls(ctx context.Context) ([]contender, error) {
	var others []contender
	nginx, err := b.startNginx(ctx)
	if err != nil {
		return nil, err
	}
	if nginx != nil {
		others = append(others,
			freshCalls("nginx proxy", nginx.proxy),
			freshCalls("nginx proxy_cache, miss that is stored", nginx.cache))
	}
	varnish, err := b.startVarnish(ctx)
	if err != nil {
		return nil, err
	}
	if varnish != nil {
		others = append(others, freshCalls("Varnish, miss that is stored", varnish))
	}
	return others, nil
}
