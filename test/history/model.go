package history

import (
	"crypto/sha256"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// This is the specification of a key, as a machine that takes one step at a
// time. A history is right if each of its requests and effects can be put at a
// point between its beginning and its end so that the machine can take them in
// that order (linearizability, as porcupine checks it).
//
// What a request does takes two steps, since others can see what is between
// them: it claims the key, and ends with an outcome. A request without an answer
// may have done either or nothing, at any time from its beginning on.

// phase is where a key stands.
type phase uint8

const (
	absent  phase = iota // nobody has it, or it has been released
	started              // claimed
	done                 // there is an answer, which never changes
	lost                 // nobody knows whether it ran
)

func (p phase) String() string {
	return [...]string{"absent", "started", "done", "unknown"}[p]
}

// nobody is the claimant of a claim whose caller is not there to be told.
const nobody = -1

// standing is the state of a key. It is comparable.
type standing struct {
	phase phase
	body  uint8 // whose request it is, of those that were sent under the key
	by    int   // the step that claimed it
	ran   bool  // it has had its effect
	maybe uint8 // a bit for each body: a request without an answer may claim it

	// digest is of what has been told. It is for good once it is recorded: a
	// sidecar whose store does not answer tells what it knows, and says that it
	// is not stored; killed then, it has forgotten it. What is known later is
	// the same all the same.
	digest uint64
}

func (s standing) String() string {
	text := s.phase.String()
	if s.phase != absent {
		text += fmt.Sprintf(" (body %d)", s.body)
	}
	if s.ran {
		text += ", ran"
	}
	return text
}

// stepKind is what a step is.
type stepKind uint8

const (
	claims stepKind = iota // a request that its sidecar sends
	ends                   // and is told what became of it
	finds                  // a request that is told of another's outcome
	may                    // requests without an answer begin
	runs                   // the upstream executes it
)

// step is the input and output of the machine.
type step struct {
	kind    stepKind
	number  int // of the request
	body    uint8
	honored bool
	fleet   bool // others can take over, and what is unknown to one can be known to another
	told    kind
	slug    string
	digest  uint64
	stored  bool
	seen    *sighting
}

func (s step) String() string {
	switch s.kind {
	case claims:
		return fmt.Sprintf("request %d claims (body %d)", s.number, s.body)
	case ends:
		return fmt.Sprintf("request %d ends: %s", s.number, s.told)
	case may:
		return fmt.Sprintf("a request of body %d may claim", s.body)
	case runs:
		return fmt.Sprintf("executed (body %d)", s.body)
	default:
		return strings.TrimSpace(fmt.Sprintf("request %d (body %d) is told: %s %s", s.number, s.body, s.told, s.slug))
	}
}

// take returns where the key can stand after a step.
func (s standing) take(step step) []standing {
	var next []standing
	for _, from := range s.unseen(step.honored) {
		next = append(next, from.takeSeen(step)...)
	}
	return next
}

// unseen returns where the key can stand that stood at s, if what nobody was
// told has happened: it was claimed for a caller that is gone, or given up.
func (s standing) unseen(honored bool) []standing {
	all := []standing{s}
	if s.phase == started && s.by == nobody && !s.ran { // it was given up, unused
		s.phase = absent
		all = append(all, s)
	}
	for body := range uint8(2) {
		again := honored && s.phase == lost && s.body == body
		if s.maybe&(1<<body) != 0 && (s.phase == absent || again) {
			claimed := s
			claimed.phase, claimed.body, claimed.by = started, body, nobody
			all = append(all, claimed)
		}
	}
	return all
}

func (s standing) takeSeen(step step) []standing {
	switch step.kind {
	case may:
		s.maybe |= 1 << step.body
		return []standing{s}
	case runs:
		return s.run(step)
	case claims:
		return s.claim(step)
	case ends:
		return s.end(step)
	default:
		return s.find(step)
	}
}

// run is the effect: for a claim, once. Late, for one that was given up as
// unknown.
func (s standing) run(step step) []standing {
	if s.ran || s.body != step.body || s.phase != started && s.phase != lost {
		return nil
	}
	s.ran = true
	return []standing{s}
}

func (s standing) claim(step step) []standing {
	claimed := s
	claimed.phase, claimed.body, claimed.by = started, step.body, step.number
	again := step.honored && s.body == step.body
	switch {
	case s.phase == absent,
		s.phase == lost && again,
		s.phase == started && s.by == nobody && again,
		s.phase == started && step.fleet && again:
		return []standing{claimed}
	default:
		return nil
	}
}

func (s standing) end(step step) []standing {
	own := s.phase == started && s.by == step.number
	// Whoever stood still finds that others have gone on.
	overtaken := step.honored && step.fleet && s.body == step.body
	switch step.told {
	case known:
		if !s.ran || !own && !overtaken {
			return nil
		}
		return s.know(step)
	case unknown:
		if !own {
			return when(overtaken, s)
		}
		s.phase = lost
		return []standing{s}
	case freed:
		if !own {
			return when(overtaken, s)
		}
		if s.ran && !step.honored {
			return nil
		}
		s.phase = absent
		return []standing{s}
	default:
		return nil
	}
}

// find is a request that was not sent.
func (s standing) find(step step) []standing {
	orphan := s.phase == started && s.by == nobody
	switch {
	case step.told == known && (s.phase == done || orphan && s.ran):
		if s.body != step.body {
			return nil
		}
		return s.know(step)
	case step.told == unknown && step.fleet:
		return when(s.body == step.body && (s.phase == started || s.phase == lost), s)
	case step.told == unknown && (s.phase == lost || orphan):
		s.phase = lost
		return when(s.body == step.body, s)
	case step.told == freed: // told to several; the first of them has ended it
		return []standing{s}
	case step.told == refused && step.slug == "key-reused":
		return when(s.phase != absent && s.body != step.body, s)
	case step.told == refused && step.slug == "key-in-use":
		return when(s.body == step.body && (s.phase == started || step.fleet && s.phase == lost), s)
	case step.told == refused: // it says nothing about the key
		return []standing{s}
	default:
		return nil
	}
}

// know has the key's answer known.
func (s standing) know(step step) []standing {
	if s.digest != 0 && s.digest != step.digest {
		return nil
	}
	recorded := s
	recorded.phase, recorded.digest = done, step.digest
	if step.stored || s.phase == done {
		return []standing{recorded}
	}
	left := s
	left.by, left.digest = nobody, step.digest
	return []standing{recorded, left}
}

func when(so bool, s standing) []standing {
	if !so {
		return nil
	}
	return []standing{s}
}

// model is the machine as porcupine takes it. orphaned says that the key may
// have been claimed by a request that is not in the history, since it did not
// learn its key.
func model(orphaned bool) porcupine.Model {
	first := standing{}
	if orphaned {
		first.maybe = 1
	}
	nondeterministic := porcupine.NondeterministicModel{
		Init: func() []any { return []any{first} },
		Step: func(state, input, _ any) []any {
			var next []any
			for _, s := range state.(standing).take(input.(step)) {
				next = append(next, s)
			}
			return next
		},
		DescribeOperation: func(input, _ any) string { return input.(step).String() },
		DescribeState:     func(state any) string { return state.(standing).String() },
	}
	return nondeterministic.ToModel()
}

// forever is the end of what may go on until the end of the history.
const forever = math.MaxInt64

// slack is by how much an effect's times, which the ledger has off the wall
// clock, may be wrong.
const slack = time.Millisecond

// steps returns the history of a key: of the sightings and effects of its call,
// those that are of this key.
func steps(key string, fleet, honored bool, sightings []*sighting, effects []effect) []porcupine.Operation {
	if len(sightings) == 0 {
		return nil
	}
	epoch := sightings[0].begin.Add(-time.Hour)
	var all []porcupine.Operation
	add := func(s step, from, to time.Time) {
		s.honored, s.fleet = honored, fleet
		op := porcupine.Operation{ClientId: s.number, Input: s, Call: int64(from.Sub(epoch)), Return: forever}
		if !to.IsZero() {
			op.Return = int64(to.Sub(epoch))
		}
		all = append(all, op)
	}
	var unanswered [2]time.Time // the first of each body
	for i, s := range sightings {
		it := step{number: i, body: s.other, told: s.kind, slug: s.slug, digest: digestOf(s), stored: s.recorded(), seen: s}
		silent := s.kind == none || s.kind == refused && s.slug == "store-unavailable"
		switch {
		case silent && (s.asked == key || s.key == key) && !s.unsent():
			if first := unanswered[s.other]; first.IsZero() || s.begin.Before(first) {
				unanswered[s.other] = s.begin
			}
		case s.kind == refused && s.asked == key:
			it.kind = finds
			add(it, s.begin, s.end)
		case s.key != key || s.kind <= refused:
		case s.sent():
			it.kind = claims
			add(it, s.begin, s.end)
			it.kind = ends
			add(it, s.begin, s.end)
		default:
			it.kind = finds
			add(it, s.begin, s.end)
		}
	}
	for body, first := range unanswered {
		if !first.IsZero() {
			add(step{kind: may, body: uint8(body)}, first, time.Time{})
		}
	}
	for _, e := range effects {
		if e.key == key {
			add(step{kind: runs, body: e.other}, e.started.Add(-slack), e.finished.Add(slack))
		}
	}
	return all
}

// digestOf is what two answers that are the same have in common.
func digestOf(s *sighting) uint64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %x", s.status, s.digest))
	var d uint64
	for _, b := range sum[:8] {
		d = d<<8 | uint64(b)
	}
	return d
}

// linearize tells whether a history is right, within limit; if it is not, it draws
// why in a file, unless that is "".
func linearize(orphaned bool, history []porcupine.Operation, limit time.Duration, file string) porcupine.CheckResult {
	m := model(orphaned)
	result := porcupine.CheckOperationsTimeout(m, history, limit)
	if result == porcupine.Illegal && file != "" {
		_, info := porcupine.CheckOperationsVerbose(m, history, limit)
		_ = porcupine.VisualizePath(m, info, file) // it is but a picture
	}
	return result
}
