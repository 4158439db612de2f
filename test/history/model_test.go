package history

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// other is the sighting s of a request with another body.
func other(s *sighting) *sighting {
	s.other = 1
	return s
}

// refusal is a sighting of a refusal.
func refusal(begin, end float64, slug string) *sighting {
	return &sighting{begin: at(begin), end: at(end), answer: answer{kind: refused, slug: slug}}
}

func TestAHistoryHasToBeInAnOrder(t *testing.T) {
	once := []effect{{id: "e1", key: "k", started: at(0.4), finished: at(0.5)}}
	late := []effect{{id: "e1", key: "k", started: at(4.4), finished: at(4.5)}}
	twice := []effect{once[0], {id: "e2", key: "k", started: at(2.4), finished: at(2.5)}}
	for name, h := range map[string]struct {
		fleet, honored bool
		seen           []*sighting
		effects        []effect
		wrong          bool
	}{
		"nothing": {},
		"a call and its replay": {effects: once,
			seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, known, hit, "e1")}},
		"a replay of something else": {effects: once, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, known, hit, "e2")}},
		"a replay before the call": {effects: once, wrong: true,
			seen: []*sighting{told(1, 2, known, stored, "e1"), told(0, 0.9, known, hit, "e1")}},
		"a shared answer": {effects: once,
			seen: []*sighting{told(0, 1, known, stored, "e1"), told(0.3, 1, known, collapsed, "e1")}},
		"an answer without an execution": {wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1")}},
		"an answer before the execution": {effects: late, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1")}},
		"two executions": {effects: twice, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, known, stored, "e1")}},
		"two executions of an answer that was not stored": {effects: twice, wrong: true,
			seen: []*sighting{told(0, 1, known, missed, "e1"), told(2, 3, known, stored, "e2")}},
		"left by its caller, and found": {effects: once,
			seen: []*sighting{unanswered(0, 1), told(2, 3, known, hit, "e1")}},
		"left by its caller, and executed again": {effects: twice, wrong: true,
			seen: []*sighting{unanswered(0, 1), told(2, 3, known, stored, "e2")}},
		"left by its caller before it was sent": {effects: late,
			seen: []*sighting{unanswered(0, 1), told(4, 5, known, stored, "e1")}},
		"left behind by a crash": {effects: once,
			seen: []*sighting{unanswered(0, 1), told(2, 3, unknown, hitUnknown, ""), told(4, 5, unknown, hitUnknown, "")}},
		"unknown without a cause": {wrong: true,
			seen: []*sighting{told(2, 3, unknown, hitUnknown, "")}},
		"known after unknown": {effects: once, wrong: true,
			seen: []*sighting{unanswered(0, 1), told(2, 3, unknown, hitUnknown, ""), told(4, 5, known, hit, "e1")}},
		"known after another sidecar called it unknown": {fleet: true, effects: once,
			seen: []*sighting{unanswered(0, 1), told(2, 3, unknown, hitUnknown, ""), told(4, 5, known, hit, "e1")}},
		"known after unknown was stored": {fleet: true, effects: once, wrong: true,
			seen: []*sighting{told(0, 1, unknown, storedUnknown, ""), told(4, 5, known, hit, "e1")}},
		"executed after it was called unknown": {effects: late,
			seen: []*sighting{told(0, 1, unknown, storedUnknown, "")}},
		"sent again, where keys are ignored": {effects: late, wrong: true,
			seen: []*sighting{told(0, 1, unknown, storedUnknown, ""), told(4, 5, known, stored, "e1")}},
		"sent again, where keys are honored": {honored: true, effects: late,
			seen: []*sighting{told(0, 1, unknown, missed, ""), told(4, 5, known, stored, "e1")}},
		"sent again for a caller that left, where keys are honored": {honored: true, effects: late,
			seen: []*sighting{told(0, 1, unknown, storedUnknown, ""), unanswered(2, 3), told(5, 6, known, hit, "e1")}},
		"resumed after a crash, where keys are honored": {honored: true, effects: once,
			seen: []*sighting{unanswered(0, 1), told(2, 3, known, stored, "e1")}},
		"freed, and used again": {effects: late,
			seen: []*sighting{told(0, 1, freed, missed, ""), told(4, 5, known, stored, "e1")}},
		"freed after it was executed": {effects: once, wrong: true,
			seen: []*sighting{told(0, 1, freed, missed, "")}},
		"in use": {effects: once,
			seen: []*sighting{told(0, 1, known, stored, "e1"), refusal(0.3, 0.8, "key-in-use")}},
		"in use after it was answered": {effects: once, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1"), refusal(2, 3, "key-in-use")}},
		"the store did not answer, and had claimed it for a while": {fleet: true, effects: []effect{{id: "e1", key: "k", other: 1, started: at(4.4), finished: at(4.5)}},
			seen: []*sighting{refusal(0, 1, "store-unavailable"), other(refusal(2, 3, "key-reused")), other(unanswered(4, 4.1)), other(told(5, 6, known, hit, "e1"))}},
		"told while the store did not answer, and forgotten with a crash": {fleet: true, effects: once,
			seen: []*sighting{told(0, 1, known, missed, "e1"), told(0, 1, known, collapsed, "e1"), told(2, 3, unknown, hitUnknown, "")}},
		"told while the store did not answer, and something else later": {honored: true, fleet: true, effects: once, wrong: true,
			seen: []*sighting{told(0, 1, known, missed, "e1"), told(2, 3, known, stored, "e2")}},
		"another request's key": {effects: once,
			seen: []*sighting{told(0, 1, known, stored, "e1"), other(refusal(2, 3, "key-reused"))}},
		"its own key, refused": {effects: once, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1"), refusal(2, 3, "key-reused")}},
		"another request's key, which nobody has": {wrong: true,
			seen: []*sighting{other(refusal(2, 3, "key-reused"))}},
		"another request's answer": {effects: once, wrong: true,
			seen: []*sighting{told(0, 1, known, stored, "e1"), other(told(2, 3, known, hit, "e1"))}},
		"another request's answer, after its caller left": {effects: once, wrong: true,
			seen: []*sighting{unanswered(0, 1), other(told(2, 3, known, hit, "e1"))}},
		"the store did not answer, and had claimed it": {fleet: true, effects: late,
			seen: []*sighting{refusal(0, 1, "store-unavailable"), other(refusal(2, 3, "key-reused")), told(4, 5, known, stored, "e1")}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, s := range h.seen {
				s.asked = "k"
			}
			picture := filepath.Join(t.TempDir(), "picture.html")
			got := linearize(false, steps("k", h.fleet, h.honored, h.seen, h.effects), time.Minute, picture)
			want := porcupine.Ok
			if h.wrong {
				want = porcupine.Illegal
			}
			if got != want {
				t.Errorf("got %v", got)
			}
			if _, err := os.Stat(picture); (err == nil) != h.wrong {
				t.Errorf("its picture: %v", err)
			}
		})
	}
}

func TestAKeylessCallMayHaveBeenClaimedForWhoDidNotLearnItsKey(t *testing.T) {
	effects := []effect{{id: "e1", key: "k", started: at(0.4), finished: at(0.5)}}
	history := steps("k", false, false, []*sighting{told(2, 3, known, hit, "e1")}, effects)
	if got := linearize(true, history, time.Minute, ""); got != porcupine.Ok {
		t.Errorf("got %v", got)
	}
	if got := linearize(false, history, time.Minute, ""); got != porcupine.Illegal {
		t.Errorf("without that caller: %v", got)
	}
}
