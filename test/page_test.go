package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// newOperated starts a sidecar whose site has the page for operators.
func newOperated(t *testing.T, p *platform) *sidecar {
	t.Helper()
	return newSidecar(t, p, options{global: "store memory", site: "genesys_admin"})
}

// page is the address of the page for operators.
func (s *sidecar) page() string { return "http://" + s.address + "/genesys/" }

// Selectors of the page.
const (
	unknownRows = "#unknown .calls > li"
	latestRows  = "#latest .calls > li"
	firstLost   = unknownRows + ":first-child"
)

// openFirst opens the first unknown outcome.
func (b *tab) openFirst(t *testing.T) {
	t.Helper()
	b.waitTrue(t, "document.querySelector('"+firstLost+"')")
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" summary")))
	b.waitTrue(t, "document.querySelector('"+firstLost+" form')?.checkVisibility()")
}

func TestThePageTellsWhatGoesOn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	call := request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", "order-17"}}
	s.send(t, call)
	s.send(t, call)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#health", "All is well.")
	b.waitText(t, "#legend", "executed 1")
	b.waitText(t, "#legend", "replayed 1")
	b.waitText(t, "#checks", "Token: Valid until")
	b.waitText(t, "#checks", "Store: It works (memory")
	b.waitText(t, "#unknown", "None. The outcome of every call is known.")
	b.waitText(t, "#handlers", "at most once")
	b.waitText(t, "#handlers", "effectively once")
	b.waitText(t, latestRows, "✓ done")

	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "order-17") // the key is told on request
	if text := b.text(t, latestRows); strings.Contains(text, "executionId") || !strings.Contains(text, "Attempts: 1") {
		t.Errorf("the opened call shows\n%s", text)
	}
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" section .actions button")))
	b.waitText(t, latestRows+" pre", "executionId") // and its answer on another

	s.lose(t, "lost")
	b.waitText(t, "#health", "1 outcome is unknown.")
	b.waitText(t, unknownRows, "? unknown")
	b.waitText(t, "#legend", "unknown 1")
}

func TestThePageShowsWhatOthersWroteAsText(t *testing.T) {
	t.Parallel()
	const markup = `'><img/src=x/onerror=window.ran=1><svg/onload=window.ran=1>`
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	action := strings.Replace(execute, "custom_-_", "%3Cimg%20src%3Dx%20onerror%3Dwindow.ran%3D1%3E", 1)
	call := request{path: action, body: `{"a":1}`, header: []string{"Sandbox-Fault", "execute-then-drop; times=1", "Idempotency-Key", markup}}
	if a := s.send(t, call); a.status != 502 {
		t.Fatalf("got %+v", a)
	}
	b := openTab(t, s.page(), screen{width: 360, height: 740})
	b.openFirst(t)
	b.waitText(t, firstLost, markup)
	const script = `<script>window.ran=1</script><a href="javascript:window.ran=1">x</a>`
	if status := s.ask(t, http.MethodPost, "/genesys/calls/"+s.theCall(t, "unknown").ID+"/resolve", `{"outcome":"executed","note":"<script>window.ran=1</script>","answer":{"status":200,"header":{"Content-Type":"text/html","X-Markup":"<img src=x onerror=window.ran=1>"},"body":"<script>window.ran=1</script><a href=\"javascript:window.ran=1\">x</a>"}}`, nil); status != http.StatusOK {
		t.Fatalf("resolving: %d", status)
	}
	b.waitText(t, latestRows, "✓ done")
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "<script>window.ran=1</script>")
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" section .actions button")))
	b.waitText(t, latestRows+" pre", script)
	b.waitText(t, latestRows+" pre", "text/html")
	if eval[bool](t, b, "'ran' in window || document.querySelectorAll('img, script, iframe').length !== 1 || document.querySelectorAll('a').length > 3") {
		t.Errorf("what others wrote has become markup: %s", eval[string](t, b, "document.body.outerHTML"))
	}
	b.wantNoSidewaysScroll(t)
}

func TestThePageGoesOnAroundAHalfTypedForm(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	for i := range 12 {
		s.lose(t, fmt.Sprint("before-", i))
	}
	b := openTab(t, s.page(), screen{width: 800, height: 600})
	b.openFirst(t)
	b.waitText(t, firstLost, "before-11")
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=executed]")),
		chromedp.Click(chromedp.CSS(firstLost+" input[type=checkbox]")),
		chromedp.Click(chromedp.CSS(firstLost+" textarea")))
	b.press(t, `{"refund": 12`)
	// Where it stands on the screen: what is above may grow, and is scrolled away.
	const state = `(() => { const a = document.activeElement; return JSON.stringify({
		focus: a.tagName, text: a.value, from: a.selectionStart, to: a.selectionEnd, y: Math.round(a.getBoundingClientRect().y),
		open: document.querySelectorAll('#unknown details[open]').length, ran: document.querySelector('` + firstLost + ` input[value=executed]').checked }); })()`
	eval[bool](t, b, "document.activeElement.setSelectionRange(2, 8), true")
	before := eval[string](t, b, state)
	if !strings.Contains(before, `"focus":"TEXTAREA","text":"{\"refund\": 12","from":2,"to":8`) {
		t.Fatalf("at first the form is %s", before)
	}

	for i := range 3 {
		s.lose(t, fmt.Sprint("after-", i))
	}
	b.waitText(t, "#unknown-title", "15")
	b.waitText(t, "#unknown > button", "Show 3 new calls")
	if after := eval[string](t, b, state); after != before {
		t.Errorf("before: %s\nafter:  %s", before, after)
	}

	b.do(t, chromedp.Click(chromedp.CSS("#unknown > button")))
	b.waitTrue(t, "document.querySelectorAll('"+unknownRows+"').length === 15")
	if text := eval[string](t, b, "document.querySelector('#unknown details[open] textarea').value"); text != `{"refund": 12` {
		t.Errorf("the form has lost its text and has %q", text)
	}
}

func TestThePageSaysThatItsConnectionIsLostAndFindsItAgain(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	s.lose(t, "lost")
	proxy := redistest.NewProxy(t, s.address)
	b := openTab(t, "http://"+proxy.Addr()+"/genesys/", screen{})
	b.openFirst(t)
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=not_executed]")))
	proxy.Refuse(true)
	proxy.Cut()
	b.waitText(t, "#health", "Connection lost, last seen")
	if text := b.text(t, "#health"); !strings.Contains(text, "No answer from the sidecar.") {
		t.Errorf("it says %q", text)
	}
	b.waitText(t, firstLost, "? unknown") // what is known stays
	proxy.Refuse(false)
	b.waitText(t, "#health", "1 outcome is unknown.")
	if !eval[bool](t, b, "document.querySelector('"+firstLost+" input[value=not_executed]').checked") {
		t.Error("the form has lost what was chosen")
	}
	b.expectRefused(t, "net::ERR_")
}

func TestThePageStandsStillWhileItIsPaused(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#health", "All is well.")
	b.do(t, chromedp.Click(chromedp.CSS("#pause")))
	b.waitText(t, "#seen", "Paused")
	b.mu.Lock()
	asked := len(b.requests)
	b.mu.Unlock()
	s.lose(t, "lost")
	// Longer than the page waits between two looks.
	eval[bool](t, b, "new Promise(done => setTimeout(done, 3000, true))")
	b.mu.Lock()
	more := len(b.requests) - asked
	b.mu.Unlock()
	if more > 1 { // one may have been under way
		t.Errorf("paused, the page asked %d times", more)
	}
	b.waitText(t, "#health", "All is well.")
	b.do(t, chromedp.Click(chromedp.CSS("#pause")))
	b.waitText(t, "#health", "1 outcome is unknown.")
}

func TestThePageFiltersCallsAndLoadsMoreOfThem(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	s.lose(t, "lost")
	for i := range 35 {
		s.send(t, request{path: invoke, body: `{"input":{}}`, header: []string{"Idempotency-Key", fmt.Sprint("k", i)}})
	}
	b := openTab(t, s.page(), screen{})
	rows := func(n int) {
		t.Helper()
		b.waitTrue(t, fmt.Sprintf("document.querySelectorAll('%s').length === %d", latestRows, n))
	}
	rows(15)
	b.do(t, chromedp.Click(chromedp.CSS("#latest .more button")))
	rows(30)
	b.do(t, chromedp.Click(chromedp.CSS("#latest .more button")))
	rows(36)
	b.waitText(t, "#latest", "36 calls shown, all there are.")
	b.do(t, chromedp.Click(chromedp.CSS("#filters input")))
	b.press(t, "integrations"+kb.Enter)
	rows(1)
	b.waitText(t, latestRows, "? unknown")
	eval[bool](t, b, "(s => { s.value = 'done'; s.dispatchEvent(new Event('change', {bubbles: true})); return true; })(document.querySelector('#filters select'))")
	b.waitText(t, "#latest", "No call matches these filters.")
}
