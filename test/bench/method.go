package main

import (
	"fmt"
	"time"
)

// method tells how the numbers came about.
func (r *report) method() []string {
	notes := []string{
		fmt.Sprintf("Contenders were driven in turn, %v each, %d rounds (%d for growth), over %d connections where nothing else is said. A ratio is the median of the rounds' ratios; in brackets are the lowest and the highest. All other numbers are medians of the rounds.",
			r.duration, r.rounds, r.growthRounds(), r.connections),
		"The load generator, the upstream and the contender share the machine's cores. A fast contender is thus nearer to a slow one in calls per second than in CPU per request, which is the contender's own, children included, until it has tidied up after its turn.",
		fmt.Sprintf("Everybody who can take it is sent the same request: POST, a JSON body of %d bytes, an `Idempotency-Key`; answers have %d bytes. The tutorial's program takes the key in the body.", requestSize, answerSize),
		fmt.Sprintf("A replay is of one of %s answers, each told in turn; its mark is checked on each. Fresh calls have a key of their own each; the upstream counts, and had executed each of them once, after every turn. Any other status than 200 would have ended the run.", thousands(distinctReplays)),
		"Requests follow each other on a connection (a closed loop), except at a steady rate: there one goroutine sends each request when it is due, on whichever connection is idle, and latencies count from when it was due.",
		"The thousand callers of one call have read a made-up answer before they send, so that the memory that they read into is there.",
		"Answers are random letters and differ from each other, so that the store has nothing to compress.",
		"Caddy is the sidecar's own binary with another Caddyfile. Its reverse_proxy keeps 32 idle connections unless told otherwise; the sidecar keeps 256. The row \"256 connections kept\" is Caddy told otherwise. With the disk store the sidecar raises Go's GOMAXPROCS by four; another row is Caddy with as many.",
		"The sidecar runs as it is shipped, with Go's default settings and the room that it gives its heap by itself (64 MiB), but for the store's place, a memory store with room for all (2 GiB) and, where it says so, L1 switched off. Its disk store syncs twice for each call, before it is sent and before it is answered; nobody else here does.",
		"RSS is the sum of a contender's processes; memory that they share counts more than once. The heap is what is left after two garbage collections. A store's size is the sum of its files.",
		"Starts count from exec, at intervals of a millisecond, and find the files in the page cache.",
	}
	if r.hasContender("sidecar, fresh, Redis") {
		notes = append(notes, "The Redis store's redis-server has a turn's cores too; its CPU and memory are not counted as the sidecar's.")
	}
	if r.hasContender("nginx") {
		notes = append(notes, "nginx has one worker for each core, keeps connections to the upstream and clients' for as long as they like, writes no access log, and caches POST under the key (`proxy_cache_methods`). Its files are not synced.")
	}
	if r.hasContender("Varnish") {
		notes = append(notes, "Varnish is told to cache POST under the key, in memory.")
	}
	if r.hasContender("tutorial") {
		notes = append(notes, "The tutorial's program is `test/bench/tutorial/app.py` in one uvicorn worker, and keeps its answers in a dict. It uses httpx; Debian's uvicorn does without uvloop and httptools. As written, its turn takes five times as long as the others', since an answer takes seconds.")
	}
	if cost, ok := r.generatorCost(); ok {
		notes = append(notes, fmt.Sprintf("The load generator itself took %.1f µs of CPU for a request to Caddy respond.", float64(cost)/float64(time.Microsecond)))
	}
	return notes
}

// hasContender tells whether somebody of this name was driven.
func (r *report) hasContender(name string) bool {
	for _, d := range r.details {
		for _, c := range d.contenders {
			if len(c.name) >= len(name) && c.name[:len(name)] == name {
				return true
			}
		}
	}
	return false
}

// generatorCost returns what the load generator spent on a request that costs
// its server the least.
func (r *report) generatorCost() (time.Duration, bool) {
	for _, d := range r.details {
		for i, c := range d.contenders {
			if c.name == "Caddy respond" && every(d.all[i], knowsUsage) {
				return over(d.all[i], func(s sample) time.Duration { return s.generator }), true
			}
		}
	}
	return 0, false
}
