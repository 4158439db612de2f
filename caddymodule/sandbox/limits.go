package sandbox

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// limits is the rate limit of one token.
type limits struct {
	Requests int      `json:"requests"` // zero: no limit
	Window   duration `json:"window"`
}

// limiter counts API requests per token in fixed windows, each of which
// begins with a token's first request.
type limiter struct {
	now func() time.Time

	mu      sync.Mutex
	limits  limits
	windows map[string]*window
	excess  int
}

type window struct {
	ends  time.Time
	count int
}

func newLimiter(requests int, length time.Duration, now func() time.Time) *limiter {
	return &limiter{
		now:     now,
		limits:  limits{requests, duration(length)},
		windows: make(map[string]*window),
	}
}

func (l *limiter) set(to limits) error {
	if to.Requests < 0 || to.Window < 0 {
		return fmt.Errorf("requests and window must not be negative")
	}
	if to.Window == 0 {
		to.Window = duration(time.Minute)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = to
	clear(l.windows)
	return nil
}

func (l *limiter) get() (limits, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits, l.excess
}

func (l *limiter) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.windows)
	l.excess = 0
}

// take counts a request and tells the limit's headers. A wait above zero
// means that the request is beyond the limit for so many seconds.
func (l *limiter) take(token string, header http.Header) (wait int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.limits.Requests == 0 {
		return 0
	}
	now := l.now()
	win, ok := l.windows[token]
	if !ok || !now.Before(win.ends) {
		if len(l.windows) >= rememberedTokens {
			clear(l.windows)
		}
		win = &window{ends: now.Add(time.Duration(l.limits.Window))}
		l.windows[token] = win
	}
	reset := max(1, int(math.Ceil(win.ends.Sub(now).Seconds())))
	if win.count >= l.limits.Requests {
		l.excess++
		wait = reset
	} else {
		win.count++
	}
	header.Set("inin-ratelimit-count", strconv.Itoa(win.count))
	header.Set("inin-ratelimit-allowed", strconv.Itoa(l.limits.Requests))
	header.Set("inin-ratelimit-reset", strconv.Itoa(reset))
	return wait
}

// rateLimited is the platform's own 429.
func rateLimited(seconds int) problem {
	p := platformProblem(http.StatusTooManyRequests).with("too.many.requests.retry.after",
		fmt.Sprintf("Rate limit exceeded the maximum. Retry the request in [%d] seconds", seconds))
	p.header = http.Header{"Retry-After": {strconv.Itoa(seconds)}}
	return p
}
