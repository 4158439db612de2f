package test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestAKeylessCallThatWasAcceptedIsNoOther(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	first, second := s.handOver(t, keyless), s.handOver(t, keyless)
	if first == second {
		t.Errorf("both are at %s", first)
	}
	w.letIn()
	a, b := s.outcome(t, first), s.outcome(t, second)
	if a.status != 200 || b.status != 200 || a.body == b.body {
		t.Errorf("got %+v and %+v", a, b)
	}
	w.wantEffects(t, 3)
}

// A keyless call whose caller was gone before it could be told where to ask is the
// one that it sends again.
func TestAKeylessCallWhoseCallerWasGoneIsHandedOverOnce(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	const rounds = 10
	for i := range rounds {
		body := fmt.Sprintf(`{"round":%d}`, i)
		s.pause(t)
		for range 3 {
			conn, err := net.Dial("tcp", s.address)
			must(t, err)
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nPrefer: respond-async\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", execute, len(body), body)
			must(t, err)
			must(t, conn.Close())
		}
		s.resume(t)
		s.handOver(t, request{path: execute, body: body})
	}
	w.letIn()
	s.outcome(t, s.handOver(t, keyed(1))) // which comes last
	w.wantEffects(t, 1+rounds+1)
}

// rotating starts a sidecar whose client secret is in a file.
func rotating(t *testing.T, p *platform) (s *sidecar, secretFile string) {
	t.Helper()
	secretFile = filepath.Join(t.TempDir(), "secret")
	writeFile(t, secretFile, secret)
	return newSidecar(t, p, options{global: "client_secret {file." + secretFile + "}"}), secretFile
}

func TestACallWaitsWhileTheSecretIsWrong(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s, file := rotating(t, p)
	p.control(t, "PUT", "/sandbox/client", `{"secret":"rotated"}`)
	location := s.handOver(t, keyed(1))
	waitFor(t, func() bool { return p.Summary().TokenRequests > 0 })
	if a := s.asks(t, location); a.status != 202 || a.state() != "queued" {
		t.Errorf("got %+v", a)
	}
	writeFile(t, file, "rotated\n")
	s.reload(t)
	wantStatus(t, s.outcome(t, location), 200)
	p.wantEffects(t, 1)
}

func TestWhatThePlatformRefusesIsTheAnswerAndItsKeyIsFree(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{})
	p.control(t, "PUT", "/sandbox/permissions", `{"granted":false}`)
	location := s.handOver(t, keyed(1))
	a := s.outcome(t, location)
	wantProblem(t, a, 403, "missing.any.permissions")
	if again := s.asks(t, location); again.body != a.body {
		t.Errorf("first %+v, then %+v", a, again)
	}
	p.control(t, "PUT", "/sandbox/permissions", `{"granted":true}`)
	wantStatus(t, s.send(t, keyed(1)), 200)
	wantStatus(t, s.asks(t, location), 200)

	location = s.handOver(t, keyed(2).with("Sandbox-Fault", "400-contract; times=1"))
	wantProblem(t, s.outcome(t, location), 400, "invalid.schema")
	location = s.handOver(t, keyed(2))
	wantStatus(t, s.outcome(t, location), 200)
	p.wantEffects(t, 2)
}

func TestACallThatThePlatformDefersWaitsForAnotherTurn(t *testing.T) {
	t.Parallel()
	for _, path := range []string{execute, invoke} {
		p := newPlatform(t, sandbox.Config{})
		s := newSidecar(t, p, options{block: "deadline 500ms"})
		call := newCall(path, "k", "429=2; times=1")
		location := s.handOver(t, call)
		waitFor(t, func() bool { return p.Summary().Attempts == 1 })
		before := time.Now()
		wantAccepted(t, s.asks(t, location))
		wantStatus(t, s.outcome(t, location), 200)
		if n := p.Summary().Attempts; n != 2 {
			t.Errorf("the platform got it %d times", n)
		}
		attempts := p.Ledger(sandbox.Filter{}).Attempts
		if waited := attempts[len(attempts)-1].Time.Sub(attempts[0].Time); waited < 2*time.Second {
			t.Errorf("it was sent again after %v, asked for first %v after", waited, before.Sub(attempts[0].Time))
		}
		p.wantEffects(t, 1)
	}
}

func TestAFullBacklogAcceptsNothing(t *testing.T) {
	for _, store := range []string{"disk", "memory", "redis"} {
		t.Run(store, func(t *testing.T) {
			w := newWard(t, sandbox.Config{})
			o := options{global: "backlog 3"}
			switch store {
			case "memory":
				o.global += "\n\t\tstore memory"
			case "redis":
				o.global += "\n\t\t" + onRedis(newRedis(t).URL())
			}
			s := newSidecar(t, w.platform, o)
			s.block(t, w)
			var locations []string
			for i := range 2 {
				locations = append(locations, s.handOver(t, keyed(i)))
			}
			for _, r := range []request{later(keyed(3)), later(keyless)} {
				a := s.send(t, r)
				wantProblem(t, a, 503, "overloaded")
				if a.header.Get("Retry-After") == "" || a.header.Get("Location") != "" || !strings.Contains(a.body, `"outcome":"not_executed"`) {
					t.Errorf("got %+v", a)
				}
			}
			if again := s.handOver(t, keyed(0)); again != locations[0] { // what is there already needs no room
				t.Errorf("first %s, then %s", locations[0], again)
			}
			wantStatus(t, s.cancel(t, locations[0]), 204) // which makes room
			locations[0] = s.handOver(t, keyed(4))
			w.letIn()
			for _, l := range locations {
				wantStatus(t, s.outcome(t, l), 200)
			}
			wantStatus(t, s.outcome(t, s.handOver(t, keyed(5))), 200)
			w.wantEffects(t, 4)
		})
	}
}

func TestLargeCallsWaitAsSmallOnesDo(t *testing.T) {
	t.Parallel()
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	body := `{"input":{"padding":"` + strings.Repeat("x", 1<<20-100) + `"}}`
	large := request{path: execute, body: body, header: []string{"Idempotency-Key", "large"}}
	location := s.handOver(t, large)
	answered := s.handOver(t, keyed(1).with("Sandbox-Fault", "large=7MiB"))
	tooLarge := s.handOver(t, keyed(2).with("Sandbox-Fault", "large=9MiB"))
	s.kill(t)
	w.letIn()
	s.start(t)
	a := s.outcome(t, location)
	sum := sha256.Sum256([]byte(body))
	effects := w.Ledger(sandbox.Filter{Key: "large"}).Effects
	if len(effects) != 1 || effects[0].BodySHA256 != hex.EncodeToString(sum[:]) || a.status != 200 || !strings.Contains(a.body, body) {
		t.Errorf("got %d and %d bytes, the platform executed %+v", a.status, len(a.body), effects)
	}
	if a := s.outcome(t, answered); a.status != 200 || len(a.body) != 7<<20 {
		t.Errorf("got %d with %d bytes", a.status, len(a.body))
	}
	wantProblem(t, s.outcome(t, tooLarge), 409, "result.unavailable")

	large.body += strings.Repeat(" ", 1000)
	wantProblem(t, s.send(t, later(large)), 413, "request.too.large")
}

func TestCallsThatWaitAreSentByTheConfigurationInForce(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	var locations []string
	for i := range 5 {
		locations = append(locations, s.handOver(t, keyed(i)))
	}
	s.configure(t, options{block: "deadline 50s\n\t\tasync_order none"})
	s.reload(t)
	locations = append(locations, s.handOver(t, keyed(5)))
	wantStatus(t, s.outcome(t, locations[5]), 200) // it has a lane of its own now
	w.wantEffects(t, 1)
	s.configure(t, options{block: "async off"})
	s.reload(t)
	w.letIn()
	for i, l := range locations {
		a := s.outcome(t, l)
		wantReplay(t, s.send(t, keyed(i)), a)
	}
	w.wantEffects(t, 7)
	var keys []string
	for _, e := range w.Ledger(sandbox.Filter{}).Effects {
		keys = append(keys, e.Key)
	}
	if want := []string{"key-5", "block", "key-0", "key-1", "key-2", "key-3", "key-4"}; !slices.Equal(keys, want) {
		t.Errorf("executed %q", keys)
	}
}

func TestACallWaitsForAnOrganisationThatWasTakenAway(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	other, o, _ := newAcme(t, sandbox.Config{})
	s := newSidecar(t, p, o)
	other.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
	location := s.handOver(t, acme(keyed(1)))
	waitFor(t, func() bool { return other.Summary().TokenRequests > 0 })
	s.configure(t, options{})
	s.reload(t)
	other.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
	waitFor(t, func() bool { return strings.Contains(s.log(t), "cannot be sent by this configuration") })
	wantStatus(t, s.outcome(t, s.handOver(t, keyed(1))), 200)
	other.wantEffects(t, 0)
	s.configure(t, o)
	s.reload(t)
	if a := s.asks(t, location, "X-Organization", "acme"); a.status != 202 && a.status != 200 {
		t.Errorf("put back: %+v", a)
	}
	wantStatus(t, s.outcome(t, location, "X-Organization", "acme"), 200)
	other.wantEffects(t, 1)
	p.wantEffects(t, 1)
}

func TestEncryptionLeavesNothingReadableOfACallThatWaits(t *testing.T) {
	t.Parallel()
	texts := []string{canary + "-key", canary + "-body", canary + "-header", "custom_-_" + canary}
	for name, test := range map[string]struct {
		global string
		want   []string
	}{"encrypted": {"encryption_key " + keyFile(t, 1), nil}, "not encrypted": {"", texts}} {
		for _, store := range []string{"disk", "redis"} {
			t.Run(name+"/"+store, func(t *testing.T) {
				p := newPlatform(t, sandbox.Config{})
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
				o := options{global: test.global}
				var dir string
				if store == "redis" {
					r := newRedis(t)
					dir = r.Dir()
					o.global += "\n\t\t" + onRedis(r.URL())
				}
				s := newSidecar(t, p, o)
				if dir == "" {
					dir = filepath.Join(s.dir, "store")
				}
				call := request{
					path: strings.Replace(execute, "custom_-_", "custom_-_"+canary, 1), body: `{"input":"` + canary + `-body"}`,
					header: []string{"Idempotency-Key", canary + "-key", "X-Canary", canary + "-header"},
				}
				location := s.handOver(t, call)
				s.kill(t)
				if found := holds(t, dir, texts); !slices.Equal(found, test.want) {
					t.Errorf("%q can be read, want %q", found, test.want)
				}
				p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
				s.start(t)
				if a := s.outcome(t, location); a.status != 200 || !strings.Contains(a.body, canary+"-body") {
					t.Errorf("got %+v", a)
				}
				s.kill(t)
				if found := holds(t, dir, texts); !slices.Equal(found, test.want) {
					t.Errorf("once it has ended, %q can be read, want %q", found, test.want)
				}
			})
		}
	}
}

func TestTheKeyIsWrittenIntoTheBodyOfACallThatWaited(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{block: "inject_key /key"})
	s.block(t, w)
	location := s.handOver(t, request{path: execute, body: `{"n":1.50}`, header: []string{"Idempotency-Key", "k-1"}})
	bad := s.send(t, later(request{path: execute, body: `[1]`, header: []string{"Idempotency-Key", "k-2"}}))
	wantProblem(t, bad, 400, "body.invalid")
	last := s.handOver(t, keyed(1))
	w.letIn()
	if a := s.outcome(t, location); !strings.Contains(a.body, `"key":"k-1"`) || !strings.Contains(a.body, "1.50") {
		t.Errorf("got %+v", a)
	}
	wantStatus(t, s.outcome(t, last), 200) // nothing is stuck before it
	w.wantEffects(t, 3)
}

// What a configuration that has changed meanwhile can make nothing of keeps nobody
// else waiting.
func TestACallThatDoesNotFitTheConfigurationAnyMoreStandsInNobodysWay(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	s.block(t, w)
	odd := s.handOver(t, request{path: execute, body: `[1]`, header: []string{"Idempotency-Key", "k-1"}})
	last := s.handOver(t, keyed(1))
	s.configure(t, options{block: "inject_key /key"})
	s.reload(t)
	w.letIn()
	wantProblem(t, s.outcome(t, odd), 400, "body.invalid")
	wantStatus(t, s.outcome(t, last), 200)
	w.wantEffects(t, 2)
}

func TestCallsThatWaitSurviveTheEndOfTheProcess(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*sidecar){
		"stopped": func(s *sidecar) { s.stop(t) },
		"killed":  func(s *sidecar) { s.kill(t) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlatform(t, sandbox.Config{})
			p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"down"}`)
			s := newSidecar(t, p, options{})
			var locations []string
			for i := range 20 {
				locations = append(locations, s.handOver(t, keyed(i)))
			}
			end(s)
			p.wantEffects(t, 0)
			p.control(t, "PUT", "/sandbox/token-endpoint", `{"mode":"ok"}`)
			s.start(t)
			for i, l := range locations {
				a := s.outcome(t, l)
				wantReplay(t, s.send(t, keyed(i)), a)
			}
			p.wantEffects(t, 20)
		})
	}
}

func TestAStoppedProcessFinishesWhatItsBacklogHasUnderWay(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	s := newSidecar(t, w.platform, options{})
	running := s.block(t, w)
	queued := s.handOver(t, keyed(1))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop(t)
	}()
	waitFor(t, func() bool {
		conn, err := net.Dial("tcp", s.address)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	w.letIn()
	<-stopped
	w.wantEffects(t, 1)
	s.start(t)
	wantStatus(t, s.asks(t, running), 200)
	wantStatus(t, s.outcome(t, queued), 200)
	w.wantEffects(t, 2)
}
