package caddymodule

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html
var pageSource string

// operatorsPage is the page for operators, ready to be served.
var operatorsPage = newPage(pageSource)

// page is a document whose one script and one style are all that a browser may
// run of it.
type page struct {
	html   string
	policy string // Content-Security-Policy
	etag   string
}

// newPage panics where html has no inline script and style: it is part of the
// program.
func newPage(html string) page {
	// Browsers hash the text as they have parsed it, and a checkout on Windows
	// may have changed its line ends.
	html = strings.ReplaceAll(html, "\r\n", "\n")
	sum := sha256.Sum256([]byte(html))
	return page{
		html: html,
		etag: `"` + hex.EncodeToString(sum[:16]) + `"`,
		policy: strings.Join([]string{
			"default-src 'none'",
			"script-src " + hashOf(html, "script"),
			"style-src " + hashOf(html, "style"),
			"connect-src 'self'",
			"img-src data:", // its icon
			"base-uri 'none'",
			"form-action 'none'",
			"frame-ancestors 'none'",
			// Nothing in it makes markup out of text, nor ever may.
			"require-trusted-types-for 'script'",
			"trusted-types 'none'",
		}, "; "),
	}
}

// hashOf returns the source expression that allows html's one inline element
// of that name.
func hashOf(html, name string) string {
	if strings.Count(html, "<"+name) != 1 {
		panic(fmt.Sprintf("the page must have one element %s", name))
	}
	_, rest, begun := strings.Cut(html, "<"+name+">")
	text, _, ended := strings.Cut(rest, "</"+name+">")
	if !begun || !ended {
		panic(fmt.Sprintf("the page's element %s must be inline", name))
	}
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// servePage answers GET and HEAD with the page for operators. The page takes the
// API to be beside it, so the path it is served under must end in a slash.
func servePage(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", operatorsPage.policy)
	h.Set("X-Content-Type-Options", "nosniff")
	// Caddy's admin endpoint wants to know the origin of a browser's requests,
	// and those for reading tell it in no other header.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", operatorsPage.etag)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(operatorsPage.html))
	return nil
}
