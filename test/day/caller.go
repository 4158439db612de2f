package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// fate is what came of a call, for its caller.
type fate struct {
	took     time.Duration // until it was answered, or its caller gave up
	answered bool
	accepted time.Duration // until it was handed over; 0: it was not
	limited  int           // answers 429
	timeouts int           // requests that it lost patience with
	errors   int           // answers that are neither of the two, nor one to the call
}

// longPoll is how long one that has handed a call over has the sidecar wait for the
// answer before it asks again.
const longPoll = time.Minute

// transit is how long a request and its answer are under way between a caller and
// the sidecar.
const transit = time.Millisecond

// actionURL is where all calls go to. Keys are ignored there.
var actionURL = &url.URL{Scheme: "http", Host: "sidecar.test", Path: "/api/v2/integrations/actions/custom_-_day/execute"}

// body is that of a call, which no other has.
func (c call) body() []byte { return fmt.Appendf(nil, `{"call":%d}`, c.number) }

// key is that of a call.
func (c call) key() string { return fmt.Sprintf("day-%d", c.number) }

// playCall makes the call c as its kind does.
func (r *run) playCall(c call) (f fate) {
	began := time.Now()
	defer func() { f.took = time.Since(began) }()
	random := rand.New(rand.NewPCG(r.scenario.seed, uint64(c.number)+2))
	for n := 1; ; n++ {
		a, ok := r.send(c, http.MethodPost, actionURL, c.kind.patience)
		var after time.Duration
		switch {
		case !ok:
			f.timeouts++
		case a.status == http.StatusOK:
			f.answered = true
			return f
		case a.status == http.StatusAccepted:
			f.accepted = time.Since(began)
			f.answered = r.collect(c, a, &f)
			return f
		case a.status == http.StatusTooManyRequests:
			f.limited++
			after = retryAfter(a)
		default:
			f.errors++
			after = retryAfter(a)
		}
		if n == c.kind.attempts {
			return f
		}
		if c.kind.backoff == 0 {
			continue // at once
		}
		wait := c.kind.backoff << (n - 1)
		time.Sleep(max(after, wait/2+randomly(random, wait)))
	}
}

// collect asks for the answer of a call that was handed over, and tells whether it
// got it.
func (r *run) collect(c call, accepted *answer, f *fate) bool {
	location, err := actionURL.Parse(accepted.header.Get("Location"))
	if err != nil {
		return false
	}
	for until := time.Now().Add(time.Hour); time.Now().Before(until); {
		a, ok := r.send(c, http.MethodGet, location, 2*longPoll)
		switch {
		case !ok:
			f.timeouts++
		case a.status == http.StatusOK:
			return true
		case a.status != http.StatusAccepted:
			f.errors++
			return false
		}
	}
	return false
}

// send makes one request for c. It returns false if that was not answered in time.
func (r *run) send(c call, method string, u *url.URL, patience time.Duration) (*answer, bool) {
	// As over a connection: who leaves cancels, without saying why.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer time.AfterFunc(patience, cancel).Stop()
	header := http.Header{"X-Caller": {c.caller}}
	var body []byte
	if method == http.MethodGet {
		header["Prefer"] = []string{fmt.Sprintf("wait=%d", longPoll/time.Second)}
	}
	if method == http.MethodPost {
		header["Content-Type"] = []string{"application/json"}
		header["Sandbox-Fault"] = []string{"slow=" + c.latency.String()}
		if c.kind.keyed {
			header["Idempotency-Key"] = []string{c.key()}
		}
		if c.kind.handover && r.mode == paced {
			header["Prefer"] = []string{"respond-async"}
		}
		body = c.body()
	}
	w := newAnswer()
	to := *u
	time.Sleep(transit)
	r.handler.ServeHTTP(w, newRequest(ctx, method, &to, header, body))
	time.Sleep(transit)
	return w, ctx.Err() == nil
}

// retryAfter returns what an answer asks for.
func retryAfter(a *answer) time.Duration {
	n, _ := strconv.Atoi(a.header.Get("Retry-After"))
	return time.Duration(n) * time.Second
}
