package genesys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// String describes a verdict in the words of TestVerdictTable.
func (v verdict) String() string {
	words := []string{map[Fate]string{Unknown: "unknown", Final: "final", NotRun: "not run"}[v.fate]}
	if v.again {
		words = append(words, "again")
	}
	if v.hasAfter {
		words = append(words, fmt.Sprint("after ", v.after))
	}
	if v.renew {
		words = append(words, "new token")
	}
	if v.limited {
		words = append(words, "for all")
	}
	if v.conflict {
		words = append(words, "conflict")
	}
	return strings.Join(words, ", ")
}

var verdictNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// answered is an attempt with an answer; a code makes it the platform's.
func answered(status int, code, retryAfter string) attempt {
	a := attempt{status: status, header: http.Header{}, written: true}
	if code != "" {
		a.isPlatform, a.errorBody = true, ErrorBody{Code: code}
	}
	if retryAfter != "" {
		a.header.Set("Retry-After", retryAfter)
	}
	return a
}

func failed(err error) attempt { return attempt{err: err, written: true} }

// The table of section 6 of the design, and what it says is kept below it.
var verdictTable = []struct {
	what             string
	attempt          attempt
	ignored, honored string
}{
	{"dial or TLS failure, nothing written", attempt{err: errors.New("refused")}, "not run, again", "not run, again"},
	{"time was up, nothing written", attempt{err: context.DeadlineExceeded}, "not run, again", "not run, again"},
	{"HTTP/2 REFUSED_STREAM", failed(errors.New("stream error: stream ID 1; REFUSED_STREAM; received from peer")), "not run, again", "not run, again"},
	{"HTTP/2 REFUSED_STREAM, body written", failed(errors.New("http2: Transport: cannot retry err [stream error: stream ID 3; REFUSED_STREAM; received from peer] after Request.Body was written")), "not run, again", "not run, again"},
	{"HTTP/2 REFUSED_STREAM after an answer began", attempt{status: 200, written: true, err: errors.New("reading answer: stream error: stream ID 1; REFUSED_STREAM")}, "unknown", "unknown, again"},
	{"HTTP/2 INTERNAL_ERROR", failed(errors.New("stream error: stream ID 1; INTERNAL_ERROR; received from peer")), "unknown", "unknown, again"},
	{"HTTP/2 CANCEL", failed(errors.New("stream error: stream ID 1; CANCEL")), "unknown", "unknown, again"},
	{"REFUSED_STREAM in other words", failed(errors.New("somebody said REFUSED_STREAM")), "unknown", "unknown, again"},

	{"429 bare", answered(429, "", ""), "unknown", "unknown, again"},
	{"429 with another code", answered(429, "remote.busy", ""), "unknown", "unknown, again"},
	{"429 with a bad Retry-After", answered(429, "", "soon"), "unknown", "unknown, again"},
	{"429 with the platform's code", answered(429, "too.many.requests", ""), "not run, again, for all", "not run, again, for all"},
	{"429 with Retry-After", answered(429, "", "42"), "not run, again, after 42s, for all", "not run, again, after 42s, for all"},
	{"429 with Retry-After 0", answered(429, "", "0"), "not run, again, after 0s, for all", "not run, again, after 0s, for all"},
	{"429 with a date", answered(429, "", "Sun, 01 Mar 2026 12:00:07 GMT"), "not run, again, after 7s, for all", "not run, again, after 7s, for all"},
	{"429 with code and Retry-After", answered(429, "too.many.requests.retry.after", "42"), "not run, again, after 42s, for all", "not run, again, after 42s, for all"},
	{"503 with Retry-After", answered(503, "", "3"), "not run, again, after 3s", "not run, again, after 3s"},
	{"503 with a date", answered(503, "service.unavailable", "Sun, 01 Mar 2026 12:01:00 GMT"), "not run, again, after 1m0s", "not run, again, after 1m0s"},

	{"401 with a platform code", answered(401, "bad.credentials", ""), "not run, new token", "not run, new token"},
	{"401 credentials.expired", answered(401, "credentials.expired", ""), "not run, new token", "not run, new token"},
	{"401 without code", answered(401, "", ""), "not run", "not run, new token"},
	{"401 of the remote service", answered(401, "invalid.credentials", ""), "not run", "not run, new token"},

	{"500", answered(500, "", ""), "unknown", "unknown, again"},
	{"500 with a code", answered(500, "internal.server.error", ""), "unknown", "unknown, again"},
	{"500 with Retry-After", answered(500, "", "3"), "unknown", "unknown, again, after 3s"},
	{"501", answered(501, "", ""), "unknown", "unknown, again"},
	{"502", answered(502, "", ""), "unknown", "unknown, again"},
	{"503 bare", answered(503, "", ""), "unknown", "unknown, again"},
	{"503 with a code", answered(503, "service.unavailable", ""), "unknown", "unknown, again"},
	{"504", answered(504, "", ""), "unknown", "unknown, again"},
	{"504 with a code", answered(504, "authentication.request.timeout", ""), "unknown", "unknown, again"},
	{"504 with Retry-After", answered(504, "", "3"), "unknown", "unknown, again, after 3s"},
	{"599", answered(599, "", ""), "unknown", "unknown, again"},
	{"408", answered(408, "", ""), "unknown", "unknown, again"},
	{"408 with Retry-After", answered(408, "client.timeout", "3"), "unknown", "unknown, again, after 3s"},

	{"reset after a byte was written", failed(errReset), "unknown", "unknown, again"},
	{"timeout after a byte was written", failed(context.DeadlineExceeded), "unknown", "unknown, again"},
	{"truncated body of a 200", attempt{status: 200, written: true, err: errReset}, "unknown", "unknown, again"},
	{"truncated body of a 401", attempt{status: 401, written: true, err: errReset}, "unknown", "unknown, again"},
	{"truncated body, transport silent", attempt{status: 200, err: errReset}, "unknown", "unknown, again"},

	{"200", answered(200, "", ""), "final", "final"},
	{"201 with Retry-After", answered(201, "", "3"), "final", "final"},
	{"204", answered(204, "", ""), "final", "final"},
	{"302", answered(302, "", ""), "final", "final"},
	{"304", answered(304, "", ""), "final", "final"},

	{"400 of the remote service", answered(400, "", ""), "final", "not run"},
	{"400 no.results: it ran", answered(400, "no.results", ""), "final", "not run"},
	{"400 bad.request", answered(400, "bad.request", ""), "not run", "not run"},
	{"402", answered(402, "", ""), "final", "not run"},
	{"403", answered(403, "", ""), "not run", "not run"},
	{"403 missing.permissions", answered(403, "missing.permissions", ""), "not run", "not run"},
	{"404 of the remote service", answered(404, "", ""), "final", "not run"},
	{"404 with a foreign code", answered(404, "customer.not.found", ""), "final", "not run"},
	{"404 not.found", answered(404, "not.found", ""), "not run", "not run"},
	{"407", answered(407, "", ""), "not run", "not run"},
	{"409 of the remote service", answered(409, "", ""), "final", "not run, conflict"},
	{"409 with a code", answered(409, "conflict", ""), "final", "not run, conflict"},
	{"409 with Retry-After", answered(409, "", "3"), "final", "not run, after 3s, conflict"},
	{"410", answered(410, "", ""), "final", "not run"},
	{"413", answered(413, "", ""), "final", "not run"},
	{"415 of the remote service", answered(415, "", ""), "final", "not run"},
	{"415 unsupported.media.type", answered(415, "unsupported.media.type", ""), "not run", "not run"},
	{"422", answered(422, "", ""), "final", "not run"},
	{"425", answered(425, "", ""), "not run", "not run"},
	{"499", answered(499, "", ""), "final", "not run"},
}

// Run with -v to read the table.
func TestVerdictTable(t *testing.T) {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "what happened\tignored\thonored")
	for _, row := range verdictTable {
		ignored, honored := judge(row.attempt, false, verdictNow).String(), judge(row.attempt, true, verdictNow).String()
		fmt.Fprintf(table, "%s\t%s\t%s\n", row.what, ignored, honored)
		if ignored != row.ignored {
			t.Errorf("%s, ignored: %s; want %s", row.what, ignored, row.ignored)
		}
		if honored != row.honored {
			t.Errorf("%s, honored: %s; want %s", row.what, honored, row.honored)
		}
	}
	table.Flush()
	t.Log("\n" + out.String())
}

func TestPlatformRefusalsFreeTheKey(t *testing.T) {
	for status, codes := range map[int][]string{
		400: {"bad.request", "invalid.date", "invalid.schema", "invalid.value"},
		404: {"not.found"},
		415: {"unsupported.media.type"},
	} {
		for _, code := range codes {
			if v := judge(answered(status, code, ""), false, verdictNow); v != (verdict{fate: NotRun}) {
				t.Errorf("%d %s: %v", status, code, v)
			}
			if v := judge(answered(status+2, code, ""), false, verdictNow); v.fate == NotRun {
				t.Errorf("%s under another status: %v", code, v)
			}
			foreign := answered(status, code, "")
			foreign.isPlatform = false
			if v := judge(foreign, false, verdictNow); v != (verdict{fate: Final}) {
				t.Errorf("%d %s in no ErrorBody: %v", status, code, v)
			}
		}
	}
}

// The first promise: what may have run is sent again only where that cannot run
// it twice.
func TestIgnoredIsNeverSentAgainUnlessItDidNotRun(t *testing.T) {
	for status := 100; status < 600; status++ {
		for _, code := range []string{"", "x", "too.many.requests", "bad.credentials", "not.found", "service.unavailable"} {
			for _, after := range []string{"", "5"} {
				v := judge(answered(status, code, after), false, verdictNow)
				if (v.again || v.renew) && v.fate != NotRun {
					t.Errorf("%d %q %q: %v", status, code, after, v)
				}
				if v.again && status != 429 && status != 503 || v.renew && status != 401 || v.conflict {
					t.Errorf("%d %q %q: %v", status, code, after, v)
				}
			}
		}
	}
}
