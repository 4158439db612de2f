package genesys

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ParseRetryAfter reads a Retry-After field (RFC 9110, section 10.2.3) as the
// time to wait from now: a count of seconds, or a date in any of the three
// forms of section 5.6.7.
//
// A date that has passed is 0, true: the server has said when, and it is now.
// A number too large for a Duration is the longest Duration; whether to wait
// that long is for the caller to say. Everything else, so a negative number, a
// fraction or an empty field, is 0, false: the server has said nothing, which
// is not the same as "at once".
func ParseRetryAfter(value string, now time.Time) (d time.Duration, ok bool) {
	value = strings.Trim(value, " \t")
	if value == "" {
		return 0, false
	}
	if strings.Trim(value, "0123456789") == "" {
		const most = int64(math.MaxInt64 / time.Second)
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n > most { // digits only, so the error is a range error
			return math.MaxInt64, true
		}
		return time.Duration(n) * time.Second, true
	}
	t, ok := parseHTTPDate(value, now)
	if !ok {
		return 0, false
	}
	return max(0, t.Sub(now)), true
}

// parseHTTPDate is http.ParseTime, but strict about the time zone, and with
// the two-digit year of the RFC 850 form read as section 5.6.7 demands: what
// seems more than 50 years ahead lies in the past. (Package time splits the
// centuries at 69 instead, whatever the year is now.)
func parseHTTPDate(value string, now time.Time) (time.Time, bool) {
	t, err := time.Parse(time.RFC850, value)
	if err != nil {
		t, err = http.ParseTime(value)
		return t, err == nil
	}
	if !strings.HasSuffix(value, " GMT") || strings.Contains(value, "-+") || strings.Contains(value, "--") { // a year with a sign
		return time.Time{}, false
	}
	ahead := now.AddDate(50, 0, 0)
	for t.After(ahead) {
		t = t.AddDate(-100, 0, 0)
	}
	for !t.AddDate(100, 0, 0).After(ahead) {
		t = t.AddDate(100, 0, 0)
	}
	return t, true
}
