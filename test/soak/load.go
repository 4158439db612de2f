package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sort"
	"strings"
	"sync"
	"time"
)

const (
	executePath = "/api/v2/integrations/actions/custom_-_soak/execute" // ignores keys
	invokePath  = "/api/v2/dataactions/actions/custom_-_soak/invoke"   // honors keys
	tooLarge    = 12 << 20                                             // an answer of that size is not kept
)

// clients is how many make requests at a time. The upstream answers most of them
// at once, so that the rate is what bounds them.
const clients = 48

// fate is what the upstream does to a new call, as the sandbox names it, with %v
// for a time, and what its caller is to be told.
type fate struct {
	weight          int
	execute, invoke string
	executed        int // the status where keys are ignored
	invoked         int // the status where they are honored
}

var fates = []fate{
	{70, "ok", "ok", 200, 200},
	{10, "slow=%v", "slow=%v; times=1", 200, 200},
	{5, "large=65536", "large=65536", 200, 200},
	{3, "execute-then-drop", "execute-then-drop; times=1", 502, 200},
	{2, "drop-before", "drop-before; times=1", 502, 200},
	{2, "truncate", "truncate; times=1", 502, 200},
	{4, "500-after", "500-after; times=1", 500, 200},
	{2, "503-before", "503-before; times=1", 503, 200},
	{2, "422-remote", "ok", 422, 200},
}

// rare are what happens now and then, in turn. What comes with Retry-After pauses
// all calls.
var rare = []struct{ what, fault string }{
	{"429 with Retry-After", "429=1; times=1"},
	{"an answer too large to keep", fmt.Sprintf("large=%d", tooLarge)},
	{"a reload", ""},
	{"503 with Retry-After", "503-retry-after=1; times=1"},
	{"a token revoked", "401=revoke; times=1"},
}

// load makes requests and looks at what is answered.
type load struct {
	url       string
	retention time.Duration
	http      *http.Client
	reload    func(context.Context) (int, error)
	results   results
	left      int // turns that nobody had time for

	mu     sync.Mutex
	random *rand.Rand // guarded by mu
	number int        // guarded by mu; of calls
	kept   []kept     // guarded by mu; in the order of their ends
}

// kept is a call that was answered and can be repeated for a while.
type kept struct {
	call
	digest [sha256.Size]byte
	at     time.Time
}

// call is a request for a data action.
type call struct {
	path, key, body, fault string
}

// answer is what a caller was told.
type answer struct {
	status   int
	replayed bool
	size     int64
	digest   [sha256.Size]byte
	err      error
}

// run makes rate requests a second, and something rare each so often, until ctx
// ends, and returns when all are answered.
func (l *load) run(ctx context.Context, rate int, often time.Duration) {
	turns := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range turns {
				l.one()
			}
		})
	}
	wg.Go(func() { l.now(ctx, often) })
	ticker := time.NewTicker(time.Second / time.Duration(rate))
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			close(turns)
			wg.Wait()
			return
		case <-ticker.C:
			select {
			case turns <- struct{}{}:
			default:
				l.left++
			}
		}
	}
}

// now has something rare happen, each so often.
func (l *load) now(ctx context.Context, often time.Duration) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(often):
		}
		it := rare[n%len(rare)]
		if it.fault == "" {
			status, err := l.reload(ctx)
			if ctx.Err() == nil {
				l.results.add(it.what, answer{status: status, err: err}, http.StatusOK)
			}
			continue
		}
		c := l.newCall()
		c.fault = it.fault
		a := l.send(c)
		if a.status == http.StatusOK && strings.Contains(c.fault, "large") && a.size != tooLarge {
			a.err = fmt.Errorf("an answer of %d bytes was cut to %d", tooLarge, a.size)
		}
		l.results.add(it.what, a, http.StatusOK)
	}
}

// one makes a request, or a few that belong together.
func (l *load) one() {
	switch n := l.draw(100); {
	case n < 45:
		l.makeNew()
	case n < 63:
		l.repeat()
	case n < 70:
		l.useForAnother()
	case n < 76:
		l.duplicate()
	case n < 84:
		l.makeKeyless()
	case n < 90:
		l.leave()
	default:
		l.proxy()
	}
}

func (l *load) draw(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

// newCall returns a call with a key, of either family, that the upstream answers.
func (l *load) newCall() call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	c := call{path: executePath, key: fmt.Sprintf("soak-%d", l.number), fault: "ok"}
	if l.random.IntN(2) == 0 {
		c.path = invokePath
	}
	c.body = fmt.Sprintf(`{"input":{"soak":%q,"noise":%q}}`, c.key, l.noise())
	return c
}

// noise returns what no store can compress, so that what is kept takes its room. The
// upstream's answers repeat it.
func (l *load) noise() string {
	noise := make([]byte, 2<<10)
	for i := range noise {
		noise[i] = byte(l.random.Uint32())
	}
	return base64.StdEncoding.EncodeToString(noise)
}

// makeNew makes a new call, and keeps it for repeats if it can be.
func (l *load) makeNew() {
	c := l.newCall()
	total := 0
	for _, f := range fates {
		total += f.weight
	}
	n := l.draw(total)
	var f fate
	for _, f = range fates {
		if n -= f.weight; n < 0 {
			break
		}
	}
	want := f.executed
	c.fault = f.execute
	if c.path == invokePath {
		c.fault, want = f.invoke, f.invoked
	}
	c.fault = strings.ReplaceAll(c.fault, "%v", fmt.Sprintf("%dms", 1+l.draw(400)))
	a := l.send(c)
	kind := "new, the upstream answers"
	if f.executed != http.StatusOK {
		kind = "new, the upstream fails"
	}
	if l.results.add(kind, a, want) && want == http.StatusOK {
		l.keep(c, a.digest)
	}
}

// keep keeps a call among the latest.
func (l *load) keep(c call, digest [sha256.Size]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.kept = append(l.kept, kept{c, digest, time.Now()}); len(l.kept) > 2000 {
		l.kept = append(l.kept[:0], l.kept[1000:]...)
	}
}

// drawKept returns a call whose answer is kept for a while yet.
func (l *load) drawKept() (k kept, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := time.Now().Add(-l.retention / 2)
	latest := l.kept[sort.Search(len(l.kept), func(i int) bool { return l.kept[i].at.After(from) }):]
	if len(latest) == 0 {
		return k, false
	}
	return latest[l.random.IntN(len(latest))], true
}

// forgotten tells whether the sidecar may have forgotten a call by now.
func (l *load) forgotten(k kept) bool { return time.Since(k.at) > l.retention*9/10 }

// repeat repeats a call that was answered.
func (l *load) repeat() {
	k, ok := l.drawKept()
	if !ok {
		return
	}
	a := l.send(k.call)
	if l.forgotten(k) {
		return
	}
	if a.status == http.StatusOK && (!a.replayed || a.digest != k.digest) {
		a.err = fmt.Errorf("the repeat of %s got another answer (replayed: %v)", k.key, a.replayed)
	}
	l.results.add("repeated", a, http.StatusOK)
}

// useForAnother uses a key for another request.
func (l *load) useForAnother() {
	k, ok := l.drawKept()
	if !ok {
		return
	}
	k.body = fmt.Sprintf(`{"input":{"soak":"not %s"}}`, k.key)
	if a := l.send(k.call); !l.forgotten(k) {
		l.results.add("key of another request", a, http.StatusUnprocessableEntity)
	}
}

// duplicate makes a call three times at once.
func (l *load) duplicate() {
	c := l.newCall()
	c.fault = "slow=200ms"
	begin := time.Now()
	answers := make([]answer, 3)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i] = l.send(c) })
	}
	wg.Wait()
	originals := 0
	for i := range answers {
		if a := &answers[i]; a.err == nil && a.digest != answers[0].digest && answers[0].err == nil {
			a.err = fmt.Errorf("the duplicates of %s got different answers", c.key)
		} else if !a.replayed {
			originals++
		}
	}
	if originals > 1 && answers[0].err == nil && answers[1].err == nil && answers[2].err == nil && time.Since(begin) < l.retention {
		answers[0].err = fmt.Errorf("%d duplicates of %s ran", originals, c.key)
	}
	for _, a := range answers {
		l.results.add("duplicates in flight", a, http.StatusOK)
	}
}

// makeKeyless makes a call without a key.
func (l *load) makeKeyless() {
	c := l.newCall()
	c.key = ""
	l.results.add("no key", l.send(c), http.StatusOK)
}

// leave makes a call without a key, leaves, and makes it again, as SDKs do.
func (l *load) leave() {
	c := l.newCall()
	c.key, c.fault = "", "stall=150ms"
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	l.sendWithin(ctx, c)
	cancel()
	l.results.add("no key, and left", answer{}, 0)
	l.results.add("no key, and came back", l.send(c), http.StatusOK)
}

// proxy asks for what is no data action. That is not asked for again when its
// token has just been revoked.
func (l *load) proxy() {
	path := "/api/v2/users/me"
	if l.draw(10) == 0 {
		path = "/api/v2/sandbox/stream?bytes=300000"
	}
	req, err := http.NewRequest(http.MethodGet, l.url+path, nil)
	if err != nil {
		l.results.add("proxied", answer{err: err}, http.StatusOK)
		return
	}
	l.results.add("proxied", l.do(req), http.StatusOK, http.StatusUnauthorized)
}

func (l *load) send(c call) answer { return l.sendWithin(context.Background(), c) }

func (l *load) sendWithin(ctx context.Context, c call) answer {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url+c.path, bytes.NewReader([]byte(c.body)))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sandbox-Fault", c.fault)
	if c.key != "" {
		req.Header.Set("Idempotency-Key", c.key)
	}
	return l.do(req)
}

func (l *load) do(req *http.Request) (a answer) {
	resp, err := l.http.Do(req)
	if err != nil {
		return answer{err: lostError{err}}
	}
	defer resp.Body.Close()
	hash := sha256.New()
	if a.size, err = io.Copy(hash, resp.Body); err != nil {
		return answer{err: lostError{err}}
	}
	hash.Sum(a.digest[:0])
	a.status, a.replayed = resp.StatusCode, resp.Header.Get("Idempotent-Replayed") == "true"
	return a
}
