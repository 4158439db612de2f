package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// effect is what the ledger says of an execution.
type effect struct {
	id, key           string
	other             uint8 // 1: of another body than the call's own
	started, finished time.Time
}

func (e effect) String() string {
	return fmt.Sprintf("effect %s from %s to %s, key %s", e.id, clock(e.started), clock(e.finished), e.key)
}

// notice is how long after its caller has left a call can be expected to be
// answered all the same: a sidecar has to notice it first, and runs on a machine
// that has other things to do. So does the client: one has read 300 ms after it had
// left what had been sent to it 60 ms before.
const notice = 500 * time.Millisecond

// judgeEffects tells what is wrong with how often a call was executed. A call
// with a key may have been once. A keyless one, whose requests never are two at a
// time, must not be executed for a request that began when it was being executed
// already, and that answer was not delivered. excused says that it was executed
// more than once, and may have been: since an answer was delivered that nobody
// listened to any more; or since a request that was held up in a sidecar was
// executed beside its own repeat, of which nothing was known when it came, or
// after that was answered.
func judgeEffects(key string, effects []effect, sightings []*sighting) (what string, excused bool) {
	if len(effects) < 2 {
		return "", false
	}
	if key != "" {
		return fmt.Sprintf("a double execution: %d effects", len(effects)), false
	}
	slices.SortFunc(effects, func(a, b effect) int { return a.started.Compare(b.started) })
	begun := executedFor(effects, sightings)
	for i, first := range effects {
		for j := range effects {
			if i != j && begun[j].After(first.started) && !delivered(first, effects[j].started, sightings) {
				return "a double execution of a keyless call: executed anew, though its caller had left before its answer was delivered", false
			}
		}
	}
	return "", true
}

// judgeTwice tells what is wrong with a call that two callers mean at the same
// time: each that was answered has been answered for a call of its own. (Where a
// sidecar was killed meanwhile, what it left behind is for anybody.)
func judgeTwice(effects []effect, sightings []*sighting) string {
	whose := make(map[string]bool)
	for _, s := range sightings {
		if s.asked != "" || s.kind != known {
			continue
		}
		if whose[s.key] {
			return "two callers who meant two calls are told of one"
		}
		whose[s.key] = true
	}
	if len(effects) > 2 {
		return fmt.Sprintf("two calls had %d effects", len(effects))
	}
	return ""
}

// delivered tells whether the answer of an effect had reached a caller by then,
// give or take what a busy machine makes of the order, or so soon after the caller
// left that this cannot have been noticed.
func delivered(e effect, then time.Time, sightings []*sighting) bool {
	return slices.ContainsFunc(sightings, func(s *sighting) bool {
		if s.left.IsZero() {
			return s.kind == known && s.key == e.key && s.end.Before(then.Add(notice))
		}
		return s.kind == known && s.key == e.key && s.end.Before(s.left.Add(notice+s.stood))
	})
}

// executedFor returns, for each of the effects in the order of their time, when
// the request began that it was executed for; or, where that is not certain, the
// earliest that it may be.
func executedFor(effects []effect, sightings []*sighting) []time.Time {
	begun := make([]time.Time, len(effects))
	var unanswered []*sighting
	for _, s := range sightings {
		if s.kind == none && !s.unsent() {
			unanswered = append(unanswered, s)
		}
		if !s.sent() {
			continue
		}
		for i, e := range effects {
			if s.key == e.key && s.begin.Before(e.started) {
				begun[i] = s.begin // the answer says so
			}
		}
	}
	slices.SortFunc(unanswered, func(a, b *sighting) int { return a.begin.Compare(b.begin) })
	for i, e := range effects {
		if begun[i].IsZero() && len(unanswered) > 0 && unanswered[0].begin.Before(e.started) {
			begun[i], unanswered = unanswered[0].begin, unanswered[1:]
		}
	}
	return begun
}

// judgeTruth tells what a call's callers were told that is not so, by the ledger.
func judgeTruth(key string, effects []effect, sightings []*sighting) string {
	for _, s := range sightings {
		switch s.kind {
		case known:
			i := slices.IndexFunc(effects, func(e effect) bool { return e.key == s.key })
			if i < 0 {
				return "an answer to what was not executed"
			}
			if s.status < 300 && !strings.Contains(s.body, effects[i].id) {
				return "an answer that is none to what was executed"
			}
		case refused, freed:
			ran := slices.ContainsFunc(effects, func(e effect) bool { return e.finished.Before(s.begin) })
			if s.denied && key != "" && ran {
				return "told not to have been executed, after it was"
			}
		}
	}
	return ""
}

// judgeAttempts tells what is wrong with what the upstream was sent for a call,
// under whatever keys.
func judgeAttempts(key string, honored bool, attempts []sandbox.Attempt) string {
	used := make(map[string]int) // attempts after which a key must not be sent again
	for _, a := range attempts {
		if key != "" && a.Key != key {
			return fmt.Sprintf("sent up under the key %q", a.Key)
		}
		// The platform said that it has not begun. Whatever else there was,
		// the call may have run.
		again := a.Outcome == sandbox.OutcomeAnswered && !a.Executed && (a.Status == 503 || a.Status == 401)
		if !again {
			used[a.Key]++
		}
		if !honored && used[a.Key] > 1 {
			return "sent again, after it may have run"
		}
		if !honored && again && used[a.Key] > 0 {
			return "sent again, after it may have run"
		}
	}
	return ""
}
