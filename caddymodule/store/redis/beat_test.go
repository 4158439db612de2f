package redis

import (
	"testing"
	"time"
)

// Others can be taken for dead only by who would have heard of them.
func TestWhoHasNotHeardOfAnythingJudgesNobody(t *testing.T) {
	const lease = 4 * time.Second
	start := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	millis := func(s int) int64 { return at(s).UnixMilli() }
	for name, test := range map[string]struct {
		beat func(p *pulse) // after regular beats from 0 to 10
		now  int            // here; Redis' clock has been set by jump
		jump int
		want bool
	}{
		"it beats regularly":       {now: 11, want: true},
		"it has not beaten lately": {now: 14},
		"Redis' clock was set forward, which no beat has found yet": {now: 10, jump: 100},
		"a beat found that Redis' clock was set forward": {
			beat: func(p *pulse) { p.note(at(11), millis(10), millis(111), lease) }, now: 12, jump: 100,
		},
		"a beat found that Redis' clock was set back": {
			beat: func(p *pulse) { p.note(at(11), millis(10), millis(-50), lease) }, now: 12, jump: -61,
		},
		"a beat found another before it than its own": {
			beat: func(p *pulse) { p.note(at(11), millis(9), millis(11), lease) }, now: 12,
		},
		"a beat found none before it": {
			beat: func(p *pulse) { p.note(at(11), 0, millis(11), lease) }, now: 12,
		},
		"a beat came late": {
			beat: func(p *pulse) { p.note(at(20), millis(10), millis(20), lease) }, now: 21,
		},
		"it has beaten for a lease since then": {
			beat: func(p *pulse) {
				for s := 20; s <= 24; s++ {
					before := millis(s - 1)
					if s == 20 {
						before = millis(10)
					}
					p.note(at(s), before, millis(s), lease)
				}
			}, now: 24, want: true,
		},
	} {
		p := &pulse{joined: true}
		p.note(at(0), 0, millis(0), lease)
		if p.canJudge(at(3), millis(3), lease) {
			t.Errorf("%s: it judges though it has just come", name)
		}
		for s := 1; s <= 10; s++ {
			p.note(at(s), millis(s-1), millis(s), lease)
		}
		if test.beat != nil {
			test.beat(p)
		}
		if got := p.canJudge(at(test.now), millis(test.now+test.jump), lease); got != test.want {
			t.Errorf("%s: it judges: %t, want %t", name, got, test.want)
		}
	}
	p := &pulse{}
	p.note(at(0), 0, millis(0), lease)
	p.note(at(1), millis(0), millis(1), lease)
	if p.canJudge(at(1).Add(lease), millis(1), lease) {
		t.Error("who has not joined judges")
	}
}
