package test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/test/failpoint"
)

// How much is drained. The whole of it, which takes a while:
//
//	go test -tags nobadger,nomysql,nopgx ./test -run Drained -drain.calls 5000 -drain.kills 10 -timeout 1h
var (
	drainCalls = flag.Int("drain.calls", 500, "how many calls are handed over to be drained")
	drainKills = flag.Int("drain.kills", 4, "how many times a sidecar is killed while it drains them")
)

// drain is a number of calls that are handed over, and what becomes of them.
type drain struct {
	t      *testing.T
	p      *platform
	path   string
	fleet  []*sidecar
	scopes []string
	calls  []*handedOver

	accepted atomic.Int64 // calls
	resent   atomic.Int64 // requests that were sent again, since no answer had come
	upset    int          // how often a process was killed or stopped
	pauses   []interval   // in which a process stood still
}

type interval struct{ from, to time.Time }

// handedOver is one of the calls of a drain.
type handedOver struct {
	scope, key string
	number     int // within its scope
	body       string
	location   string
	answer     answer
}

func newDrain(t *testing.T, p *platform, path string, scopes, calls int, fleet ...*sidecar) *drain {
	d := &drain{t: t, p: p, path: path, fleet: fleet}
	for i := range scopes {
		d.scopes = append(d.scopes, fmt.Sprint("scope-", i))
	}
	for i := range calls {
		n := i / scopes
		d.calls = append(d.calls, &handedOver{
			scope: d.scopes[i%scopes], key: fmt.Sprintf("k-%d", n), number: n,
			body: fmt.Sprintf(`{"input":{"scope":%d,"n":%d}}`, i%scopes, n),
		})
	}
	return d
}

// drainBlock has each caller be a scope of its own.
const drainBlock = "scope {header.X-Caller}"

func (d *drain) any() *sidecar { return d.fleet[rand.N(len(d.fleet))] }

// send sends a request to any sidecar until there is an answer.
func (d *drain) send(r request) answer {
	for end := time.Now().Add(2 * time.Minute); ; d.resent.Add(1) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		a, err := d.any().try(ctx, r)
		cancel()
		if err == nil && a.status != http.StatusServiceUnavailable {
			return a
		}
		if time.Now().After(end) {
			d.t.Errorf("no answer: %+v, %v", a, err)
			return a
		}
		time.Sleep(20 * time.Millisecond) // it is being started
	}
}

// handOver hands all calls over, those of a scope one after the other.
func (d *drain) handOver() {
	var all sync.WaitGroup
	for _, scope := range d.scopes {
		all.Go(func() {
			for _, c := range d.calls {
				if c.scope != scope {
					continue
				}
				a := d.send(later(c.request(d.path)))
				if a.status != http.StatusAccepted {
					d.t.Errorf("%s of %s was not accepted: %+v", c.key, scope, a)
				}
				c.location = a.header.Get("Location")
				d.accepted.Add(1)
			}
		})
	}
	all.Wait()
}

func (c *handedOver) request(path string) request {
	return request{path: path, body: c.body, header: []string{"Idempotency-Key", c.key, "X-Caller", c.scope}}
}

// standstill is how long nothing may happen before what is left counts as lost.
const standstill = time.Minute

// collect asks for all answers.
func (d *drain) collect() {
	var mu sync.Mutex
	done, since := -1, time.Time{}
	stands := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if n := d.p.Summary().Attempts; n != done {
			done, since = n, time.Now()
		}
		return time.Since(since) > standstill
	}
	each(len(d.calls), func(i int) {
		c := d.calls[i]
		for {
			c.answer = d.send(request{method: http.MethodGet, path: c.location, header: []string{"X-Caller", c.scope, "Prefer", "wait=5"}})
			if c.answer.status != http.StatusAccepted {
				return
			}
			if stands() {
				d.t.Errorf("%s of %s is still on its way: %+v", c.key, c.scope, c.answer)
				return
			}
		}
	})
}

func (d *drain) executed() int { return d.p.Summary().Effects }

// kill kills a sidecar and starts it again.
func (d *drain) kill(s *sidecar) {
	s.kill(d.t)
	s.start(d.t)
	d.upset++
}

// halt has a sidecar stand still for a while.
func (d *drain) halt(s *sidecar, pause time.Duration) {
	from := time.Now()
	must(d.t, s.stopHere())
	time.Sleep(pause)
	s.resume(d.t)
	d.pauses = append(d.pauses, interval{from, time.Now()})
	d.upset++
}

// check judges what has become of all calls. mostUnknown is how many of them may
// have come to an unknown outcome.
func (d *drain) check(mostUnknown int) {
	d.t.Helper()
	honored := d.path == invoke
	ledger := d.p.Ledger(sandbox.Filter{})
	byKey := make(map[string][]sandbox.Effect)
	for _, e := range ledger.Effects {
		byKey[e.Key] = append(byKey[e.Key], e)
	}
	var answers [3]int // 200, unknown and executed, unknown and not executed
	keys := make(map[string]*handedOver)
	for _, c := range d.calls {
		key := idempotency.UpstreamKey(c.scope, c.key)
		keys[key] = c
		effects := byKey[key]
		delete(byKey, key)
		sum := sha256.Sum256([]byte(c.body))
		for _, e := range effects {
			if e.BodySHA256 != hex.EncodeToString(sum[:]) {
				d.t.Errorf("%s of %s was executed with another body", c.key, c.scope)
			}
		}
		var body struct{ ExecutionID, Outcome string }
		_ = json.Unmarshal([]byte(c.answer.body), &body)
		switch {
		case len(effects) > 1:
			d.t.Errorf("%s of %s ran %d times", c.key, c.scope, len(effects))
		case honored && len(effects) == 0:
			d.t.Errorf("%s of %s did not run", c.key, c.scope)
		}
		switch {
		case c.answer.status == 200 && len(effects) == 1 && body.ExecutionID == effects[0].ID:
			answers[0]++
		case !honored && c.answer.status == 502 && body.Outcome == "unknown":
			answers[2-len(effects)]++
		default:
			d.t.Errorf("%s of %s, which ran %d times, is told %+v", c.key, c.scope, len(effects), c.answer)
		}
	}
	for key, effects := range byKey {
		d.t.Errorf("nobody handed over what ran %d times under %q", len(effects), key)
	}
	if n := answers[1] + answers[2]; n > mostUnknown {
		d.t.Errorf("%d calls came to an unknown outcome, which %d may have", n, mostUnknown)
	}

	latest := make(map[string]sandbox.Effect) // of each scope
	late := 0
	for _, e := range ledger.Effects {
		c := keys[e.Key]
		if c == nil {
			continue
		}
		if before, ok := latest[c.scope]; ok && keys[before.Key].number > c.number {
			if honored || !d.isLate(e) {
				d.t.Errorf("%s of %s ran after %s", c.key, c.scope, keys[before.Key].key)
			}
			late++
			continue
		}
		latest[c.scope] = e
	}
	d.t.Logf("%d calls of %d scopes, %d kills and pauses, %d requests sent again; %d answered, %d unknown that ran, %d unknown that did not; %d sent late; %d attempts",
		len(d.calls), len(d.scopes), d.upset, d.resent.Load(), answers[0], answers[1], answers[2], late, len(ledger.Attempts))
}

// isLate tells whether what was executed may have been sent by a process that had
// been taken for dead: it had claimed the call before it stood still, and the
// others have gone on.
func (d *drain) isLate(e sandbox.Effect) bool {
	return slices.ContainsFunc(d.pauses, func(i interval) bool {
		return e.Started.After(i.from) && e.Started.Before(i.to.Add(time.Second))
	})
}

// checkQuiet checks that nothing is left: the next call of each scope is at once
// the next that the platform gets.
func (d *drain) checkQuiet() {
	d.t.Helper()
	before := d.p.Summary().Attempts
	for _, scope := range d.scopes {
		c := &handedOver{scope: scope, key: "last", body: `{"input":{"last":true}}`}
		a := d.send(later(c.request(d.path)))
		c.location = a.header.Get("Location")
		for a.status == http.StatusAccepted {
			a = d.send(request{method: http.MethodGet, path: c.location, header: []string{"X-Caller", scope, "Prefer", "wait=5"}})
		}
		wantStatus(d.t, a, http.StatusOK)
	}
	if n := d.p.Summary().Attempts - before; n != len(d.scopes) {
		d.t.Errorf("%d calls came to %d attempts once all had ended", len(d.scopes), n)
	}
}

// turnsAtATime is how many calls of a backlog a process has under way at the most.
const turnsAtATime = 64

func TestABacklogIsDrainedByAProcessThatIsKilledAllTheTime(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		for _, scopes := range []int{1, 25} {
			upstream := map[string]string{execute: "ignores keys", invoke: "honors keys"}[path]
			t.Run(fmt.Sprintf("%s/%d scopes", upstream, scopes), func(t *testing.T) {
				p := newPlatform(t, sandbox.Config{Latency: 2 * time.Millisecond})
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
				s := newSidecar(t, p, options{block: drainBlock})
				d := newDrain(t, p, path, scopes, *drainCalls, s)

				// While they are handed over, it is killed as well.
				began := time.Now()
				var enqueuers sync.WaitGroup
				enqueuers.Go(d.handOver)
				for i := range 2 {
					waitLong(t, func() bool { return d.accepted.Load() >= int64((i+1)**drainCalls/3) })
					d.kill(s)
				}
				enqueuers.Wait()
				if n := p.Summary().Attempts; n != 0 {
					t.Errorf("%d calls were sent without a token", n)
				}
				t.Logf("handed over in %v", time.Since(began).Round(time.Millisecond))

				began = time.Now()
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
				d.kill(s) // with all of them on record
				for i := range *drainKills - 1 {
					waitLong(t, func() bool { return d.executed() >= (i+1)**drainCalls/(*drainKills+1) })
					d.kill(s)
				}
				d.collect()
				t.Logf("drained in %v", time.Since(began).Round(time.Millisecond))
				d.check((*drainKills + 2) * min(scopes, turnsAtATime))
				d.checkQuiet()
			})
		}
	}
}

// waitLong is waitFor for what takes as long as there are calls.
func waitLong(t testing.TB, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Minute); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

// A caller that is not told that its call was accepted sends it again, and one that
// brings no key is recognised.
func TestKilledWhileACallIsHandedOver(t *testing.T) {
	t.Parallel()
	failing, err := buildFailing()
	must(t, err)
	for _, point := range []string{"unqueued", "queued", "unpromised", "promised"} {
		for _, store := range []string{"disk", "redis"} {
			for _, key := range []string{"k", ""} {
				if point == "promised" && key != "" {
					continue // what it is told is not flushed before
				}
				t.Run(strings.Join([]string{point, store, "key " + key}, "/"), func(t *testing.T) {
					t.Parallel()
					p := newPlatform(t, sandbox.Config{})
					p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
					o := options{}
					if store == "redis" {
						o.global = onRedis(newRedis(t).URL(), shortLease)
					}
					armed := filepath.Join(t.TempDir(), "armed")
					s := newSidecarOf(t, p, failing, o, failpoint.Point+"="+point, failpoint.Armed+"="+armed)
					before := s.handOver(t, keyed(1))
					writeFile(t, armed, "")
					call := newCall(execute, key, "")
					a, err := s.try(context.Background(), later(call))
					if told := point == "promised"; told != (err == nil && a.status == http.StatusAccepted) {
						t.Errorf("the caller got %+v, %v", a, err)
					}
					<-s.ended
					s.cmd = nil
					must(t, os.Remove(armed))

					s.start(t)
					location := s.handOver(t, call)
					if point == "promised" && location != a.header.Get("Location") {
						t.Errorf("it was told %s, and then %s", a.header.Get("Location"), location)
					}
					p.wantEffects(t, 0)
					p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
					wantStatus(t, s.outcome(t, before), http.StatusOK)
					wantStatus(t, s.outcome(t, location), http.StatusOK)
					p.wantEffects(t, 2)
				})
			}
		}
	}
}
