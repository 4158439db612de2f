package history

import (
	"bytes"
	"crypto/sha256"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// day is when the sightings of these tests begin.
var day = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return day.Add(time.Duration(seconds * float64(time.Second))) }

const (
	stored        = "genesys; fwd=miss; stored"
	hit           = "genesys; hit; ttl=9"
	missed        = "genesys; fwd=miss"
	collapsed     = "genesys; fwd=miss; collapsed"
	hitUnknown    = hit + "; detail=OUTCOME-UNKNOWN"
	storedUnknown = stored + "; detail=OUTCOME-UNKNOWN"
)

// told is a sighting of the key k from one second to another.
func told(begin, end float64, k kind, cacheStatus, body string) *sighting {
	status := 200
	if k == unknown {
		status = 502
	}
	return &sighting{begin: at(begin), end: at(end), answer: answer{
		kind: k, status: status, key: "k", cacheStatus: cacheStatus, body: body, digest: sha256.Sum256([]byte(body)),
	}}
}

// unanswered is one of a caller that left.
func unanswered(begin, left float64) *sighting {
	return &sighting{begin: at(begin), end: at(left), left: at(left), answer: answer{kind: none}}
}

// under is the sighting s of another key.
func under(key string, s *sighting) *sighting {
	s.key = key
	return s
}

// afterLeaving is the sighting s of a caller that had left.
func afterLeaving(left float64, s *sighting) *sighting {
	s.left = at(left)
	return s
}

// check returns what a checker says of a call without a key if keyless, else with
// the key k, of which these are the sightings and effects.
func check(t *testing.T, keyless bool, attempts []sandbox.Attempt, seen []*sighting, effects ...sandbox.Effect) (violations []string, report string) {
	t.Helper()
	var out bytes.Buffer
	k := newChecker(&out, func(_, _ time.Time) []incident {
		return []incident{{event: event{deed: KillSidecar, target: 1}, began: day}}
	}, func(string) []sandbox.Attempt { return attempts })
	c := &call{name: "c", path: executePath, key: "k", body: "{}", hash: hashOf("{}"), other: "[]", otherHash: hashOf("[]")}
	if keyless {
		c.key = ""
	}
	k.begin(c)
	k.fleet = true
	for _, s := range seen {
		s.asked = c.key
		k.saw(c, s)
	}
	for _, e := range effects {
		e.BodySHA256 = c.hash
		k.ran(e)
	}
	for i := range attempts {
		attempts[i].BodySHA256 = c.hash
	}
	k.finish(attempts)
	violations, _ = k.found()
	return violations, out.String()
}

func TestCheckerFindsWhatIsWrong(t *testing.T) {
	one := sandbox.Effect{ID: "e1", Key: "k", Started: at(0.4), Finished: at(0.5)}
	two := sandbox.Effect{ID: "e2", Key: "k", Started: at(3.4), Finished: at(3.5)}
	other := sandbox.Effect{ID: "e2", Key: "l", Started: at(3.4), Finished: at(3.5)}
	maybe := sandbox.Attempt{Key: "k", Outcome: sandbox.OutcomeDropped}
	refusal := sandbox.Attempt{Key: "k", Outcome: sandbox.OutcomeAnswered, Status: 503}
	type run struct {
		keyless  bool
		attempts []sandbox.Attempt
		seen     []*sighting
		effects  []sandbox.Effect
		want     string // "" for nothing
	}
	for name, r := range map[string]run{
		"a replay": {seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, known, hit, "e1")},
			effects: []sandbox.Effect{one}},
		"a double execution": {seen: []*sighting{told(0, 1, known, stored, "e1")},
			effects: []sandbox.Effect{one, two}, want: "a double execution: 2 effects"},
		"a changed answer": {seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, known, hit, "e1 ")},
			effects: []sandbox.Effect{one}, want: "a changed answer"},
		"a changed answer that was not stored": {seen: []*sighting{told(0, 1, known, missed, "e1"), told(0, 1, known, collapsed, "e1!")},
			effects: []sandbox.Effect{one}, want: "a changed answer"},
		"unknown after known": {seen: []*sighting{told(0, 1, known, hit, "e1"), told(2, 3, unknown, hitUnknown, "")},
			effects: []sandbox.Effect{one}, want: "unknown after it was known"},
		"unknown after known, seen the other way round": {seen: []*sighting{told(2, 3, unknown, hitUnknown, ""), told(0, 1, known, hit, "e1")},
			effects: []sandbox.Effect{one}, want: "unknown after it was known"},
		"unknown at the same time as known": {seen: []*sighting{unanswered(0, 1), told(0, 2, known, hit, "e1"), told(1, 3, unknown, hitUnknown, "")},
			effects: []sandbox.Effect{one}},
		"unknown after known that was not stored": {seen: []*sighting{told(0, 1, known, missed, "e1"), told(2, 3, unknown, hitUnknown, "")},
			effects: []sandbox.Effect{one}},
		"known after unknown": {seen: []*sighting{unanswered(0, 1), told(0, 1, unknown, hitUnknown, ""), told(2, 3, known, hit, "e1")},
			effects: []sandbox.Effect{one}},
		"known after unknown was stored": {seen: []*sighting{told(0, 1, unknown, storedUnknown, ""), told(2, 3, known, hit, "e1")},
			effects: []sandbox.Effect{one}, want: "a changed answer"},
		"free after known": {seen: []*sighting{told(0, 1, known, stored, "e1"), told(2, 3, freed, missed, "e1")},
			effects: []sandbox.Effect{one}, want: "a changed answer"},
		"an answer to nothing": {seen: []*sighting{told(0, 1, known, stored, "e1")},
			want: "an answer to what was not executed"},
		"an answer to something else": {seen: []*sighting{told(0, 1, known, stored, "e7")},
			effects: []sandbox.Effect{one}, want: "an answer that is none to what was executed"},
		"denied": {seen: []*sighting{{begin: at(1), end: at(2), answer: answer{kind: refused, slug: "token-unavailable", denied: true}}},
			effects: []sandbox.Effect{one}, want: "told not to have been executed"},
		"a refusal that makes no sense": {seen: []*sighting{{begin: at(1), end: at(2), answer: answer{kind: refused, slug: "body-invalid"}}},
			want: "a refusal that makes no sense: body-invalid"},
		"another's key": {seen: []*sighting{under("l", told(0, 1, unknown, hitUnknown, ""))},
			want: `an answer for the key "l"`},

		"sent again after it may have run":  {attempts: []sandbox.Attempt{maybe, maybe}, want: "sent again, after it may have run"},
		"sent again after it was refused":   {attempts: []sandbox.Attempt{refusal, refusal, maybe}},
		"sent again, refused, after it ran": {attempts: []sandbox.Attempt{maybe, refusal}, want: "sent again, after it may have run"},
		"sent under another key":            {attempts: []sandbox.Attempt{{Key: "l"}}, want: `sent up under the key "l"`},

		"keyless, adopted": {keyless: true, effects: []sandbox.Effect{one},
			seen: []*sighting{unanswered(0, 1), told(2, 3, known, hit, "e1")}},
		"keyless, executed anew though its caller had left": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{unanswered(0, 1), under("l", told(3, 4, known, stored, "e2"))},
			want: "a double execution of a keyless call"},
		"keyless, executed anew by another who was not answered": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{unanswered(0, 0.1), unanswered(0.2, 0.3), under("l", told(3, 4, known, stored, "e2"))},
			want: "a double execution of a keyless call"},
		"keyless, executed anew for another who was not answered, and its answer told later": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{unanswered(0, 1), unanswered(2, 4), told(5, 6, known, hit, "e1")},
			want: "a double execution of a keyless call"},
		"keyless, executed anew after its answer was delivered": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{afterLeaving(1, told(0, 1.01, known, stored, "e1")), under("l", told(3, 4, known, stored, "e2"))}},
		"keyless, executed anew, its answer having come long after its caller had left": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{afterLeaving(1, told(0, 2, known, stored, "e1")), under("l", told(3, 4, known, stored, "e2"))},
			want: "a double execution of a keyless call"},
		"keyless, executed anew while it was running": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{unanswered(0, 0.41), under("l", told(0.45, 4, known, stored, "e2"))},
			want: "a double execution of a keyless call"},
		"keyless, held up and executed beside its repeat": {keyless: true, effects: []sandbox.Effect{one, other},
			seen: []*sighting{unanswered(0.1, 0.2), told(0.3, 0.6, known, stored, "e1")}},
	} {
		t.Run(name, func(t *testing.T) {
			violations, report := check(t, r.keyless, r.attempts, r.seen, r.effects...)
			switch {
			case r.want == "" && len(violations) > 0:
				t.Errorf("got %q", violations)
			case r.want != "" && (len(violations) != 1 || !strings.HasPrefix(violations[0], r.want)):
				t.Errorf("got %q, want %q", violations, r.want)
			case r.want != "" && (!strings.Contains(report, "VIOLATION "+r.want) || !strings.Contains(report, "chaos: ") || len(r.attempts) > 0 && !strings.Contains(report, "attempt ")):
				t.Errorf("the report says %s", report)
			}
		})
	}
}

func TestCheckerReportsAnEffectOfNoCall(t *testing.T) {
	k := newChecker(io.Discard, nil, nil)
	k.ran(sandbox.Effect{ID: "e"})
	if violations, _ := k.found(); len(violations) != 1 {
		t.Errorf("got %q", violations)
	}
}

// scheduleOf draws the schedule of a fleet.
func scheduleOf(t *testing.T, seed uint64, duration time.Duration) []event {
	t.Helper()
	set, err := Settings{Store: Redis, Seed: seed, Duration: duration, Every: time.Second}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return set.schedule()
}

func TestScheduleIsUpToTheSeed(t *testing.T) {
	a, b := scheduleOf(t, 1, time.Minute), scheduleOf(t, 1, time.Minute)
	if len(a) < 20 || !reflect.DeepEqual(a, b) {
		t.Errorf("one is %v, the other %v", a, b)
	}
	if reflect.DeepEqual(a, scheduleOf(t, 2, time.Minute)) {
		t.Error("another seed has the same")
	}
}

func TestScheduleLeavesOneSidecarAlone(t *testing.T) {
	for seed := range uint64(20) {
		events := scheduleOf(t, seed+1, 5*time.Minute)
		for i, e := range events {
			busy := map[int]bool{}
			for _, before := range events[:i] {
				if before.at+before.length < e.at {
					continue
				}
				if before.target == e.target {
					t.Errorf("seed %d: %v during %v", seed, e, before)
				}
				busy[before.target] = true
			}
			delete(busy, redis)
			if e.target != redis && len(busy) > 1 {
				t.Errorf("seed %d: %v while two others are away", seed, e)
			}
		}
	}
}
