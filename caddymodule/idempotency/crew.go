package idempotency

import "time"

// crew lets calls fly, each on a goroutine of its own until it has landed. It
// uses goroutines again: what a call goes through is deep, and a new one would
// grow its stack anew each time, which costs more than the goroutine.
//
// A crew needs no closing: a goroutine that has had nothing to do for idleTime
// ends. Make one with newCrew.
type crew struct {
	fly  func(*flight, Call)
	idle chan departure
}

// departure is a call that is to fly.
type departure struct {
	flight *flight
	call   Call
}

const idleTime = time.Second

func newCrew(fly func(*flight, Call)) *crew { return &crew{fly, make(chan departure)} }

// launch lets call fly and does not wait for it.
func (c *crew) launch(f *flight, call Call) {
	d := departure{f, call}
	select {
	case c.idle <- d:
	default:
		go c.work(d)
	}
}

func (c *crew) work(d departure) {
	timer := time.NewTimer(idleTime)
	defer timer.Stop()
	for {
		c.fly(d.flight, d.call)
		d = departure{} // it may be large
		timer.Reset(idleTime)
		select {
		case d = <-c.idle:
		case <-timer.C:
			return
		}
	}
}
