package test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"genesys-sidecar/caddymodule/sandbox"
)

// step clicks the button with that text in the first unknown outcome.
func (b *tab) step(t *testing.T, text string) {
	t.Helper()
	b.waitTrue(t, `[...document.querySelectorAll('`+firstLost+` button')].some(b => b.innerText === '`+text+`' && b.checkVisibility())`)
	eval[bool](t, b, `[...document.querySelectorAll('`+firstLost+` button')].find(b => b.innerText === '`+text+`').setAttribute('data-test', '`+text+`') ?? true`)
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+` [data-test="`+text+`"]`)))
}

func TestACallThatRanIsResolvedOnThePageAndItsAnswerReplayed(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	call, _ := s.lose(t, "refund-7")
	b := openTab(t, s.page(), screen{})
	b.openFirst(t)
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=executed]")),
		chromedp.Click(chromedp.CSS(firstLost+" input[type=checkbox]")),
		chromedp.SendKeys(chromedp.CSS(firstLost+" textarea"), `{"refund": "r-7"}`),
		chromedp.SendKeys(chromedp.CSS(firstLost+" input[maxlength='256']"), "seen in the ledger"))
	b.step(t, "Continue")
	b.waitText(t, firstLost, "It gets this answer as a replay: HTTP 200, application/json, 17 bytes.")
	if a := s.send(t, call); a.status != 502 {
		t.Errorf("before it is confirmed, a repeat got %+v", a)
	}
	b.step(t, "Confirm: it ran")
	b.waitText(t, "#unknown", "Resolved: custom_-_6ab1a8ae-6a05-4e2d-9a2b-2d3f3a0a9d11 ran.")
	b.waitText(t, "#unknown", "None. The outcome of every call is known.")
	b.waitText(t, latestRows, "✓ done")
	b.waitText(t, "#health", "All is well.")
	a := s.send(t, call)
	if a.status != 200 || a.body != `{"refund": "r-7"}` || a.header.Get("Content-Type") != "application/json" || !a.replayed() {
		t.Errorf("the repeat got %+v", a)
	}
	p.wantEffects(t, 1)
	b.do(t, chromedp.Click(chromedp.CSS(latestRows+" summary")))
	b.waitText(t, latestRows, "it ran. seen in the ledger")
}

func TestACallThatDidNotRunIsResolvedOnThePageAndRunsAgain(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	call, _ := s.lose(t, "refund-7")
	b := openTab(t, s.page(), screen{})
	b.openFirst(t)
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=not_executed]")))
	b.step(t, "Continue")
	b.waitText(t, firstLost, "A repeat with this key will run again. If it did run after all, it will then have run twice.")
	b.step(t, "Confirm: it did not run")
	b.waitText(t, "#unknown", "did not run. Its key is free.")
	b.waitText(t, latestRows, "↺ released")
	p.wantEffects(t, 1)
	if a := s.send(t, call); a.status != 200 || a.replayed() {
		t.Errorf("the repeat got %+v", a)
	}
	p.wantEffects(t, 2)
}

func TestTheFormSaysWhyACallIsNotResolved(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	s.lose(t, "refund-7")
	b := openTab(t, s.page(), screen{})
	b.openFirst(t)
	b.step(t, "Continue")
	b.waitText(t, firstLost+" [role=alert]", "Choose first")
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=executed]")),
		// Fewer characters than the field takes, but more bytes than the API does.
		chromedp.SetValue(chromedp.CSS(firstLost+" input[maxlength='256']"), strings.Repeat("ü", 200)))
	b.step(t, "Continue")
	b.step(t, "Confirm: it ran")
	b.waitText(t, firstLost+" [role=alert]", "Not resolved: the note has 400 bytes; it may have 256.")
	b.expectRefused(t, "400")
	b.step(t, "Back")
	if note := eval[string](t, b, "document.querySelector(`"+firstLost+" input[maxlength='256']`).value"); len(note) != 400 {
		t.Errorf("the note is %q", note)
	}
	b.do(t, chromedp.SetValue(chromedp.CSS(firstLost+" input[maxlength='256']"), "short"))

	// Somebody else is faster.
	if status := s.ask(t, http.MethodPost, "/genesys/calls/"+s.theCall(t, "unknown").ID+"/resolve", `{"outcome":"not_executed"}`, nil); status != http.StatusOK {
		t.Fatalf("resolving: %d", status)
	}
	b.step(t, "Continue")
	b.step(t, "Confirm: it ran")
	b.waitText(t, firstLost+" [role=alert]", "Not resolved: ")
	b.waitText(t, firstLost, "↺ released")
	b.expectRefused(t, "409")
}

func TestTheKeyboardAloneResolvesACall(t *testing.T) {
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	call, _ := s.lose(t, "refund-7")
	b := openTab(t, s.page(), screen{})
	b.waitTrue(t, "document.querySelector('"+firstLost+"')")
	// tabTo goes on to what is described so.
	tabTo := func(what string) {
		t.Helper()
		for range 40 {
			if strings.Contains(b.focused(t), what) {
				if !eval[bool](t, b, "document.activeElement.matches(':focus-visible') && parseFloat(getComputedStyle(document.activeElement).outlineWidth) >= 2") {
					t.Errorf("the focus on %q is not seen", what)
				}
				return
			}
			b.press(t, kb.Tab)
		}
		t.Fatalf("the keyboard does not reach %q; the focus is on %q", what, b.focused(t))
	}
	tabTo("SUMMARY " + b.text(t, firstLost+" summary")[:len("15:04")]) // of the call, which begins with the time
	b.press(t, kb.Enter)
	b.waitText(t, firstLost, "refund-7")
	b.press(t, kb.Escape)
	b.waitTrue(t, "!document.querySelector('"+firstLost+" details').open")
	tabTo("SUMMARY")
	b.press(t, kb.Enter)
	b.waitTrue(t, "document.querySelector('"+firstLost+" details').open")
	tabTo("INPUT radio not_executed")
	b.press(t, " ")
	tabTo("BUTTON submit Continue")
	b.press(t, kb.Enter)
	b.waitText(t, firstLost, "You say: it did not run.")
	b.press(t, kb.Escape) // back to the form, which stays open
	b.waitTrue(t, "document.activeElement.value === 'not_executed'")
	tabTo("BUTTON submit Continue")
	b.press(t, kb.Enter)
	tabTo("BUTTON button Confirm: it did not run")
	b.press(t, kb.Enter)
	b.waitText(t, "#unknown", "did not run. Its key is free.")
	b.waitTrue(t, "document.activeElement.id === 'unknown-title'")
	if a := s.send(t, call); a.status != 200 || a.replayed() {
		t.Errorf("the repeat got %+v", a)
	}
	p.wantEffects(t, 2)
}
