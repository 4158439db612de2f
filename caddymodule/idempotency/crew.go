package idempotency

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

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

// mayStay tells whether call, which is the first of its flight, can fly on its
// caller's goroutine. A keyless call cannot: who takes the place of its caller must
// be told at once that this has left.
func (g *Gate) mayStay(call Call, adopter bool) bool {
	return call.Stays && !adopter && call.Adoption == (AdoptionID{}) && call.Later == nil && call.place == ""
}

// errElsewhere is why a call does not fly on its caller's goroutine after all: another
// process has it under way, for which the caller waits only so long.
var errElsewhere = errors.New("a call under way elsewhere is not followed by its caller")

// flyHere lets call fly on the goroutine of its caller, who has left once ctx ends.
// Where it returns errElsewhere, call is still to fly.
func (g *Gate) flyHere(ctx context.Context, f *flight, call Call) (*Outcome, error) {
	defer crash() // as a goroutine of the crew would
	f.own = ctx
	g.fly(f, call)
	if !f.done.has() {
		f.own = nil
		return nil, errElsewhere
	}
	if f.own != nil {
		defer g.alight(f)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return f.outcome(true)
}

// watchOwn has the caller on whose goroutine f flies alight as soon as it leaves, until
// unwatch is called: for as long as somebody else may wait for that.
func (g *Gate) watchOwn(f *flight) (unwatch func()) {
	if f.own == nil {
		return func() {}
	}
	stays := context.AfterFunc(f.own, func() { g.alight(f) })
	return func() {
		if !stays() {
			f.own = nil
		}
	}
}

// crash ends the process on a panic, which somebody up the stack might else recover
// from: what a flight that has not landed leaves behind is for the next process.
func crash() {
	if p := recover(); p != nil {
		message := fmt.Sprintf("%v\n\n%s", p, debug.Stack())
		go panic(message)
		select {}
	}
}
