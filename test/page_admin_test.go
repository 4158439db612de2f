package test

import (
	"net/http"
	"testing"

	"github.com/chromedp/chromedp"

	"genesys-sidecar/caddymodule/sandbox"
)

// README says so. Should this fail with a newer Caddy, the page can be opened at
// the admin endpoint, and README is to be mended.
func TestTheAdminEndpointRefusesABrowserThatIsSentThere(t *testing.T) {
	s := newSidecar(t, newPlatform(t, sandbox.Config{}), options{})
	b := newTab(t, screen{})
	resp, err := chromedp.Run(b.ctx, chromedp.NavigateResponse("http://"+s.admin+"/genesys/"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status != http.StatusForbidden {
		t.Errorf("the admin endpoint answers %d", resp.Status)
	}
	b.waitText(t, "body", "client is not allowed to access from origin ''")
}

func TestTheAdminEndpointOpensInABrowserWhereAnEmptyOriginIsLetIn(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "store memory"})
	s.rewrite(t, "admin "+s.admin+"\n", "admin "+s.admin+" {\n\t\torigins \"\" "+s.admin+"\n\t}\n")
	s.reload(t)
	call, _ := s.lose(t, "refund-7")
	b := openTab(t, "http://"+s.admin+"/genesys/", screen{})
	b.openFirst(t)
	b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=not_executed]")))
	b.step(t, "Continue")
	b.step(t, "Confirm: it did not run")
	b.waitText(t, "#health", "All is well.")
	if a := s.send(t, call); a.status != http.StatusOK || a.replayed() {
		t.Errorf("the repeat got %+v", a)
	}
}
