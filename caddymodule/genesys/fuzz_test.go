package genesys

import (
	"bytes"
	"encoding/json"
	"math"
	"math/big"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzParseRetryAfter: what is told is waited for, to the nanosecond or as long
// as a Duration can say; and nothing is told where nothing is said.
func FuzzParseRetryAfter(f *testing.F) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Unix()
	for _, value := range []string{
		"42", "-1", "+1", " 007\t", "", "1.5", "1e3", "0x1", "1 2", "9223372036", "9223372037", "9223372036854775807", "9223372036854775808",
		"99999999999999999999", "٣", "Sun, 01 Mar 2026 12:00:42 GMT", "Sun, 01 Mar 2026 12:00:42 UTC", "Sunday, 01-Mar-26 12:00:42 GMT",
		"Sunday, 01-Mar-76 12:00:42 GMT", "Sun Mar  1 12:00:42 2026", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "Sun, 29 Feb 2026 00:00:00 GMT",
		"Sun, 01 Mar 2026 12:00:42 CET", "Sunday, 01-Mar-26 12:00:42 +0100", "sun, 01 mar 2026 12:00:42 GMT", "Sun, 01 Mar 2026 12:00:42.5 GMT",
		"Sunday, 01-Mar-26 12:00:42.999 GMT", "Sun Mar  1 12:00:42.25 2026", "Sun, 1 Mar 2026 12:00:42 GMT",
	} {
		f.Add(value, now, int64(1), now+42)
	}
	f.Add("", int64(math.MaxInt32), int64(999_999_999), int64(-1))
	f.Fuzz(func(t *testing.T, value string, nowSeconds, nowNanos, thenSeconds int64) {
		// From 1970 to about 2500; "then" from the year 1 to 9999.
		now := time.Unix(abs(nowSeconds)%(1<<34), abs(nowNanos)%1e9).UTC()
		first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
		then := time.Unix(first+abs(thenSeconds)%(last-first+1), 0).UTC()

		d, ok := ParseRetryAfter(value, now)
		if want, said := toldIn(value, now); d != want || ok != said {
			t.Fatalf("at %v, %q is %v, %v; want %v, %v", now, value, d, ok, want, said)
		}
		want := max(0, then.Sub(now))
		for _, form := range []string{http.TimeFormat, time.ANSIC} {
			if d, ok := ParseRetryAfter(then.Format(form), now); d != want || !ok {
				t.Fatalf("at %v, %q is %v, %v; want %v", now, then.Format(form), d, ok, want)
			}
		}
		if near := then.AddDate(0, 0, 1).Before(now.AddDate(50, 0, 0)) && then.AddDate(0, 0, -1).After(now.AddDate(-50, 0, 0)); near {
			const form = "Monday, 02-Jan-06 15:04:05 GMT"
			if d, ok := ParseRetryAfter(then.Format(form), now); d != want || !ok {
				t.Fatalf("at %v, %q is %v, %v; want %v", now, then.Format(form), d, ok, want)
			}
		}
	})
}

func abs(n int64) int64 { return max(n, -max(n, -math.MaxInt64)) }

var (
	delaySeconds = regexp.MustCompile(`^[ \t]*([0-9]+)[ \t]*$`)
	httpDate     = regexp.MustCompile(strings.ReplaceAll(`^\s*(?i:`+ // with more spaces than there should be
		`[a-z]{3}, \d{1,2} [a-z]{3} \d{4} \d{1,2}:\d\d:\d\d([.,]\d+)? GMT|`+
		`[a-z]{6,9}, \d\d-[a-z]{3}-\d\d \d{1,2}:\d\d:\d\d([.,]\d+)? GMT|`+
		`[a-z]{3} [a-z]{3} \d{1,2} \d{1,2}:\d\d:\d\d([.,]\d+)? \d{4})\s*$`, ` `, ` +`))
)

// toldIn tells what a Retry-After says: seconds of any number, else a date that
// has one of the three forms. Dates themselves are taken for granted here: they
// are checked by writing some.
func toldIn(value string, now time.Time) (time.Duration, bool) {
	if m := delaySeconds.FindStringSubmatch(value); m != nil {
		n, _ := new(big.Int).SetString(m[1], 10)
		if n.Mul(n, big.NewInt(int64(time.Second))); !n.IsInt64() {
			return math.MaxInt64, true
		}
		return time.Duration(n.Int64()), true
	}
	d, ok := ParseRetryAfter(value, now)
	if !httpDate.MatchString(value) || d < 0 {
		return 0, false
	}
	return d, ok
}

// FuzzParseErrorBody: no answer is taken for the platform's refusal but a JSON
// object of a JSON type whose member "code" is one of those listed here, as in
// the documentation of the platform.
func FuzzParseErrorBody(f *testing.F) {
	f.Add("application/json", []byte(rateLimitBody), uint16(429))
	f.Add("", []byte(`{"code":"a","errors":[{"code":"not.found","errors":[{"code":"c"}]}],"status":1e99}`), uint16(404))
	f.Add("", []byte(`{"code":"not.found","limit":1e700}`), uint16(404))
	f.Add("text/html", []byte(`<html>{"code":"not.found"}`), uint16(404))
	f.Add("application/problem+json; a=b; a=c", []byte(`{"code":"unsupported.media.type"}`), uint16(415))
	f.Add("Application/json\v", []byte(`{"code":"bad.request"}`), uint16(400))
	f.Add("+json", []byte(`{"code":"bad.request"}`), uint16(400))
	f.Add("application/jsonp", []byte(`{"code":"bad.request"}`), uint16(400))
	for _, body := range []string{
		`{"CODE":"not.found"}`, `{"code":"not.found","code":"mine"}`, `{"code":"mine","\u0063ode":"not.found"}`, `[{"code":"not.found"}]`,
		`{"error":{"code":"not.found"}}`, `{"code":["not.found"]}`, `{"code":" not.found"}`, `{"code":"not.found"}x`, `"code"`, `{"code":"Not.Found"}`,
		`{"code":"missing.permissions"}`, `{"code":"bad.credentials"}`, `{"code":"invalid.value","messageParams":{"a":1}}`, `{"code":"no.results"}`, "{\"code\":\"not.found\xff\"}",
	} {
		for _, status := range []uint16{400, 401, 403, 404, 415, 429, 500} {
			f.Add("application/json;charset=utf-8", []byte(body), status)
		}
	}
	refusals := map[int][]string{
		400: {"bad.request", "invalid.date", "invalid.schema", "invalid.value"},
		401: {"authentication.required", "bad.credentials", "credentials.expired"},
		403: {"missing.any.permissions", "missing.permissions", "not.authorized"},
		404: {"not.found"},
		415: {"unsupported.media.type"},
	}
	jsonType := regexp.MustCompile(`(?i)^(application/json|[^\s;/]+/[^\s;/]*\+json)$`)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, status uint16) {
		e, ok := ParseErrorBody(contentType, body)
		if ok != (e.Code != "") {
			t.Fatalf("ok = %v with code %q", ok, e.Code)
		}
		if refused := RefusedBeforeRunning(int(status), e.Code); refused != slices.Contains(refusals[int(status)], e.Code) {
			t.Fatalf("a %d with the code %q is a refusal: %v", status, e.Code, refused)
		}
		if !ok {
			return
		}
		essence, _, _ := strings.Cut(contentType, ";")
		if contentType != "" && !jsonType.MatchString(strings.TrimSpace(essence)) {
			t.Fatalf("%q was taken for JSON", contentType)
		}
		var object any
		decoder := json.NewDecoder(bytes.NewReader(body))
		decoder.UseNumber() // 1e700 is a JSON number, though no float64
		if err := decoder.Decode(&object); err != nil || !json.Valid(body) {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		if fields, _ := object.(map[string]any); fields["code"] != e.Code {
			t.Fatalf("%s has the code %q, not %q", body, fields["code"], e.Code)
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e2, ok := ParseErrorBody("application/json", again); !ok || e2.Code != e.Code || len(e2.Errors) != len(e.Errors) {
			t.Fatalf("%+v came back as %+v, %v", e, e2, ok)
		}
	})
}
