package redis_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/store/redis"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// holdings are which process may work on which part, and until when.
type holdings struct {
	t     *testing.T
	mu    sync.Mutex
	of    map[idempotency.Part]int       // guarded by mu
	until map[idempotency.Part]time.Time // guarded by mu
}

func newHoldings(t *testing.T) *holdings {
	return &holdings{t: t, of: make(map[idempotency.Part]int), until: make(map[idempotency.Part]time.Time)}
}

// ask has process i ask for its parts, and checks that no other has them. To ask
// and to note the reply is one step here: what is given up by asking may be
// another's at once.
func (h *holdings) ask(i int, s *redis.Store) []idempotency.Part {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	mine, lease, err := s.Parts(context.Background())
	if err != nil {
		h.t.Errorf("asking: %v", err)
		return nil
	}
	now := time.Now()
	for _, part := range mine {
		if other, ok := h.of[part]; ok && other != i && now.Before(h.until[part]) {
			h.t.Errorf("part %s is process %d's and %d's", part, other, i)
		}
	}
	h.drop(i)
	for _, part := range mine {
		h.of[part], h.until[part] = i, now.Add(lease)
	}
	return mine
}

func (h *holdings) drop(i int) {
	for part, process := range h.of {
		if process == i {
			delete(h.of, part)
		}
	}
}

func TestPartsAreDividedAndThoseOfTheDeadTakenOver(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	options := redis.Options{Endpoint: endpoint(t, server.URL())}
	h := newHoldings(t)
	stores := []*redis.Store{open(t, options), opened(t, options), opened(t, options)}
	if n := len(h.ask(0, stores[0])); n != parts {
		t.Errorf("who is alone has %d parts", n)
	}
	eventually(t, "three share", func() bool {
		total, largest := 0, 0
		for i, s := range stores {
			n := len(h.ask(i, s))
			total, largest = total+n, max(largest, n)
		}
		return total == parts && largest == 6
	})
	// The second is not heard of any more.
	eventually(t, "two share", func() bool {
		first, third := h.ask(0, stores[0]), h.ask(2, stores[2])
		return len(first) == parts/2 && len(third) == parts/2
	})
	// The first leaves.
	if err := stores[0].Close(); err != nil {
		t.Fatal(err)
	}
	h.drop(0)
	if n := len(h.ask(2, stores[2])); n != parts {
		t.Errorf("when the other has left, who stays has %d parts at once", n)
	}
}

func TestOfMoreProcessesThanPartsSomeHaveNone(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	options := redis.Options{Endpoint: endpoint(t, server.URL()), Lease: 10 * time.Second}
	h := newHoldings(t)
	stores := make([]*redis.Store, parts+2)
	for i := range stores {
		stores[i] = opened(t, options)
	}
	eventually(t, "all parts are somebody's, one each", func() bool {
		total, largest := 0, 0
		for i, s := range stores {
			n := len(h.ask(i, s))
			total, largest = total+n, max(largest, n)
		}
		return total == parts && largest == 1
	})
}

// An asking that is sent twice gives nothing to others that the process may still
// work on.
func TestAnAskingWhoseReplyIsLostHandsNothingOver(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Addr())
	a := opened(t, redis.Options{Endpoint: endpoint(t, proxy.URL()), Lease: time.Minute})
	b := opened(t, redis.Options{Endpoint: endpoint(t, server.URL()), Lease: time.Minute})
	h := newHoldings(t)
	h.ask(0, a)
	h.ask(1, b)
	lost := proxy.LoseReply(func(request []byte) bool { return command("EVAL")(request) && command("{queue}:l")(request) })
	if n := len(h.ask(0, a)); n != parts/2 {
		t.Errorf("the first has %d parts", n)
	}
	<-lost
	if n := len(h.ask(1, b)); n != 0 {
		t.Errorf("the second has %d parts before the first can have heard of it", n)
	}
	h.ask(0, a)
	if n := len(h.ask(1, b)); n != parts/2 {
		t.Errorf("the second has %d parts", n)
	}
}

// runner does what a gate does with its parts of a backlog, until stop is closed;
// it says nothing when it goes.
type runner struct {
	s       *redis.Store
	process idempotency.Process
	ran     func(key string)
	stop    chan struct{}
}

func (r *runner) work(t *testing.T) {
	ctx := context.Background()
	for {
		mine, lease, err := r.s.Parts(ctx)
		if err != nil {
			t.Errorf("asking for parts: %v", err)
			return
		}
		until := time.Now().Add(lease / 2)
		for _, part := range mine {
			tickets, err := r.s.Tickets(ctx, part, "", 5)
			if err != nil {
				t.Errorf("reading tickets: %v", err)
				return
			}
			for _, ticket := range tickets {
				select {
				case <-r.stop:
					return
				default:
				}
				if time.Now().After(until) || !r.run(t, ctx, ticket) {
					break
				}
			}
		}
		select {
		case <-r.stop:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// run runs the call of a ticket, and tells whether the next one's turn has come.
func (r *runner) run(t *testing.T, ctx context.Context, ticket idempotency.Ticket) bool {
	rec, err := r.s.Get(ctx, ticket.ID)
	if err != nil {
		t.Errorf("reading a call: %v", err)
		return false
	}
	switch {
	case rec != nil && rec.State == idempotency.Started:
		return false // somebody else is at it
	case rec == nil && time.Since(ticket.Since) < idempotency.ClaimGrace:
		return false // it may yet come
	}
	if rec != nil && rec.State == idempotency.Queued && rec.Deferred.Place == ticket.Place {
		run := as(rec, idempotency.Started)
		run.Owner = r.process.NewOwner()
		if standing, err := r.s.Claim(ctx, run, rec.Owner); standing != nil || err != nil {
			return false
		}
		r.ran(rec.Key)
		if err := r.s.Finish(ctx, done(as(run, idempotency.Done), 10)); err != nil {
			t.Errorf("finishing a call: %v", err)
			return false
		}
	}
	return r.s.Dequeue(ctx, ticket.Place) == nil
}

func TestLanesKeepTheirOrderWhilePartsMove(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	options := redis.Options{Endpoint: endpoint(t, server.URL())}
	const lanes, each = 20, 25
	var mu sync.Mutex
	ran := make(map[string][]int) // guarded by mu; by lane
	total := 0                    // guarded by mu
	note := func(key string) {
		var lane string
		var n int
		if _, err := fmt.Sscanf(key, "%s %d", &lane, &n); err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		ran[lane] = append(ran[lane], n)
		total++
	}
	progress := func() int {
		mu.Lock()
		defer mu.Unlock()
		return total
	}

	var wg sync.WaitGroup
	start := func() *runner {
		r := &runner{s: opened(t, options), process: idempotency.NewProcess(), ran: note, stop: make(chan struct{})}
		wg.Go(func() { r.work(t) })
		return r
	}
	runners := []*runner{start(), start(), start()}
	from := opened(t, options)
	for lane := range lanes {
		wg.Go(func() {
			for i := range each {
				name := fmt.Sprintf("lane%d %d", lane, i)
				if standing, err := from.Enqueue(context.Background(), queued(name, fmt.Sprint("lane", lane)), idempotency.Owner{}, idempotency.Bounds{}); standing != nil || err != nil {
					t.Errorf("enqueuing: %v, %v", standing, err)
				}
			}
		})
	}
	for round := 1; round <= 3; round++ { // one goes without a word, another comes
		eventually(t, "some calls have run", func() bool { return progress() >= round*lanes*each/5 })
		close(runners[0].stop)
		runners = append(runners[1:], start())
	}
	eventually(t, "all calls have run", func() bool { return progress() >= lanes*each })
	for _, r := range runners {
		close(r.stop)
	}
	wg.Wait()
	wantDepth(t, from, 0)
	for lane, calls := range ran {
		if len(calls) != each || !slices.IsSorted(calls) {
			t.Errorf("of %s, these ran: %v", lane, calls)
		}
	}
}
