package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/storetest"
)

// What is true of all histories: a call is sent at most once under each claim to
// hand it over, or again only where keys are honored, and then until it is known how
// it ended; what was noted is ended, or cancelled; the calls of a lane start in the
// order in which they were handed over.
func TestRandomHistoriesOfCallsThatAreHandedOver(t *testing.T) {
	for seed := range uint64(25) {
		for _, honors := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d honored %v", seed, honors), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { newHistory(t, seed, honors).run() })
			})
		}
	}
}

// history is a fleet whose members are killed, start anew and lose their store, while
// calls are handed over, repeated and cancelled.
type history struct {
	t      *testing.T
	rand   *rand.Rand
	honors bool
	store  *faultyStore
	fleet  *storetest.Fleet
	all    sync.WaitGroup // callers

	gates []*idempotency.Gate // of all processes that ever were
	live  []process

	mu        sync.Mutex
	sent      map[string]int  // guarded by mu; how often, by key
	resumed   map[string]int  // guarded by mu; how often as one that may have been sent before
	order     []string        // guarded by mu; keys, in the order in which they were first sent
	noted     map[string]bool // guarded by mu; keys whose calls were said to be on record
	cancelled map[string]bool // guarded by mu
}

type process struct {
	member *storetest.Member
	gate   *idempotency.Gate
}

func newHistory(t *testing.T, seed uint64, honors bool) *history {
	store := newFaultyStore()
	h := &history{t: t, rand: rand.New(rand.NewPCG(seed, 0)), honors: honors, store: store, fleet: storetest.NewFleet(store, lease),
		sent: map[string]int{}, resumed: map[string]int{}, noted: map[string]bool{}, cancelled: map[string]bool{}}
	h.fleet.Certain(true)
	for range 2 {
		h.join()
	}
	return h
}

func (h *history) join() {
	m := h.fleet.Member()
	g := idempotency.NewGate(m, idempotency.Limits{}, nil)
	g.Resume(func(rec *idempotency.Record) (idempotency.Call, error) {
		return idempotency.Call{
			Honored: h.honors, Retention: retention, Deadline: deadline,
			Sender: &sender{send: h.send, prepare: func(ctx context.Context) error {
				select {
				case <-time.After(h.upTo(300 * time.Millisecond)):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}},
		}, nil
	})
	h.gates = append(h.gates, g)
	h.live = append(h.live, process{m, g})
}

func (h *history) upTo(d time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Duration(h.rand.Int64N(int64(d)))
}

func (h *history) chance(percent int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rand.IntN(100) < percent
}

func (h *history) send(_ context.Context, c *idempotency.Claim) idempotency.Result {
	key := c.UpstreamKey()
	if !c.Resumed() && h.chance(15) {
		return temporary("not yet") // it does not run
	}
	h.mu.Lock()
	if h.sent[key]++; h.sent[key] == 1 {
		h.order = append(h.order, key)
	}
	if c.Resumed() {
		h.resumed[key]++
	}
	h.mu.Unlock()
	time.Sleep(h.upTo(2 * time.Second))
	if h.chance(10) {
		return unsure("gone")
	}
	return kept("ran")
}

// call returns the i-th call of a lane.
func (h *history) call(lane, i int) idempotency.Call {
	key := fmt.Sprintf("l%d/%03d", lane, i)
	call := idempotency.Call{
		ID: idOf(key), Key: key, UpstreamKey: key, Fingerprint: fp(key), Honored: h.honors, Label: caller,
		Retention: retention, Wait: wait, Deadline: deadline,
		Sender: &sender{send: h.send},
		Later:  &idempotency.Deferred{Method: "POST", URL: "/x"},
	}
	copy(call.Later.Lane[:], key[:2])
	return call
}

const (
	randomLanes = 4
	randomCalls = 12
)

func (h *history) run() {
	for l := range randomLanes {
		h.all.Go(func() { h.callers(l) })
	}
	for range 12 {
		time.Sleep(h.upTo(4 * time.Second))
		h.disturb()
	}
	h.store.mend()
	h.all.Wait()
	time.Sleep(20 * time.Minute) // whatever is tried again has been
	h.check()
	for _, g := range h.gates {
		if err := g.Close(context.Background()); err != nil {
			h.t.Errorf("closing: %v", err)
		}
	}
	time.Sleep(2 * idempotency.ClaimGrace)
}

// disturb does something to the fleet that it has to stand.
func (h *history) disturb() {
	h.mu.Lock()
	i := h.rand.IntN(len(h.live))
	p, what := h.live[i], h.rand.IntN(6)
	h.mu.Unlock()
	switch what {
	case 0, 1:
		p.member.Crash()
		h.mu.Lock()
		h.live = slices.Delete(slices.Clone(h.live), i, i+1)
		h.mu.Unlock()
		h.join()
	case 2:
		h.join()
	case 3:
		h.store.fail(opGet, opClaim)
	case 4:
		h.store.fail(opFinish)
	case 5:
		h.store.lose(opClaim)
	}
	time.Sleep(h.upTo(2 * time.Second))
	h.store.mend()
}

// any returns a process that lives.
func (h *history) any() *idempotency.Gate {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live[h.rand.IntN(len(h.live))].gate
}

// callers hand the calls of a lane over, each once the one before is noted, and
// repeat and cancel some.
func (h *history) callers(lane int) {
	for i := range randomCalls {
		call := h.call(lane, i)
		for {
			time.Sleep(h.upTo(time.Second))
			if _, err := h.any().Do(context.Background(), call); err == nil {
				break
			}
		}
		h.mu.Lock()
		h.noted[call.Key] = true
		h.mu.Unlock()
		switch {
		case h.chance(20):
			repeat := call
			repeat.Later = nil
			of(&repeat).send = func(context.Context, *idempotency.Claim) idempotency.Result {
				h.t.Errorf("a repeat of %s was sent", call.Key)
				return idempotency.Result{}
			}
			if h.honors {
				of(&repeat).send = h.send
			}
			h.all.Go(func() { _, _ = h.any().Do(context.Background(), repeat) })
		case h.chance(20):
			h.all.Go(func() {
				time.Sleep(h.upTo(2 * time.Second))
				err := h.any().Cancel(context.Background(), call.ID, caller)
				h.mu.Lock()
				defer h.mu.Unlock()
				if err == nil || errors.Is(err, idempotency.ErrStore) {
					h.cancelled[call.Key] = err == nil
				}
			})
		}
	}
}

func (h *history) check() {
	h.mu.Lock()
	defer h.mu.Unlock()
	last := map[string]string{}
	for _, key := range h.order {
		if lane := key[:2]; key < last[lane] {
			h.t.Errorf("%s started after %s", key, last[lane])
		} else {
			last[lane] = key
		}
	}
	for key := range h.noted {
		n, surely := h.sent[key], h.cancelled[key]
		_, maybe := h.cancelled[key]
		switch {
		case surely && n > 0:
			h.t.Errorf("%s was cancelled, and sent %d times", key, n)
		case n-h.resumed[key] > 1:
			h.t.Errorf("%s was sent %d times, %d times of those knowingly", key, n, h.resumed[key])
		case n > 1 && !h.honors:
			h.t.Errorf("%s was sent %d times", key, n)
		}
		rec, err := h.store.Store.Get(context.Background(), idOf(key))
		switch state := stateOf(rec); {
		case err != nil:
			h.t.Error(err)
		case state == idempotency.Done && n > 0:
		case (state == idempotency.Unknown || state == idempotency.Open) && rec.Deferred == nil:
		case state == idempotency.Started && rec.Deferred == nil && h.honors: // by a repeat of what was left open
		case state == idempotency.Released && maybe && n == 0:
		default:
			h.t.Errorf("%s is %s in the end, and was sent %d times", key, state, n)
		}
	}
	depth, err := h.fleet.Member().Depth(context.Background())
	if err != nil || depth.Calls != 0 {
		h.t.Errorf("the backlog is %+v, %v", depth, err)
	}
}
