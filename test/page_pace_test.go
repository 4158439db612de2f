package test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"genesys-sidecar/caddymodule/sandbox"
)

// newPaced starts a sidecar that has the page for operators, a budget, and callers
// with much patience.
func newPaced(t *testing.T, p *platform, global string) *sidecar {
	t.Helper()
	return newSidecar(t, p, options{global: global, site: "genesys_admin", block: pacedBlock})
}

const pacedBlock = "deadline 12h\n\t\tscope {header.X-Caller}"

// await makes a call whose caller waits until t ends.
func (s *sidecar) await(t *testing.T, r request) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if a, err := s.try(ctx, r); err == nil {
			t.Errorf("it was to wait, and got %+v", a)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
}

// choose has the list of the latest calls show those in a state.
func (b *tab) choose(t *testing.T, state string) {
	t.Helper()
	eval[bool](t, b, "(s => { s.value = '"+state+"'; s.dispatchEvent(new Event('change', {bubbles: true})); return true; })(document.querySelector('#filters select'))")
}

func TestThePageSaysNothingOfABudgetWhereThereIsNone(t *testing.T) {
	s := newOperated(t, newPlatform(t, sandbox.Config{}))
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#checks", "Pause: None. Calls are sent at once.")
	b.waitText(t, "#checks", "Backlog: No call waits to be sent later.")
	if text := b.text(t, "#checks"); strings.Contains(text, "Budget") {
		t.Errorf("the page shows\n%s", text)
	}
}

func TestThePageShowsABudgetAndWhoWaitsForIt(t *testing.T) {
	t.Parallel()
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory\n\t\tpace 1 1h\n\t\tconcurrency 50")
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#checks", "Budget: 0 of 1 start used in 60 min; 0 of 50 at a time; none waits.")
	wantStatus(t, s.send(t, keyed(1)), 200)
	b.waitText(t, "#checks", "Budget: 1 of 1 start used in 60 min; 0 of 50 at a time; none waits; the next can start in 60 min.")
	s.await(t, keyed(2))
	b.waitText(t, "#checks", "; 1 waits, for ")
	b.waitText(t, "#checks", "; the next starts in 60 min.")
	s.await(t, keyed(3))
	b.waitText(t, "#checks", "; 2 wait, the first for ")
	b.waitText(t, "#health", "All is well.")
	b.wantNoSidewaysScroll(t)
}

func TestThePageSaysWhoseCallsWaitForABudget(t *testing.T) {
	t.Parallel()
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory\n\t\tpace 1 1h")
	wantStatus(t, s.send(t, keyed(1)), 200)
	b := openTab(t, s.page(), screen{})
	s.await(t, keyed(2).with("X-Caller", "a"))
	b.waitText(t, "#checks", "; all for scope ")
	s.await(t, keyed(3).with("X-Caller", "b"))
	s.await(t, keyed(4).with("X-Caller", "b"))
	b.waitTrue(t, `/; 3 wait, .*; most for scope [0-9a-f]{12}…: 2;/.test(document.querySelector('#checks').innerText)`)
}

func TestThePageSaysThatThePlatformHasAskedForAPause(t *testing.T) {
	t.Parallel()
	s := newSidecar(t, newPlatform(t, sandbox.Config{}), options{global: "store memory\n\t\tpace 300 1s", site: "genesys_admin", block: "deadline 30s"})
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#health", "All is well.")
	wantStatus(t, s.send(t, keyed(1).with("Sandbox-Fault", "429=3600; times=1")), 429)
	b.waitText(t, "#checks", "; nothing starts for 60 min. The platform has asked for the pause.")
	b.waitText(t, "#health", "Something needs you. Calls are paused until ")
	b.waitTrue(t, "[...document.querySelectorAll('#checks [data-level=warn]')].some(e => e.innerText.includes('Budget:'))")
}

func TestThePageSaysThatThePlatformHasAskedForLess(t *testing.T) {
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory\n\t\tpace 300 1h")
	wantStatus(t, s.send(t, keyed(1).with("Sandbox-Fault", "429=1; times=1")), 200)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#checks", " used in 60 min, where 300 are configured; ")
	b.waitText(t, "#checks", " The platform has asked for less.")
	b.waitText(t, "#health", "Something needs you. The budget is lowered: the platform has asked for less.")
}

func TestThePageSaysThatAFleetsBudgetCannotBeAskedFor(t *testing.T) {
	t.Parallel()
	redis := newRedis(t)
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "pace 100 1h {\n\t\t\tburst 100\n\t\t\tshare 3\n\t\t}\n\t\t"+onRedis(redis.URL()))
	get := request{method: http.MethodGet, path: "/api/v2/users/me"} // needs no store
	wantStatus(t, s.send(t, get), 200)
	b := newTab(t, screen{}) // its lists cannot be read later, which is not to be a fault
	b.do(t, chromedp.Navigate(s.page()))
	b.waitText(t, "#checks", "Budget: 1 of 100 starts used in 60 min")
	must(t, redis.Kill())
	s.send(t, get) // by which it is noticed
	b.waitText(t, "#checks", " of 3 starts used in 60 min, where 100 are configured; ")
	b.waitText(t, "#checks", "The fleet’s Redis does not answer; this sidecar keeps to its share.")
	b.waitText(t, "#health", "The fleet’s budget cannot be asked for.")
}

func TestThePageShowsHowManyCallsAreToBeAnsweredLater(t *testing.T) {
	t.Parallel()
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory\n\t\tpace 1 1h")
	wantStatus(t, s.send(t, keyed(0)), 200)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#checks", "Backlog: No call waits to be sent later.")
	var locations []string
	for i := range 3 {
		locations = append(locations, s.handOver(t, keyed(1+i)))
	}
	b.waitTrue(t, `/Backlog: 3 calls \(\d+ bytes\) wait to be sent or are under way; the first for .*; none ended here in the last minute\./.test(document.querySelector('#checks').innerText)`)
	b.waitText(t, "#health", "All is well.")

	s.configure(t, options{global: "store memory\n\t\tpace 100 1h", site: "genesys_admin", block: pacedBlock})
	s.reload(t)
	for _, l := range locations {
		wantStatus(t, s.outcome(t, l), 200)
	}
	b.waitText(t, "#checks", "Backlog: No call waits to be sent later.")
}

func TestThePageSaysHowSoonABacklogIsWorkedThrough(t *testing.T) {
	w := newWard(t, sandbox.Config{})
	defer w.letIn() // else the sidecar ends late
	s := newPaced(t, w.platform, "store memory")
	// A call stands there while those of another scope end: how fast it goes is
	// counted from when there was last nothing to do.
	s.block(t, w, "X-Caller", "blocked")
	for i := range 3 {
		wantStatus(t, s.outcome(t, s.handOver(t, keyed(i))), 200)
	}
	b := openTab(t, s.page(), screen{})
	b.waitTrue(t, `/Backlog: 1 call \(\d+ bytes\) waits to be sent or is under way; for .*; 3 ended here in the last minute; worked through in about .*\./.test(document.querySelector('#checks').innerText)`)
}

func TestThePageSaysThatABacklogIsNearlyFull(t *testing.T) {
	t.Parallel()
	w := newWard(t, sandbox.Config{})
	defer w.letIn() // else the sidecar ends late
	s := newPaced(t, w.platform, "store memory\n\t\tbacklog 5")
	s.block(t, w)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#checks", "Backlog: 1 call ")
	b.waitText(t, "#health", "All is well.")
	for i := range 3 {
		s.handOver(t, keyed(i))
	}
	b.waitText(t, "#checks", " It is nearly full: beyond 5 calls and 64.0 MiB, more is refused with 503.")
	b.waitText(t, "#health", "Something needs you. The backlog is nearly full.")
}

func TestThePageListsTheCallsThatWaitForTheirTurn(t *testing.T) {
	t.Parallel()
	w := newWard(t, sandbox.Config{})
	defer w.letIn() // else the sidecar ends late
	s := newPaced(t, w.platform, "store memory")
	s.block(t, w)
	location := s.handOver(t, keyed(1))
	b := openTab(t, s.page(), screen{})
	b.waitTrue(t, "document.querySelectorAll('"+latestRows+"').length === 2")
	b.choose(t, "queued")
	b.waitTrue(t, "document.querySelectorAll('"+latestRows+"').length === 1")
	b.waitText(t, latestRows, "… waits")
	b.waitText(t, latestRows, "not sent yet")
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "key-1")
	b.waitText(t, latestRows, "It waits for its turn. It has not run.")
	b.waitText(t, latestRows, "Handed over")
	w.letIn()
	wantStatus(t, s.outcome(t, location), 200)
	b.waitText(t, latestRows, "✓ done") // though it is in the list no more
}

func TestThePageShowsHowLongACallWasPaced(t *testing.T) {
	t.Parallel()
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory\n\t\tpace 1 2s")
	for i := range 2 {
		wantStatus(t, s.send(t, keyed(i)), 200)
	}
	b := openTab(t, s.page(), screen{})
	b.waitText(t, latestRows, "✓ done")
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "key-1")
	b.waitTrue(t, `/, after a wait of .* s: .* s for the budget/.test(document.querySelector('`+latestRows+` .attempts').innerText)`)
}

func TestThePageShowsHowLongACallWasPaused(t *testing.T) {
	t.Parallel()
	s := newPaced(t, newPlatform(t, sandbox.Config{}), "store memory")
	first := s.begin(t, keyed(1).with("Sandbox-Fault", "429=2; times=1"))
	waitFor(t, func() bool {
		var st struct{ Organizations []struct{ Pause *struct{} } }
		s.ask(t, http.MethodGet, "/genesys/status", "", &st)
		return st.Organizations[0].Pause != nil
	})
	wantStatus(t, s.send(t, keyed(2)), 200)
	wantStatus(t, first(), 200)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, latestRows, "✓ done")
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "key-2")
	b.waitTrue(t, `/, after a wait of .* s: .* s for the pause/.test(document.querySelector('`+latestRows+` .attempts').innerText)`)
}
