package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/storetest"
)

// office is a fleet to which calls are handed over.
type office struct {
	t *testing.T
	*storetest.Fleet
	store    *faultyStore
	upstream *upstream
	members  []*member
	a, b     *member
}

// member is a process of an office. Its desk has the office's store and upstream.
type member struct {
	*desk
	*storetest.Member
}

// atOffice runs test in a synctest bubble, in an office of its own with the members a
// and b: once with calls that are looked up before they are handed over, and once
// with others.
func atOffice(t *testing.T, test func(t *testing.T, o *office)) {
	t.Helper()
	for name, prepared := range map[string]bool{"looked up": false, "claimed at once": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFaultyStore()
				o := &office{t: t, store: store, Fleet: storetest.NewFleet(store, lease), upstream: newUpstream()}
				o.Certain(true)
				defer func() {
					store.mend()
					for _, m := range o.members {
						if err := m.gate.Close(context.Background()); err != nil {
							t.Errorf("closing: %v", err)
						}
					}
					time.Sleep(2 * idempotency.ClaimGrace) // what may come late has come
				}()
				o.a, o.b = o.join(prepared), o.join(prepared)
				test(t, o)
			})
		})
	}
}

func (o *office) join(prepared bool) *member {
	m := o.Member()
	w := &world{t: o.t, store: o.store, gate: idempotency.NewGate(m, idempotency.Limits{}, nil), upstream: o.upstream, prepared: prepared}
	joined := &member{&desk{world: w}, m}
	o.members = append(o.members, joined)
	return joined
}

// serve has all members send the calls of the backlog.
func (o *office) serve() {
	for _, m := range o.members {
		m.serve()
	}
}

// wantEmpty waits until nothing is left in the backlog.
func (o *office) wantEmpty(m *member) {
	o.t.Helper()
	for range 600 {
		if depth, err := m.gate.Depth(context.Background()); err == nil && depth.Calls == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	depth, err := m.gate.Depth(context.Background())
	o.t.Fatalf("the backlog is still %+v, %v", depth, err)
}

// wantInOrder fails the test unless n calls of each lane were sent, each once, in
// their order. Keys are lane/number.
func (o *office) wantInOrder(lanes, n int) {
	o.t.Helper()
	next := map[string]int{}
	for _, key := range o.upstream.sent() {
		lane, number, _ := strings.Cut(strings.TrimPrefix(key, "up-"), "/")
		if want := fmt.Sprintf("%03d", next[lane]); number != want {
			o.t.Fatalf("lane %s goes on with %s, want %s", lane, number, want)
		}
		next[lane]++
	}
	for lane, m := range next {
		if m != n {
			o.t.Errorf("lane %s has run %d, want %d", lane, m, n)
		}
	}
	if len(next) != lanes {
		o.t.Errorf("%d lanes have run, want %d", len(next), lanes)
	}
}

// fill hands n calls of each of several lanes over, at all members in turn.
func (o *office) fill(lanes, n int) {
	o.t.Helper()
	for i := range n {
		for l := range lanes {
			m := o.members[(i+l)%len(o.members)]
			lane := fmt.Sprintf("l%d", l)
			m.handOver(m.inLane(fmt.Sprintf("%s/%03d", lane, i), lane))
		}
	}
}

// takes makes each call take d.
func (u *upstream) takes(d time.Duration) {
	u.result = func(_ context.Context, c *idempotency.Claim) idempotency.Result {
		time.Sleep(d)
		return kept("ran under " + c.UpstreamKey())
	}
}

func TestProcessesDivideTheBacklogAndKeepTheOrderOfLanes(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.fill(12, 20)
		o.upstream.takes(300 * time.Millisecond)
		o.serve()
		o.wantEmpty(o.a)
		o.wantInOrder(12, 20)
		here, _ := o.a.gate.Throughput()
		there, _ := o.b.gate.Throughput()
		if here < 60 || there < 60 {
			t.Errorf("%d have run here and %d there", here, there)
		}
	})
}

func TestALaneKeepsItsOrderWhileItsPartMoves(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.fill(12, 60)
		o.upstream.takes(300 * time.Millisecond)
		o.a.serve() // has all parts
		time.Sleep(3 * time.Second)
		o.b.serve() // has half of them
		time.Sleep(3 * time.Second)
		c := o.join(false)
		c.serve()
		time.Sleep(3 * time.Second)
		if err := o.b.gate.Close(context.Background()); err != nil {
			t.Error(err)
		}
		o.wantEmpty(c)
		o.wantInOrder(12, 60)
	})
}

func TestTheCallsOfAKilledProcessGoOnElsewhere(t *testing.T) {
	for _, honors := range []bool{false, true} {
		t.Run(fmt.Sprint("honored ", honors), func(t *testing.T) {
			atOffice(t, func(t *testing.T, o *office) {
				o.a.honor(honors)
				o.b.honor(honors)
				o.a.serve()
				hold := o.upstream.holds()
				o.a.handOver(o.a.async("a"), o.a.async("b"))
				o.a.wantRan("a")
				o.a.Crash()
				hold()
				o.b.serve()
				o.wantEmpty(o.b)
				if honors {
					o.b.wantRan("a", "a", "b")
					if !slices.Equal(o.upstream.resumed, []bool{false, true, false}) {
						t.Errorf("resumed: %v", o.upstream.resumed)
					}
					o.b.told("a", isKept, "ran under up-a")
				} else {
					o.b.wantRan("a", "b")
					o.b.told("a", isUnsure, "")
				}
				o.b.told("b", isKept, "ran under up-b")
			})
		})
	}
}

func TestACallIsCancelledElsewhereAfterItsTurnHasReadIt(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		ready := make(chan struct{})
		o.a.prepare = func(context.Context, string) error { <-ready; return nil }
		o.a.handOver(o.a.async("k"))
		o.a.serve()
		o.b.cancel("k", nil)
		o.b.cancel("k", idempotency.ErrReleased)
		close(ready)
		settles()
		o.wantEmpty(o.a)
		o.a.wantSent(0)
		if _, err := o.a.asks("k", 0); !errors.Is(err, idempotency.ErrReleased) {
			t.Errorf("who asks is told %v", err)
		}
	})
}

func TestACallIsCancelledElsewhereBesideItsClaim(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		claiming := make(chan struct{})
		o.store.hookBefore(opClaim, func() error { <-claiming; return nil })
		o.a.handOverWhile(claiming, "k")
		claiming = make(chan struct{})
		o.store.hookBefore(opClaim, func() error { <-claiming; return nil })
		o.a.serve() // is about to claim
		o.store.mend()
		o.b.cancel("k", nil)
		close(claiming)
		settles()
		o.wantEmpty(o.a)
		o.a.wantSent(0)
	})
}

// handOverWhile hands the call of key over and lets its claim be made.
func (d *desk) handOverWhile(claiming chan struct{}, key string) {
	d.t.Helper()
	p := d.start(d.async(key))
	close(claiming)
	wantPending(d.t, p.outcome(), executed)
}

func TestACallUnderWayElsewhereIsNotCancelled(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		release := o.upstream.holds()
		o.a.handOver(o.a.async("k"))
		o.a.serve()
		o.b.cancel("k", idempotency.ErrUnderWay)
		if out, err := o.b.asks("k", 0); err != nil || out.Fate != isPending || out.Waits {
			t.Errorf("who asks elsewhere is told %+v, %v", out, err)
		}
		release()
		o.b.cancel("k", idempotency.ErrKnown)
		o.b.told("k", isKept, "ran under up-k")
	})
}

func TestARepeatElsewhereWaitsForACallsTurn(t *testing.T) {
	for _, mute := range []bool{false, true} {
		atOffice(t, func(t *testing.T, o *office) {
			o.Mute(mute)
			o.a.handOver(o.a.async("k"))
			repeat := o.b.start(o.b.keyed("k"))
			time.Sleep(7 * time.Second)
			if !repeat.waiting() {
				t.Fatalf("it was told %+v, %v", repeat.out, repeat.err)
			}
			o.upstream.takes(3 * time.Second)
			o.a.serve()
			if out := repeat.outcome(); out.Fate != isKept || repeat.took > 12*time.Second {
				t.Errorf("told %+v after %v", out, repeat.took)
			}
			o.a.wantRan("k")
		})
	}
}

func TestWhoHandsOverWhatRunsElsewhereForAnotherIsNotPromisedItsAnswer(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		release := o.upstream.holds()
		o.upstream.becomes(freed("no"))
		first := o.a.start(o.a.keyed("k"))
		second := o.b.start(o.b.async("k"))
		if !second.waiting() {
			t.Fatalf("it was told %+v, %v", second.out, second.err)
		}
		release()
		want(t, first.outcome(), executed, isFreed, "no")
		wantPending(t, second.outcome(), executed) // as a call of its own
		o.upstream.becomes(kept("yes"))
		o.serve()
		o.a.told("k", isKept, "yes")
	})
}

func TestWhoHandsOverWhatHasItsTurnElsewhereIsToldSo(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		release := o.upstream.holds()
		o.a.handOver(o.a.async("k"))
		o.a.serve()
		wantPending(t, o.b.do(o.b.async("k")), executed)
		release()
		want(t, o.b.do(o.b.async("k")), replayed, isKept, "ran under up-k")
		o.a.wantRan("k")
	})
}

func TestATicketThatIsThereBeforeItsRecordIsWaitedFor(t *testing.T) {
	for _, before := range []string{"nothing", "a cancelled call", "a refused call"} {
		t.Run(before, func(t *testing.T) {
			atOffice(t, func(t *testing.T, o *office) {
				switch before {
				case "a cancelled call":
					o.a.handOver(o.a.async("k"))
					o.a.cancel("k", nil)
				case "a refused call":
					o.upstream.becomes(freed("no"))
					o.b.serve()
					o.a.handOver(o.a.async("k"))
					o.upstream.becomes(kept("ran under up-k"))
				}
				time.Sleep(time.Minute)
				sent := len(o.upstream.sent())
				o.serve()
				claiming := make(chan struct{})
				o.store.hookBefore(opClaim, func() error { <-claiming; return nil })
				p := o.a.start(o.a.async("k"))
				settles() // the ticket has been seen
				o.store.mend()
				close(claiming)
				wantPending(t, p.outcome(), executed)
				settles()
				o.a.wantSent(sent + 1)
				o.a.told("k", isKept, "ran under up-k")
				o.wantEmpty(o.a)
			})
		})
	}
}

func TestARepeatNeedsNoRoomInTheFullBacklogOfAFleet(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		o.a.handOver(o.a.async("k"))
		o.b.gate.SetBounds(idempotency.Bounds{Calls: 1})
		wantPending(t, o.b.do(o.b.async("k")), replayed)
		o.b.doErr(o.b.async("other"), idempotency.ErrBacklogFull)
	})
}

func TestACancelledCallDoesNotHoldItsLaneUp(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		release := o.upstream.holds()
		o.a.serve()
		o.a.handOver(o.a.async("a"), o.a.async("b"), o.a.async("c"))
		time.Sleep(time.Second)
		o.b.cancel("b", nil)
		release()
		settles() // less than a ticket without a record is waited for
		o.a.wantRan("a", "c")
	})
}

func TestAStoreThatFailsForAWhileLosesNoCallOfAFleet(t *testing.T) {
	for _, failing := range []op{opGet, opClaim, opFinish} {
		t.Run(string(failing), func(t *testing.T) {
			atOffice(t, func(t *testing.T, o *office) {
				o.fill(4, 5)
				o.upstream.takes(time.Second)
				o.serve()
				time.Sleep(1500 * time.Millisecond)
				o.store.fail(failing)
				time.Sleep(20 * time.Second)
				o.store.mend()
				o.wantEmpty(o.a)
				o.wantInOrder(4, 5)
			})
		})
	}
}

func TestAKeylessCallerWhoWaitsIsNotMergedWithAnotherElsewhereByTheCallsTurn(t *testing.T) {
	atOffice(t, func(t *testing.T, o *office) {
		release := o.upstream.holds()
		out := o.a.do(o.a.asyncKeyless("r"))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			end, err := o.a.gate.AwaitEnd(t.Context(), out, caller, time.Minute)
			if err != nil {
				t.Error(err)
				return
			}
			end.Settle(true)
		}()
		o.b.serve() // the turn comes at another process than the caller is at
		c := o.join(false)
		other := c.start(c.keyless("r"))
		settles()
		o.a.wantSent(2)
		release()
		if got := other.outcome(); got.Key == out.Key || got.Adopted {
			t.Errorf("told %+v", got)
		}
		<-ended
	})
}
