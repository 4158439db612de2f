package test

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/chromedp/chromedp"

	"genesys-sidecar/caddymodule/sandbox"
	"genesys-sidecar/test/overlay"
)

var screenshots = flag.String("screenshots", "", "directory to write the README's screenshots to")

// shiftedHour has the calls counted under an earlier minute, which a file says:
// so that an hour of them can be made in a minute.
var shiftedHour = []overlay.Edit{
	{File: "caddymodule/recent.go", Old: "import (\n", New: "import (\n\t\"fmt\"\n\t\"os\"\n"},
	{File: "caddymodule/recent.go", Old: "\tnumber := end.Unix() / 60\n", New: `
	var back int64
	if text, err := os.ReadFile(os.Getenv("GENESYS_SIDECAR_TEST_MINUTE")); err == nil {
		_, _ = fmt.Sscan(string(text), &back)
	}
	number := end.Unix()/60 - back
`},
}

// TestScreenshots makes the README's screenshots, of a sidecar that is in use:
//
//	go test ./test -run TestScreenshots -screenshots "$PWD/deploy"
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("no directory is given for them: -screenshots")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "genesys-sidecar")
	must(t, overlay.Build(t.Context(), dir, program, false, shiftedHour...))
	p := newPlatform(t, sandbox.Config{})
	minute := filepath.Join(dir, "minute")
	s := newSidecarOf(t, p, program, options{global: "store memory", site: "genesys_admin"}, "GENESYS_SIDECAR_TEST_MINUTE="+minute)
	actions := []string{"refund", "create-ticket", "update-status"}
	send := func(n int, fault string) {
		action := "/api/v2/integrations/actions/custom_-_" + actions[n%3] + "/execute"
		if n%7 == 6 {
			action = "/api/v2/dataactions/actions/custom_-_callback/invoke"
		}
		call := request{path: action, body: fmt.Sprintf(`{"input":{"order":%d}}`, n), header: []string{"Idempotency-Key", fmt.Sprint("order-", n)}}
		if fault != "" {
			call.header = append(call.header, "Sandbox-Fault", fault)
		}
		s.send(t, call)
		if n%5 == 4 {
			s.send(t, call) // its client sends it again
		}
	}
	n := 0
	for back := 59; back >= 0; back-- {
		must(t, os.WriteFile(minute, fmt.Append(nil, back), 0o600))
		for range 6 + back*7%9 + back%4 {
			fault := fmt.Sprintf("slow=%dms", n*37%60)
			if n == 300 || n == 560 {
				fault = "504-after; times=1"
			}
			send(n, fault)
			n++
		}
	}
	call := request{path: "/api/v2/integrations/actions/custom_-_refund/execute", body: `{"order":17}`, header: []string{"Idempotency-Key", "order-17-refund", "Sandbox-Fault", "execute-then-drop; times=1"}}
	s.send(t, call)

	for name, dark := range map[string]bool{"page.png": false, "page-dark.png": true} {
		b := openTab(t, s.page(), screen{width: 1280, height: 1180, dark: dark})
		b.openFirst(t)
		b.waitText(t, firstLost, "order-17-refund")
		b.do(t, chromedp.Click(chromedp.CSS(firstLost+" input[value=not_executed]")))
		b.step(t, "Continue")
		b.waitText(t, firstLost, "You say: it did not run.")
		eval[bool](t, b, "scrollTo(0, 0), document.activeElement.blur(), true")
		shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		must(t, err)
		must(t, os.WriteFile(filepath.Join(*screenshots, name), reduce(t, shot), 0o644))
	}
}

// reduce writes a picture anew with its 256 most frequent colours.
func reduce(t *testing.T, picture []byte) []byte {
	t.Helper()
	from, err := png.Decode(bytes.NewReader(picture))
	must(t, err)
	count := make(map[color.Color]int)
	bounds := from.Bounds()
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[from.At(x, y)]++
		}
	}
	var palette color.Palette
	for c := range count {
		palette = append(palette, c)
	}
	slices.SortFunc(palette, func(a, b color.Color) int { return count[b] - count[a] })
	palette = palette[:min(len(palette), 256)]
	index := make(map[color.Color]uint8)
	to := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := from.At(x, y)
			i, ok := index[c]
			if !ok {
				i = uint8(palette.Index(c))
				index[c] = i
			}
			to.SetColorIndex(x, y, i)
		}
	}
	var out bytes.Buffer
	must(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, to))
	return out.Bytes()
}
