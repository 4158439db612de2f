package test

import (
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"genesys-sidecar/caddymodule/sandbox"
)

// openEverything opens all calls, their answers, the forms and the table.
const openEverything = `(async () => {
	const wait = async (ready) => { while (!ready()) await new Promise(done => setTimeout(done, 20)); };
	for (const d of document.querySelectorAll('details')) d.open = true;
	await wait(() => [...document.querySelectorAll('.calls .body')].every(b => b.innerText.includes('Key') && !b.innerText.includes('…')));
	for (const b of document.querySelectorAll('.calls section > .actions > button')) if (b.checkVisibility()) { b.click(); await wait(() => b.innerText.startsWith('Hide')); }
	const forms = [...document.querySelectorAll('.resolve form')].filter(f => f.checkVisibility());
	forms.forEach((form, i) => {
		form.querySelector('input[value=' + (i % 2 ? 'not_executed' : 'executed') + ']').click();
		const give = form.querySelector('input[type=checkbox]');
		if (give.checkVisibility()) give.click();
		if (i % 2) form.querySelector('button').click();
		if (i === 2) { form.querySelector('input[type=number]').value = ''; form.querySelector('button').click(); }
	});
	return document.querySelectorAll('.calls details[open]').length >= 7 && forms.length >= 3;
})()`

// newVaried starts a sidecar that has calls of all kinds, with long names.
func newVaried(t *testing.T) *sidecar {
	t.Helper()
	p := newPlatform(t, sandbox.Config{})
	s := newOperated(t, p)
	s.send(t, request{path: execute, body: `{"a":1}`, header: []string{"Idempotency-Key", strings.Repeat("k", 255)}})
	s.send(t, request{path: "/api/v2/integrations/actions/" + strings.Repeat("x", 190) + "/execute", body: `{"a":"` + strings.Repeat("y", 500) + `"}`})
	s.lose(t, strings.Repeat("K", 255))
	s.lose(t, "second")
	s.lose(t, "third")
	s.send(t, request{path: invoke, body: `{"input":{}}`, header: []string{"Sandbox-Fault", "429=0; times=1"}})
	s.lose(t, "fourth")
	if status := s.ask(t, "POST", "/genesys/calls/"+s.callID("fourth")+"/resolve", `{"outcome":"not_executed","note":"`+strings.Repeat("n", 256)+`"}`, nil); status != 200 {
		t.Fatalf("resolving: %d", status)
	}
	return s
}

func TestThePageFitsAPhone(t *testing.T) {
	s := newVaried(t)
	b := openTab(t, s.page(), screen{width: 360, height: 740})
	b.waitText(t, "#health", "3 outcomes are unknown.")
	b.wantNoSidewaysScroll(t)
	if !eval[bool](t, b, openEverything) {
		t.Fatal("not everything opens")
	}
	b.wantNoSidewaysScroll(t)
	if small := eval[string](t, b, `[...document.querySelectorAll('button, select, input:not([type=radio]):not([type=checkbox]), summary')]
		.filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.tagName + ' ' + e.innerText).join(', ')`); small != "" {
		t.Errorf("too small for a finger: %s", small)
	}
}

// contrast returns the texts that have less than what WCAG's AA wants.
const contrast = `(() => {
	const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
	const rgba = (color) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
	const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const ratio = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
	const ground = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3]) return c; } return [255, 255, 255]; };
	const bad = [];
	let seen = 0;
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.data.trim() || !e.checkVisibility() || e.closest('script, style, noscript, title, option')) continue;
		seen++;
		const style = getComputedStyle(e), color = e instanceof SVGElement ? style.fill : style.color;
		const n = ratio(rgba(color), ground(e));
		if (n < 4.5) bad.push(n.toFixed(2) + ' ' + walker.currentNode.data.trim().slice(0, 40));
	}
	for (const e of document.querySelectorAll('.swatch:not(.unknown), button, input:not([type=radio]):not([type=checkbox]), select, textarea')) {
		if (!e.checkVisibility()) continue;
		const style = getComputedStyle(e), color = e.matches('.swatch') ? style.backgroundColor : style.borderColor;
		const n = ratio(rgba(color), ground(e.parentElement));
		if (n < 3) bad.push(n.toFixed(2) + ' of ' + e.tagName + ' ' + e.className);
	}
	return seen < 100 ? 'only ' + seen + ' texts' : bad.join('\n');
})()`

func TestThePagesTextsStandOutInLightAndDark(t *testing.T) {
	t.Parallel()
	s := newVaried(t)
	for _, dark := range []bool{false, true} {
		b := openTab(t, s.page(), screen{width: 1280, height: 900, dark: dark})
		b.waitText(t, "#health", "3 outcomes are unknown.")
		if !eval[bool](t, b, openEverything) {
			t.Fatal("not everything opens")
		}
		if got := eval[bool](t, b, "getComputedStyle(document.body).backgroundColor === 'rgb(15, 20, 27)'"); got != dark {
			t.Errorf("asked for dark %v, the page is dark %v", dark, got)
		}
		if bad := eval[string](t, b, contrast); bad != "" {
			t.Errorf("dark %v: too little contrast:\n%s", dark, bad)
		}
	}
}

func TestWhatThePageShowsHasNames(t *testing.T) {
	s := newVaried(t)
	b := openTab(t, s.page(), screen{})
	b.waitText(t, "#health", "3 outcomes are unknown.")
	if !eval[bool](t, b, openEverything) {
		t.Fatal("not everything opens")
	}
	if nameless := eval[string](t, b, `[...document.querySelectorAll('input, select, textarea, button, section[aria-labelledby], [role=group], [role=region], svg')].filter(e => e.checkVisibility()).filter(e => {
		const by = e.getAttribute('aria-labelledby');
		const name = e.getAttribute('aria-label') || (by && document.getElementById(by)?.textContent) || e.innerText || e.labels?.[0]?.textContent || e.querySelector('title')?.textContent;
		return !name?.trim();
	}).map(e => e.outerHTML.slice(0, 80)).join('\n')`); nameless != "" {
		t.Errorf("without a name:\n%s", nameless)
	}
	if levels := eval[string](t, b, "[...document.querySelectorAll('h1, h2, h3, h4')].map(e => e.tagName[1]).join('')"); !strings.HasPrefix(levels, "12") || strings.Contains(levels, "24") || strings.Contains(levels, "13") {
		t.Errorf("the headings' levels are %s", levels)
	}
	if twice := eval[string](t, b, "[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i).join(' ')"); twice != "" {
		t.Errorf("ids that are there twice: %s", twice)
	}
	b.do(t, chromedp.Click(chromedp.CSS("#pause")))
}
