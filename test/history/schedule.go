package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Deed is what is done to a part of the fleet.
type Deed int

const (
	KillSidecar Deed = iota
	StopSidecar
	PauseSidecar
	ReloadSidecar
	KillRedis
	PauseRedis
)

func (d Deed) String() string {
	return [...]string{"kill -9", "stop", "pause", "reload", "kill -9", "pause"}[d]
}

// redis is the target that is no sidecar.
const redis = -1

// event is a deed to come.
type event struct {
	at     time.Duration // from the start
	deed   Deed
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

// eventKind is a kind of event: how likely it is, and how long it takes.
type eventKind struct {
	deed        Deed
	weight      int
	least, most time.Duration
}

// eventKinds are the deeds, as likely as their weight says. The lengths are on
// both sides of the lease, which is a second, and of the command timeout.
var eventKinds = []eventKind{
	{KillSidecar, 5, 0, 3 * time.Second},
	{StopSidecar, 2, 0, time.Second},
	{PauseSidecar, 6, 100 * time.Millisecond, 4 * time.Second},
	{ReloadSidecar, 2, 0, 0},
	{KillRedis, 2, 0, 2 * time.Second},
	{PauseRedis, 3, 100 * time.Millisecond, 3 * time.Second},
}

// swiftKinds are the deeds where nobody else has a lease.
var swiftKinds = []eventKind{
	{KillSidecar, 14, 0, 300 * time.Millisecond},
	{StopSidecar, 1, 0, 100 * time.Millisecond},
	{PauseSidecar, 2, 50 * time.Millisecond, time.Second},
	{ReloadSidecar, 2, 0, 0},
}

// recovery is how long a target is left alone after an event, so that the fleet
// is at work most of the time.
func (s Settings) recovery() time.Duration { return min(1500*time.Millisecond, 3*s.Every/4) }

// kindsOf returns the events that a run may have.
func (s Settings) kindsOf() []eventKind {
	all := eventKinds
	if s.Store != Redis {
		all = swiftKinds
	}
	var kinds []eventKind
	for _, k := range all {
		if slices.Contains(s.Events, k.deed) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// schedule draws the events of a run. They are up to the settings alone. One
// target has one event at a time, and one sidecar of a fleet at least has none.
func (s Settings) schedule() []event {
	r := rand.New(rand.NewPCG(s.Seed, 0x736f616b))
	kinds, recovery := s.kindsOf(), s.recovery()
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	free := make(map[int]time.Duration) // when a target may be next
	var events []event
	if total == 0 {
		return nil
	}
	at := min(time.Second, s.Every) // the clients begin alone
	for {
		at += s.Every/4 + time.Duration(r.Int64N(int64(3*s.Every/2)+1)) // the mean is Every
		n := r.IntN(total)
		i := 0
		for ; n >= kinds[i].weight; i++ {
			n -= kinds[i].weight
		}
		k := kinds[i]
		e := event{at: at.Round(time.Millisecond), deed: k.deed, target: redis}
		if k.deed != KillRedis && k.deed != PauseRedis {
			e.target = r.IntN(s.Sidecars)
		}
		if k.most > 0 {
			// Short ones are as likely as long ones, on a scale of ratios.
			e.length = k.least + time.Duration(float64(k.most-k.least)*r.Float64()*r.Float64())
			e.length = e.length.Round(time.Millisecond)
		}
		if e.at >= s.Duration {
			return events
		}
		busy := 0
		for target, until := range free {
			if target != redis && target != e.target && until > e.at {
				busy++
			}
		}
		if free[e.target] > e.at || e.target != redis && s.Sidecars > 1 && busy >= s.Sidecars-1 {
			continue
		}
		free[e.target] = e.at + e.length + recovery
		events = append(events, e)
	}
}
