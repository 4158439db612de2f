package main

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// deed is what is done to a part of the fleet.
type deed int

const (
	killSidecar deed = iota
	stopSidecar
	pauseSidecar
	reloadSidecar
	killRedis
	pauseRedis
)

func (d deed) String() string {
	return [...]string{"kill -9", "stop", "pause", "reload", "kill -9", "pause"}[d]
}

// redis is the target that is no sidecar.
const redis = -1

// event is a deed to come.
type event struct {
	at     time.Duration // from the start
	deed   deed
	target int           // a sidecar's number, or redis
	length time.Duration // how long it is paused or away, its way down not included
}

func (e event) String() string {
	text := fmt.Sprintf("%9s %-7v %s", e.at.Round(time.Millisecond), e.deed, targetName(e.target))
	if e.length > 0 {
		text += fmt.Sprintf(" for %v", e.length)
	}
	return text
}

func targetName(target int) string {
	if target == redis {
		return "redis"
	}
	return fmt.Sprintf("sidecar %d", target)
}

// kinds are the deeds, as likely as their weight says. The lengths are on both
// sides of the lease, which is a second, and of the command timeout.
var kinds = []struct {
	deed        deed
	weight      int
	least, most time.Duration
}{
	{killSidecar, 5, 0, 3 * time.Second},
	{stopSidecar, 2, 0, time.Second},
	{pauseSidecar, 6, 100 * time.Millisecond, 4 * time.Second},
	{reloadSidecar, 2, 0, 0},
	{killRedis, 2, 0, 2 * time.Second},
	{pauseRedis, 3, 100 * time.Millisecond, 3 * time.Second},
}

// recovery is how long a target is left alone after an event, so that the fleet
// is at work most of the time.
const recovery = 1500 * time.Millisecond

// newSchedule draws the events of a run. They are up to seed and the other
// parameters alone. One target has one event at a time, and one sidecar at least
// has none.
func newSchedule(seed uint64, duration time.Duration, sidecars int, every time.Duration) []event {
	r := rand.New(rand.NewPCG(seed, 0x736f616b))
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	free := make(map[int]time.Duration) // when a target may be next
	var events []event
	at := time.Second // the clients begin alone
	for {
		at += every/4 + time.Duration(r.Int64N(int64(3*every/2)+1)) // the mean is every
		n := r.IntN(total)
		i := 0
		for ; n >= kinds[i].weight; i++ {
			n -= kinds[i].weight
		}
		k := kinds[i]
		e := event{at: at.Round(time.Millisecond), deed: k.deed, target: redis}
		if k.deed != killRedis && k.deed != pauseRedis {
			e.target = r.IntN(sidecars)
		}
		if k.most > 0 {
			// Short ones are as likely as long ones, on a scale of ratios.
			e.length = k.least + time.Duration(float64(k.most-k.least)*r.Float64()*r.Float64())
			e.length = e.length.Round(time.Millisecond)
		}
		if e.at >= duration {
			return events
		}
		busy := 0
		for target, until := range free {
			if target != redis && target != e.target && until > e.at {
				busy++
			}
		}
		if free[e.target] > e.at || e.target != redis && busy >= sidecars-1 {
			continue
		}
		free[e.target] = e.at + e.length + recovery
		events = append(events, e)
	}
}
