package genesys

import (
	"math"
	"testing"
	"time"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		in   string
		want time.Duration
		ok   bool
	}{
		{"0", 0, true},
		{"42", 42 * time.Second, true},
		{" 042\t", 42 * time.Second, true},
		{"9223372036", 9223372036 * time.Second, true},
		{"9223372037", math.MaxInt64, true},
		{"99999999999999999999999", math.MaxInt64, true},

		{"Sun, 01 Mar 2026 12:00:42 GMT", 42 * time.Second, true},
		{"Sunday, 01-Mar-26 12:00:42 GMT", 42 * time.Second, true},
		{"Sun Mar  1 12:00:42 2026", 42 * time.Second, true},
		{"Sun, 01 Mar 2026 11:59:59 GMT", 0, true},
		{"Sunday, 01-Mar-26 11:59:59 GMT", 0, true},
		{"Fri, 31 Dec 9999 23:59:59 GMT", math.MaxInt64, true},
		// Two digits: 2075 is within 50 years, 2077 would not be, so 1977 is meant.
		{"Friday, 01-Mar-75 12:00:00 GMT", time.Date(2075, 3, 1, 12, 0, 0, 0, time.UTC).Sub(now), true},
		{"Tuesday, 01-Mar-77 12:00:00 GMT", 0, true},

		{"", 0, false},
		{"-1", 0, false},
		{"+1", 0, false},
		{"1.5", 0, false},
		{"1 2", 0, false},
		{"1, 2", 0, false},
		{"0x10", 0, false},
		{"soon", 0, false},
		{"Sun, 01 Mar 2026 12:00:42 CET", 0, false},
		{"Sunday, 01-Mar-26 12:00:42 PST", 0, false},
		{"2026-03-01T12:00:42Z", 0, false},
		{"Sunday, 01-Mar-+9 12:00:42 GMT", 0, false},
		{"Sunday, 01-Mar--9 12:00:42 GMT", 0, false},
	} {
		if d, ok := ParseRetryAfter(tt.in, now); d != tt.want || ok != tt.ok {
			t.Errorf("ParseRetryAfter(%q) = %v, %v; want %v, %v", tt.in, d, ok, tt.want, tt.ok)
		}
	}
}

func TestTwoDigitYearsDependOnNow(t *testing.T) {
	const value = "Wednesday, 01-Feb-68 00:00:00 GMT"
	if d, ok := ParseRetryAfter(value, time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)); d != 0 || !ok {
		t.Errorf("in 2010, 68 is %v ahead, %v; want 1968", d, ok)
	}
	if d, ok := ParseRetryAfter(value, time.Date(2068, 1, 1, 0, 0, 0, 0, time.UTC)); d != 31*24*time.Hour || !ok {
		t.Errorf("in 2068, 68 is %v ahead, %v; want 744h", d, ok)
	}
}
