package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

const (
	retention = 24 * time.Hour
	wait      = 30 * time.Second
	deadline  = 2 * time.Minute
	window    = 2 * time.Minute
)

// world is a store, a gate in front of it, and an upstream behind that.
type world struct {
	t        *testing.T
	store    *faultyStore
	gate     *idempotency.Gate
	upstream *upstream
	prepared bool // calls have nothing to prepare, and are claimed unseen
	stays    bool // callers lend their goroutines
}

// inBubble runs test in a synctest bubble, in a world of its own: once with
// calls that are looked up before they are claimed, once with others, and once
// with callers that stay until their calls have ended.
func inBubble(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Run("looked up", func(t *testing.T) { inBubbleOf(t, false, test) })
	t.Run("claimed at once", func(t *testing.T) { inBubbleOf(t, true, test) })
	t.Run("on its caller's goroutine", func(t *testing.T) {
		inBubbleOf(t, true, func(t *testing.T, w *world) {
			w.stays = true
			test(t, w)
		})
	})
}

func inBubbleOf(t *testing.T, prepared bool, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := newFaultyStore()
		defer func() { // what goes on in the background comes to its end
			store.mend()
			time.Sleep(2 * patience)
		}()
		test(t, &world{
			t:        t,
			store:    store,
			gate:     idempotency.NewGate(store, idempotency.Limits{}, nil),
			upstream: newUpstream(),
			prepared: prepared,
		})
	})
}

// restart puts a new gate, as of another process, in front of the same store.
func (w *world) restart() { w.gate = idempotency.NewGate(w.store, idempotency.Limits{}, nil) }

// fp returns a fingerprint: the same for the same name.
func fp(name string) idempotency.Fingerprint {
	return idempotency.Request{Method: "POST", Path: "/" + name}.Fingerprint()
}

func idOf(key string) idempotency.ID { return idempotency.NewID("org", "scope", key) }

// keyed returns a call that brings a key, to an upstream that ignores it.
func (w *world) keyed(key string) idempotency.Call {
	return idempotency.Call{
		ID:          idOf(key),
		Key:         key,
		UpstreamKey: "up-" + key,
		Fingerprint: fp("request"),
		Retention:   retention,
		Wait:        wait,
		Deadline:    deadline,
		Stays:       w.stays,
		Sender:      &sender{prepared: func() bool { return w.prepared }, send: w.upstream.send},
	}
}

// honored returns a call that brings a key, to an upstream that honors it.
func (w *world) honored(key string) idempotency.Call {
	call := w.keyed(key)
	call.Honored = true
	return call
}

// keyless returns a call without a key.
func (w *world) honoredKeyless(request string) idempotency.Call {
	call := w.keyless(request)
	call.Honored = true
	return call
}

func (w *world) keyless(request string) idempotency.Call {
	call := w.keyed("")
	call.Fingerprint = fp(request)
	call.Adoption = idempotency.NewAdoptionID("org", "scope", call.Fingerprint)
	call.AdoptWindow = window
	call.NewID = idOf
	call.NewUpstreamKey = func(key string) string { return "up-" + key }
	return call
}

// leave puts into the store what a crash or an earlier process left of call,
// which was claimed an age ago.
func (w *world) leave(call idempotency.Call, state idempotency.State, age time.Duration) *idempotency.Record {
	w.t.Helper()
	now := time.Now()
	rec := &idempotency.Record{
		ID:          call.ID,
		State:       idempotency.Started,
		Owner:       idempotency.NewProcess().NewOwner(),
		Fingerprint: call.Fingerprint,
		Key:         call.Key,
		UpstreamKey: call.UpstreamKey,
		Honored:     call.Honored,
		Adoption:    call.Adoption,
		Started:     now.Add(-age),
		Expires:     now.Add(2 * retention),
	}
	if standing, err := w.store.Store.Claim(w.t.Context(), rec, idempotency.Owner{}); standing != nil || err != nil {
		w.t.Fatalf("leaving a record: %v, %v", standing, err)
	}
	if state != idempotency.Started {
		end := *rec
		end.State, end.Finished = state, now.Add(-age)
		if err := w.store.Store.Finish(w.t.Context(), &end); err != nil {
			w.t.Fatal(err)
		}
		rec = &end
	}
	return rec
}

// record returns what the store has of key.
func (w *world) record(key string) *idempotency.Record {
	w.t.Helper()
	rec, err := w.store.Store.Get(context.Background(), idOf(key))
	if err != nil {
		w.t.Fatal(err)
	}
	return rec
}

// pending is a caller of Do, in a goroutine of its own.
type pending struct {
	t     *testing.T
	leave context.CancelFunc // the caller gives up
	stays bool               // and may be seen to have left only once its call has ended
	done  chan struct{}
	out   *idempotency.Outcome
	err   error
	took  time.Duration
}

// start lets a caller make call and returns once everybody waits for something.
func (w *world) start(call idempotency.Call) *pending {
	ctx, leave := context.WithCancel(context.Background())
	p := &pending{t: w.t, leave: leave, stays: call.Stays, done: make(chan struct{})}
	gate := w.gate
	go func() {
		defer close(p.done)
		began := time.Now()
		p.out, p.err = gate.Do(ctx, call)
		p.took = time.Since(began)
	}()
	synctest.Wait()
	return p
}

// left makes the caller leave and waits until that was noticed.
func (p *pending) left() {
	p.t.Helper()
	p.leave()
	if p.stays && p.waiting() {
		return
	}
	<-p.done
	synctest.Wait()
	if !errors.Is(p.err, context.Canceled) {
		p.t.Fatalf("the caller that left got %+v, %v", p.out, p.err)
	}
}

func (p *pending) result() (*idempotency.Outcome, error) {
	<-p.done
	return p.out, p.err
}

// outcome waits for what the caller is told, which is to be no error.
func (p *pending) outcome() *idempotency.Outcome {
	p.t.Helper()
	<-p.done
	if p.err != nil {
		p.t.Fatalf("Do: %v", p.err)
	}
	return p.out
}

// waiting tells whether the caller still waits.
func (p *pending) waiting() bool {
	synctest.Wait()
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// do makes call and fails the test on an error.
func (w *world) do(call idempotency.Call) *idempotency.Outcome {
	w.t.Helper()
	out, err := w.gate.Do(context.Background(), call)
	if err != nil {
		w.t.Fatalf("Do: %v", err)
	}
	synctest.Wait()
	return out
}

// doErr makes call, which is to fail with want.
func (w *world) doErr(call idempotency.Call, want error) {
	w.t.Helper()
	out, err := w.gate.Do(context.Background(), call)
	if !errors.Is(err, want) {
		w.t.Fatalf("Do returned %+v, %v; want the error %q", out, err, want)
	}
	synctest.Wait()
}

// upstream is what calls are sent to. It notes what it is sent.
type upstream struct {
	hold   chan struct{} // if not nil, a send ends when it is closed
	result func(context.Context, *idempotency.Claim) idempotency.Result

	mu      sync.Mutex
	keys    []string // guarded by mu; the upstream keys, in the order of the sends
	resumed []bool   // guarded by mu; the same of Claim.Resumed
}

func newUpstream() *upstream {
	u := &upstream{}
	u.result = func(_ context.Context, claim *idempotency.Claim) idempotency.Result {
		return kept("ran under " + claim.UpstreamKey())
	}
	return u
}

func (u *upstream) send(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
	u.mu.Lock()
	u.keys = append(u.keys, claim.UpstreamKey())
	u.resumed = append(u.resumed, claim.Resumed())
	hold, result := u.hold, u.result
	u.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return idempotency.Result{}
		}
	}
	return result(ctx, claim)
}

// becomes makes each call come to result from now on.
func (u *upstream) becomes(result idempotency.Result) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.result = func(context.Context, *idempotency.Claim) idempotency.Result { return result }
}

// holds keeps what is sent from now on until the returned function is called.
func (u *upstream) holds() (release func()) {
	hold := make(chan struct{})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.hold = hold
	return sync.OnceFunc(func() {
		u.mu.Lock()
		if u.hold == hold {
			u.hold = nil
		}
		u.mu.Unlock()
		close(hold)
		synctest.Wait()
	})
}

func (u *upstream) sent() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.keys...)
}

// answer returns an answer with some header and body.
func answer(body string) *idempotency.Answer {
	return &idempotency.Answer{
		Status: http.StatusOK,
		Header: idempotency.NewHeader(http.Header{"Content-Type": {"application/json"}, "X-Two": {"a", "b"}}),
		Body:   []byte(body),
	}
}

func kept(body string) idempotency.Result {
	return idempotency.Result{Fate: idempotency.Kept, Answer: answer(body)}
}

func unsure(body string) idempotency.Result {
	return idempotency.Result{Fate: idempotency.Unsure, Answer: answer(body)}
}

func freed(body string) idempotency.Result {
	return idempotency.Result{Fate: idempotency.Freed, Answer: answer(body)}
}

// wantSent fails the test unless the upstream was sent n calls.
func (w *world) wantSent(n int) {
	w.t.Helper()
	if sent := w.upstream.sent(); len(sent) != n {
		w.t.Fatalf("the upstream was sent %d calls %q, want %d", len(sent), sent, n)
	}
}

// want fails the test unless out tells body in this manner and with this fate;
// the body "" stands for no answer.
func want(t *testing.T, out *idempotency.Outcome, manner idempotency.Manner, fate idempotency.Fate, body string) {
	t.Helper()
	got := ""
	if out.Answer != nil {
		got = string(out.Answer.Body)
	}
	if out.Manner != manner || out.Fate != fate || got != body {
		t.Fatalf("outcome: manner %d, fate %d, body %q; want %d, %d, %q", out.Manner, out.Fate, got, manner, fate, body)
	}
	if body != "" && !reflect.DeepEqual(out.Answer, answer(body)) {
		t.Fatalf("the answer is %s, want %s", show(out.Answer), show(answer(body)))
	}
}

func show(a *idempotency.Answer) string {
	if a == nil {
		return "none"
	}
	return fmt.Sprintf("%d %v %q", a.Status, a.Header, a.Body)
}

const (
	executed = idempotency.Executed
	replayed = idempotency.Replayed
	shared   = idempotency.Shared

	isKept   = idempotency.Kept
	isUnsure = idempotency.Unsure
	isFreed  = idempotency.Freed
)
