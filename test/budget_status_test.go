package test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

// budgetStatus is what the status tells of a budget and of what waits.
type budgetStatus struct {
	Organizations []struct {
		Budget *struct {
			Starts, Limit, Used, Waiting, Queue, Concurrency int
			Window, Oldest                                   float64
			InFlight                                         int     `json:"in_flight"`
			NextStart                                        float64 `json:"next_start"`
			Scopes                                           []struct {
				Scope   string
				Waiting int
			}
		}
	}
	Backlog *struct {
		Calls    int
		Bytes    int64
		MaxCalls int   `json:"max_calls"`
		MaxBytes int64 `json:"max_bytes"`
		Age      float64
	}
}

func (s *sidecar) budgetStatus(t *testing.T) (b budgetStatus) {
	t.Helper()
	if code := s.ask(t, http.MethodGet, "/genesys/status", "", &b); code != http.StatusOK || len(b.Organizations) != 1 {
		t.Fatalf("the status: %d %+v", code, b)
	}
	return b
}

// wantSaid fails the test unless text has each of parts.
func wantSaid(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("it does not say %q: %s", part, text)
		}
	}
}

func TestTheStatusTellsWhatIsUsedOfTheBudgetAndWhoWaitsForIt(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 1 1h\nconcurrency 7\nqueue 9", block: "deadline 9h\nscope {header.X-Caller}"})
	if a := s.send(t, keyed(1)); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			_, _ = s.try(t.Context(), keyed(2+i).with("X-Caller", []string{"a", "b"}[min(i, 1)]))
		})
	}
	waitFor(t, func() bool { return s.budgetStatus(t).Organizations[0].Budget.Waiting == 3 })
	b := s.budgetStatus(t).Organizations[0].Budget
	if b.Starts != 1 || b.Limit != 1 || b.Used != 1 || b.Window != 3600 || b.Concurrency != 7 || b.Queue != 9 || b.InFlight != 0 ||
		b.Oldest <= 0 || b.NextStart < 3500 || len(b.Scopes) != 2 || b.Scopes[0].Waiting != 2 || b.Scopes[1].Waiting != 1 {
		t.Errorf("got %+v", b)
	}
	wantSaid(t, s.wantExit(t, 0, "status").out, "1 of 1 starts used in 1h0m0s", "0 of 7 at a time", "3 of at most 9 wait, the first for ",
		"the next starts in ", "scope "+b.Scopes[0].Scope+": 2 wait")
	for name, want := range map[string]string{"starts": "1", "limit": "1", "used": "1", "waiting": "3", "in_flight": "0", "fallback": "0"} {
		if got := s.metric(t, `genesys_budget_`+name+`{organization="default"}`); got != want {
			t.Errorf("genesys_budget_%s is %s, want %s", name, got, want)
		}
	}
	s.kill(t) // else they would wait for it to end
	wg.Wait()
}

func TestWithoutALimitThereIsNoBudgetToTellOf(t *testing.T) {
	s := newSidecar(t, newPlatform(t, sandbox.Config{}), options{})
	if b := s.budgetStatus(t).Organizations[0].Budget; b != nil {
		t.Errorf("got %+v", b)
	}
	if out := s.wantExit(t, 0, "status").out; strings.Contains(out, "budget") {
		t.Errorf("it says %s", out)
	}
}

func TestTheStatusTellsWhatWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	withStores(t, options{global: "backlog 40 1MiB"}, func(t *testing.T, p *platform, s *sidecar) {
		p.control(t, "PUT", "/sandbox/client", `{"secret":"another"}`) // nothing is sent without a token
		if b := s.budgetStatus(t).Backlog; b == nil || b.Calls != 0 || b.MaxCalls != 40 || b.MaxBytes != 1<<20 {
			t.Errorf("with nothing in it: %+v", b)
		}
		for i := range 3 {
			s.handOver(t, keyed(i))
		}
		b := s.budgetStatus(t).Backlog
		if b.Calls != 3 || b.Bytes == 0 || b.Age <= 0 {
			t.Errorf("got %+v", b)
		}
		wantSaid(t, s.cli(t, "status").out, "3 of at most 40 calls wait for their turn", "of 1.0 MiB)")
		if got := s.metric(t, "genesys_backlog_calls"); got != "3" {
			t.Errorf("genesys_backlog_calls is %s", got)
		}
		queued := s.calls(t, "state=queued")
		if len(queued) != 3 || queued[0].State != "queued" {
			t.Fatalf("queued are %+v", queued)
		}
		wantSaid(t, s.wantExit(t, 0, "calls", "list", "--state", "queued").out, queued[0].Digest, "queued")
		wantSaid(t, s.wantExit(t, 0, "calls", "show", queued[0].Digest).out, "is queued")

		p.control(t, "PUT", "/sandbox/client", `{"secret":"`+secret+`"}`)
		waitFor(t, func() bool { return s.budgetStatus(t).Backlog.Calls == 0 })
		waitFor(t, func() bool { return s.metric(t, "genesys_backlog_ended_total") == "3" })
		wantSaid(t, s.wantExit(t, 0, "status").out, "no call waits for its turn; 3 have ended in the last minute")
	})
}

func TestAnAttemptTellsHowLongItsCallWasPaced(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 2 400ms {\n\t\t\tburst 1\n\t\t}"})
	for i := range 2 {
		if a := s.send(t, keyed(i)); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
	}
	var paced []call
	for _, c := range s.calls(t, "state=done") {
		if c.Attempts[0].Paced > 0 {
			paced = append(paced, c)
		}
	}
	if len(paced) != 1 || paced[0].Attempts[0].Paced > paced[0].Attempts[0].Waited {
		t.Fatalf("got %+v", paced)
	}
	wantSaid(t, s.wantExit(t, 0, "calls", "show", paced[0].Digest).out, "(paced ")
}
