package genesys

import (
	"net/http"
	"strings"
	"time"
)

// Fate is what is known of a data action once it has been sent.
type Fate uint8

const (
	// Unknown: the action may have run or not.
	Unknown Fate = iota

	// Final: the action is over, and its answer can be told to every repeat.
	Final

	// NotRun: the action did not run, or its upstream looks after the key by
	// itself; it may be sent anew.
	NotRun
)

// attempt is what one sending of a request came to.
type attempt struct {
	status     int
	header     http.Header
	errorBody  ErrorBody
	isPlatform bool  // errorBody is one
	err        error // instead of a whole answer
	written    bool  // a byte of the request may have left
}

// verdict is what an attempt means for the call.
type verdict struct {
	fate Fate

	// again says that the request may be sent again.
	again bool

	// after is how long to wait first, where the upstream said so.
	after    time.Duration
	hasAfter bool

	// renew says that the token is to be replaced; the request may be sent
	// again once for that.
	renew bool

	// limited says that the answer speaks for the whole organisation.
	limited bool

	// conflict says that the upstream has something against the key.
	conflict bool
}

// LoopCode is the code of an ErrorBody by which a sidecar refuses, with a 508, a
// request that has come back to it.
const LoopCode = "loop.detected"

// judge decides by the table of what is sent again. honored says that the
// upstream is known to honor the key that was sent.
func judge(a attempt, honored bool, now time.Time) verdict {
	if a.err != nil {
		if a.status == 0 && (!a.written || refusedStream(a.err)) {
			return verdict{fate: NotRun, again: true}
		}
		return verdict{fate: Unknown, again: honored}
	}

	after, hasAfter := ParseRetryAfter(a.header.Get("Retry-After"), now)
	switch s := a.status; {
	case s < 400:
		return verdict{fate: Final}

	case s == http.StatusUnauthorized:
		own := a.isPlatform && PlatformAuthCode(a.errorBody.Code)
		return verdict{fate: NotRun, renew: own || honored}

	case s == http.StatusTooManyRequests:
		if hasAfter || a.isPlatform && RateLimitCode(a.errorBody.Code) {
			return verdict{fate: NotRun, again: true, after: after, hasAfter: hasAfter, limited: true}
		}
		return verdict{fate: Unknown, again: honored}

	case s == http.StatusServiceUnavailable && hasAfter:
		return verdict{fate: NotRun, again: true, after: after, hasAfter: true}

	case s == http.StatusLoopDetected && a.isPlatform && a.errorBody.Code == LoopCode:
		return verdict{fate: NotRun} // nor would it the next time

	case honored && (s >= 500 || s == http.StatusRequestTimeout):
		return verdict{fate: Unknown, again: true, after: after, hasAfter: hasAfter}

	case s >= 500, s == http.StatusRequestTimeout:
		return verdict{fate: Unknown}

	case honored && s == http.StatusConflict:
		return verdict{fate: NotRun, conflict: true, after: after, hasAfter: hasAfter}

	case honored:
		return verdict{fate: NotRun}

	case s == http.StatusForbidden, s == http.StatusProxyAuthRequired, s == http.StatusTooEarly:
		return verdict{fate: NotRun}

	case a.isPlatform && RefusedBeforeRunning(s, a.errorBody.Code):
		return verdict{fate: NotRun}

	default: // it may come from behind the platform, after the action ran
		return verdict{fate: Final}
	}
}

// refusedStream tells whether err says that an HTTP/2 server refused the
// stream, which means that it has not processed the request (RFC 9113, 8.7).
// The standard library exports no type to ask for.
func refusedStream(err error) bool {
	text := err.Error()
	return strings.Contains(text, "stream error: ") && strings.Contains(text, "; REFUSED_STREAM")
}
