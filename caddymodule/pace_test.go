package caddymodule

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

func TestALateStartIsToldAsRateLimited(t *testing.T) {
	late := &pacing.LateError{RetryAfter: 41*time.Second + 1, Reason: pacing.PastDeadline}
	answer := problemOf(fmt.Errorf("entering: %w", late)).answer(idempotency.ID{})
	if h := answer.Header.HTTP(); answer.Status != 429 || h.Get("Retry-After") != "42" {
		t.Errorf("%d with Retry-After %s", answer.Status, h.Get("Retry-After"))
	}
	if p := problemOf(fmt.Errorf("%w: %w", idempotency.ErrUnresolved, late)); p.slug != slugRateLimited || p.outcome != outcomeUnknown {
		t.Errorf("of a call that may have run before: %s, %s", p.slug, p.outcome)
	}
	if p := problemOf(&pacing.LateError{Reason: pacing.QueueFull}); p.retryAfter != time.Second || !p.retryable || p.outcome != outcomeNotExecuted {
		t.Errorf("a full queue: %+v", p)
	}
}

func TestTheConfigurationThatStartedLastHasTheBudget(t *testing.T) {
	o := &org{pacer: pacing.New(nil)}
	starts := func() int { return o.pacer.Status().Limits.Starts }
	of := func(n int) *access {
		return &access{budget: (&Organization{Pace: &Pace{Starts: n, Window: 1e9}}).budget()}
	}
	first, second, failed := of(1), of(2), of(3)
	none := o.use(first)
	if former := o.use(second); former != first || starts() != 2 {
		t.Errorf("the second has started, and the budget is %d", starts())
	}
	o.restore(first, none) // the reload is over
	if starts() != 2 {
		t.Errorf("the first has stopped, and the budget is %d", starts())
	}
	former := o.use(failed)
	o.restore(failed, former)
	if starts() != 2 {
		t.Errorf("one that failed has left a budget of %d", starts())
	}
	o.use(&access{})
	if o.pacer.Active() {
		t.Error("there is a limit, though the last configuration has none")
	}
}

func TestABudgetThatMakesNoSenseIsRefused(t *testing.T) {
	for name, o := range map[string]Organization{
		"no starts":       {Pace: &Pace{Window: 1e9}},
		"no window":       {Pace: &Pace{Starts: 1}},
		"negative":        {Pace: &Pace{Starts: -1, Window: 1e9}},
		"a long window":   {Pace: &Pace{Starts: 1, Window: 1 << 62}},
		"burst":           {Pace: &Pace{Starts: 1, Window: 1e9, Burst: 2}},
		"share":           {Pace: &Pace{Starts: 1, Window: 1e9, Share: -1}},
		"concurrency":     {Concurrency: -1},
		"queue":           {Concurrency: 1, Queue: -1},
		"a useless queue": {Queue: 1},
	} {
		if err := o.checkBudget(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, o := range []Organization{{}, {Concurrency: 1, Queue: 1}, {Pace: &Pace{Starts: 1, Window: 1e6, Burst: 1, Share: 1}, Queue: 5}} {
		if err := o.checkBudget(); err != nil {
			t.Error(err)
		}
	}
}

// provisioned returns the app of a configuration whose organisation has a pace of
// so many starts an hour, if any.
func provisioned(t *testing.T, starts int) *App {
	t.Helper()
	pace := ""
	if starts > 0 {
		pace = fmt.Sprintf(`"pace": {"starts": %d, "window": "1h"},`, starts)
	}
	return provisionedWith(t, pace, nil)
}

// provisionedWith returns the app of a configuration that has other apps as well.
func provisionedWith(t *testing.T, pace string, others caddy.ModuleMap) *App {
	t.Helper()
	apps := caddy.ModuleMap{"genesys": json.RawMessage(`{
		"api_url": "http://127.0.0.1:1", "client_id": "a client", "client_secret": "{env.PATH}",
		` + pace + `"storage": {"backend": "memory"}
	}`)}
	maps.Copy(apps, others)
	ctx, err := caddy.ProvisionContext(&caddy.Config{AppsRaw: apps})
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := ctx.App("genesys")
	if err != nil {
		t.Fatal(err)
	}
	a := loaded.(*App)
	t.Cleanup(func() {
		if err := a.Cleanup(); err != nil {
			t.Error(err)
		}
	})
	return a
}

// starts returns how many starts an hour the budget in force has.
func (a *App) starts() int { return a.orgs[""].pacer.Status().Limits.Starts }

func TestAConfigurationThatNeverStartsIsNotInForce(t *testing.T) {
	a := provisioned(t, 1)
	a.rest() // which its cleanup does
	if running.Load() != nil || !a.tenure.isOver() {
		t.Error("it is in force, or events still wait for it")
	}
}

// The servers of a process may have started, and be called, before the app is.
func TestACallThatComesBeforeTheStartKeepsToTheBudget(t *testing.T) {
	a := provisioned(t, 1)
	if n := a.starts(); n != 1 {
		t.Errorf("before it has started, the budget is %d", n)
	}
	if running.Load() != a {
		t.Error("before it has started, there is nothing to tell of it")
	}
}

// The admin API may be asked even earlier.
func TestOperatorsMayAskWhileHandlersAreProvisioned(t *testing.T) {
	provisioned := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-provisioned:
				return
			default:
			}
			if a := running.Load(); a != nil {
				a.status(time.Now())
			}
		}
	})
	const handlers = 50
	handle := strings.Repeat(`{"handler": "genesys_cloud"},`, handlers-1) + `{"handler": "genesys_cloud"}`
	a := provisionedWith(t, "", caddy.ModuleMap{"http": json.RawMessage(
		`{"servers": {"srv0": {"listen": ["127.0.0.1:0"], "routes": [{"handle": [` + handle + `]}]}}}`)})
	close(provisioned)
	asking.Wait()
	if n := len(a.status(time.Now()).Handlers); n != 2*handlers { // one part of each for either family
		t.Errorf("they are told of %d handlers", n)
	}
}

// They may also be stopped, and wait for their calls, after it.
func TestTheLastBudgetHoldsUntilTheLastCallHasEnded(t *testing.T) {
	first, second, failed := provisioned(t, 0), provisioned(t, 2), provisioned(t, 3)
	start := func(a *App) {
		if err := a.Start(); err != nil {
			t.Fatal(err)
		}
	}
	stop := func(a *App) {
		if err := a.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	start(first)
	first.tenure.started()
	start(second)
	second.tenure.started()
	stop(first)
	start(failed)
	stop(failed)
	if n := second.starts(); n != 2 {
		t.Errorf("after one that failed, the budget is %d", n)
	}
	stop(second)
	if n := second.starts(); n != 2 {
		t.Errorf("after the process was asked to end, the budget is %d", n)
	}
}
