package test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	cdpnetwork "github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// needBrowser, set to 1, says that a missing Chromium is a failure.
const needBrowser = "GENESYS_SIDECAR_NEED_BROWSER"

// tab is a page in a Chromium of its own, whose session is watched: nothing in
// it may be refused by the page's policy, fail, or ask another origin.
type tab struct {
	ctx    context.Context
	origin string

	mu       sync.Mutex
	requests []string
	faults   []string // what no session may have
	refused  []string // requests that got an error or no answer: expected by some tests
}

// screen is what a page is looked at with. The zero screen is a desk's.
type screen struct {
	width, height int64
	dark          bool
}

// openTab opens the page for operators at address, and ends with t. It skips t
// where there is no Chromium.
func openTab(t *testing.T, address string, s screen) *tab {
	t.Helper()
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	b := newTab(t, s)
	b.origin = at.Scheme + "://" + at.Host
	t.Cleanup(func() { b.check(t) })
	b.do(t, chromedp.Navigate(address))
	return b
}

// newTab returns a tab that has opened nothing yet.
func newTab(t *testing.T, s screen) *tab {
	t.Helper()
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			program = path
			break
		}
	}
	switch {
	case program == "" && os.Getenv(needBrowser) != "1":
		t.Skipf("chromium is not installed (with %s=1 this is a failure)", needBrowser)
	case program == "":
		t.Fatal("chromium is not installed")
	}
	// Chromium leaves a directory behind; and its socket there wants a short name.
	dir, err := os.MkdirTemp("", "genesys-sidecar-tab-")
	if err != nil {
		t.Fatal(err)
	}
	b := new(tab)
	ctx, cancelTime := context.WithTimeout(context.Background(), 3*time.Minute)
	ctx, cancelAllocator := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.Env("TMPDIR="+dir))...)
	ctx, cancel := chromedp.NewContext(ctx, chromedp.WithListener(b.watch))
	t.Cleanup(func() {
		cancel()
		cancelAllocator()
		cancelTime()
		_ = os.RemoveAll(dir)
	})
	b.ctx = ctx
	if s.width == 0 {
		s.width, s.height = 1280, 900
	}
	scheme := "light"
	if s.dark {
		scheme = "dark"
	}
	b.do(t, chromedp.EmulateViewport(s.width, s.height))
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, cdpnetwork.Enable, cdpnetwork.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// watch notes what happens in the tab.
func (b *tab) watch(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *cdpnetwork.EventRequestWillBeSent:
		b.requests = append(b.requests, ev.Request.URL)
	case *runtime.EventConsoleAPICalled:
		b.faults = append(b.faults, fmt.Sprintf("console.%s was called", ev.Type))
	case *runtime.EventExceptionThrown:
		b.faults = append(b.faults, "exception: "+ev.ExceptionDetails.Text)
	case *cdplog.EventEntryAdded:
		// The policy's violations come here, as entries of the source security.
		text := fmt.Sprintf("%s, %s: %s", ev.Entry.Source, ev.Entry.Level, ev.Entry.Text)
		if ev.Entry.Source == cdplog.EntrySourceNetwork {
			b.refused = append(b.refused, text)
		} else {
			b.faults = append(b.faults, text)
		}
	case *page.EventJavascriptDialogOpening:
		b.faults = append(b.faults, "dialog: "+ev.Message)
	}
}

// check tells of what no session may have.
func (b *tab) check(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range b.faults {
		t.Errorf("in the browser: %s", fault)
	}
	for _, refused := range b.refused {
		t.Errorf("in the browser: %s", refused)
	}
	for _, request := range b.requests {
		if !strings.HasPrefix(request, b.origin+"/") && !strings.HasPrefix(request, "data:") && request != "about:blank" {
			t.Errorf("the page asked %s", request)
		}
	}
	if !slices.ContainsFunc(b.requests, func(r string) bool { return strings.HasSuffix(r, "/status") }) {
		t.Errorf("the page has not asked for the status; its requests were %q", b.requests)
	}
}

// expectRefused takes requests that failed for what the test wanted.
func (b *tab) expectRefused(t *testing.T, part string) {
	t.Helper()
	waitFor(t, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		before := len(b.refused)
		b.refused = slices.DeleteFunc(b.refused, func(text string) bool { return strings.Contains(text, part) })
		return len(b.refused) < before
	})
}

func (b *tab) do(t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// eval returns what expression comes to, which may be a promise.
func eval[T any](t *testing.T, b *tab, expression string) T {
	t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("evaluating %s: %v", expression, err)
	}
	return v
}

// waitTrue waits until condition, in JavaScript, holds.
func (b *tab) waitTrue(t *testing.T, condition string) {
	t.Helper()
	end := time.Now().Add(20 * time.Second)
	for !eval[bool](t, b, "!!("+condition+")") {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s; the page shows\n%s", condition, b.text(t, "body"))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// text returns what is to be read in the first element of that selector.
func (b *tab) text(t *testing.T, selector string) string {
	t.Helper()
	return eval[string](t, b, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// waitText waits until the element of that selector has text in it.
func (b *tab) waitText(t *testing.T, selector, text string) {
	t.Helper()
	b.waitTrue(t, fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

// press presses keys: of a name such as Enter, else as text.
func (b *tab) press(t *testing.T, keys string) {
	t.Helper()
	b.do(t, chromedp.KeyEvent(keys))
}

// focused describes the element that has the focus.
func (b *tab) focused(t *testing.T) string {
	t.Helper()
	return eval[string](t, b, "(e => e ? [e.tagName, e.id, e.type, e.value, e.innerText].filter(Boolean).join(' ') : '')(document.activeElement)")
}

// wantNoSidewaysScroll checks that all of the page is as wide as the screen.
func (b *tab) wantNoSidewaysScroll(t *testing.T) {
	t.Helper()
	if wide := eval[string](t, b, `document.documentElement.scrollWidth <= innerWidth ? '' :
		[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className).join(' ')`); wide != "" {
		t.Errorf("the page is wider than the screen, for %s", wide)
	}
}
