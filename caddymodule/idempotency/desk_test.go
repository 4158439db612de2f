package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// later is how long the answer of a call is kept by the configuration under which
// its turn comes. It is not what it was handed over with.
const later = time.Hour

// caller is the label of all calls but for those that say otherwise.
var caller = idempotency.Label{
	Organisation: idempotency.NewOrganisationID("org"),
	Scope:        idempotency.NewScopeID("org", "scope"),
	Action:       "POST /x",
}

// desk is a world in which calls are handed over for later.
type desk struct {
	*world
	prepare func(context.Context, string) error // what each turn has to wait for, by the key; nil: nothing

	mu      sync.Mutex
	honors  bool                // guarded by mu; the upstream is known to honor keys, as the calls' turns have it
	refuses error               // guarded by mu; what resume returns
	ended   []string            // guarded by mu; the keys of calls that have ended, with how
	gates   []*idempotency.Gate // guarded by mu
}

// atDesk runs test in a synctest bubble, in a world of its own: once with calls that
// are looked up before they are handed over, and once with others. All gates are
// closed in the end, so that the bubble finds what goes on after that.
func atDesk(t *testing.T, test func(t *testing.T, d *desk)) {
	t.Helper()
	for name, prepared := range map[string]bool{"looked up": false, "claimed at once": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newFaultyStore()
				d := &desk{world: &world{t: t, store: store, upstream: newUpstream(), prepared: prepared}}
				defer func() {
					store.mend()
					for _, g := range d.gates {
						if err := g.Close(context.Background()); err != nil {
							t.Errorf("closing: %v", err)
						}
					}
					time.Sleep(2 * time.Second) // idle goroutines of the crew end
				}()
				d.open()
				test(t, d)
			})
		})
	}
}

// open puts a new gate in front of the store, as after a restart. What the one before
// has under way, it has.
func (d *desk) open() {
	d.restart()
	d.gates = append(d.gates, d.gate)
}

// serve has the calls of the backlog sent, and returns once everybody waits for
// something.
func (d *desk) serve() {
	d.gate.Resume(d.resume)
	synctest.Wait()
}

// resume makes a call of rec that finds out whether what it has taken hold of to be
// sent is used, or else given back.
func (d *desk) resume(rec *idempotency.Record) (idempotency.Call, error) {
	d.mu.Lock()
	honors, refuses := d.honors, d.refuses
	d.mu.Unlock()
	if refuses != nil {
		return idempotency.Call{}, refuses
	}
	a := &admission{t: d.t, key: rec.Key}
	return idempotency.Call{
		Honored: honors, Retention: later, Deadline: deadline,
		Sender: &sender{
			prepare: func(ctx context.Context) error {
				if d.prepare != nil {
					if err := d.prepare(ctx, rec.Key); err != nil {
						return err
					}
				}
				a.become("held", "")
				return nil
			},
			abandon: func() { a.become("abandoned", "", "held", "abandoned") },
			send: func(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
				a.become("used", "held")
				return d.upstream.send(ctx, claim)
			},
			ended: func(end *idempotency.Record, fate idempotency.Fate, callers int64) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.ended = append(d.ended, fmt.Sprintf("%s %s %d %d", end.Key, end.State, fate, callers))
			},
		},
	}, nil
}

// honor has the turns of calls take the upstream for one that honors keys.
func (d *desk) honor(honors bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.honors = honors
}

// refuse has no configuration send any calls; nil: it does.
func (d *desk) refuse(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refuses = err
}

// admission is what a turn has taken hold of.
type admission struct {
	t   *testing.T
	key string

	mu    sync.Mutex
	state string // guarded by mu; "" before, then held, used or abandoned
}

func (a *admission) become(state string, from ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(from, a.state) {
		a.t.Errorf("the admission of %s was %s although it was %q", a.key, state, a.state)
	}
	a.state = state
}

// async returns a call that is handed over.
func (d *desk) async(key string) idempotency.Call { return d.inLane(key, "lane") }

func (d *desk) inLane(key, lane string) idempotency.Call {
	call := d.keyed(key)
	call.Label = caller
	call.Later = &idempotency.Deferred{Method: "POST", URL: "/x?y", Body: []byte("body of " + key)}
	copy(call.Later.Lane[:], lane)
	return call
}

// handOver hands call over and fails the test unless that is noted.
func (d *desk) handOver(calls ...idempotency.Call) {
	d.t.Helper()
	for _, call := range calls {
		wantPending(d.t, d.do(call), executed)
	}
}

func wantPending(t *testing.T, out *idempotency.Outcome, manner idempotency.Manner) {
	t.Helper()
	if out.Fate != idempotency.Pending || out.Manner != manner || out.Key == "" || out.Answer != nil || out.Stored {
		t.Fatalf("outcome: %+v, want a pending one of manner %d", out, manner)
	}
}

// settles lets what is due by now happen, and a little more.
func settles() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

// asks returns what has become of the call of key.
func (d *desk) asks(key string, wait time.Duration) (*idempotency.Outcome, error) {
	return d.gate.Await(context.Background(), idOf(key), caller, wait)
}

// told fails the test unless who asks is told this.
func (d *desk) told(key string, fate idempotency.Fate, body string) {
	d.t.Helper()
	out, err := d.asks(key, 0)
	if err != nil {
		d.t.Fatalf("asking for %s: %v", key, err)
	}
	want(d.t, out, replayed, fate, body)
}

// cancel cancels the call of key, which is to end with err.
func (d *desk) cancel(key string, want error) {
	d.t.Helper()
	if err := d.gate.Cancel(context.Background(), idOf(key), caller); !errors.Is(err, want) {
		d.t.Fatalf("cancelling %s: got %v, want %v", key, err, want)
	}
	synctest.Wait()
}

// wantState fails the test unless the record of key is in state; 0: is not there.
func (d *desk) wantState(key string, state idempotency.State) *idempotency.Record {
	d.t.Helper()
	rec := d.record(key)
	if got := stateOf(rec); got != state {
		d.t.Fatalf("the record of %s is %s, want %s", key, got, state)
	}
	return rec
}

func stateOf(rec *idempotency.Record) idempotency.State {
	if rec == nil {
		return 0
	}
	return rec.State
}

// wantTickets fails the test unless the backlog has n tickets.
func (d *desk) wantTickets(n int) {
	d.t.Helper()
	depth, err := d.store.backlog().Depth(context.Background())
	if err != nil || depth.Calls != n {
		d.t.Fatalf("the backlog is %+v, %v; want %d calls", depth, err, n)
	}
}

// wantRan fails the test unless the upstream was sent the calls of keys, in their order.
func (d *desk) wantRan(keys ...string) {
	d.t.Helper()
	up := make([]string, len(keys))
	for i, key := range keys {
		up[i] = "up-" + key
	}
	if sent := d.upstream.sent(); !slices.Equal(sent, up) {
		d.t.Fatalf("the upstream was sent %q, want %q", sent, up)
	}
}

// leaveStarted makes of the call of key, which is queued, one that a process has
// started and left behind by being gone.
func (d *desk) leaveStarted(key string, honored bool, age time.Duration) *idempotency.Record {
	d.t.Helper()
	rec := d.wantState(key, idempotency.Queued)
	left := *rec
	left.State, left.Owner = idempotency.Started, idempotency.NewProcess().NewOwner()
	left.Honored, left.Started = honored, time.Now().Add(-age)
	left.Expires = time.Now().Add(deadline + retention)
	if standing, err := d.store.Store.Claim(d.t.Context(), &left, rec.Owner); standing != nil || err != nil {
		d.t.Fatal(standing, err)
	}
	return &left
}
