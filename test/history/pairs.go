package history

import "fmt"

// Of the sightings of one call, which are in order or were at the same time:

// wrong tells what is wrong between two sightings of the same call, "" for
// nothing. honored says that its upstream honors keys.
func wrong(a, b *sighting, honored bool) string {
	if a.key == "" || a.key != b.key {
		return "" // refusals, and keyless calls that are two
	}
	if a.kind == known && b.kind == known && !a.sameAs(&b.answer) {
		return "a changed answer: two that are known differ"
	}
	if what := after(a, b, honored); what != "" {
		return what
	}
	return after(b, a, honored)
}

// after tells what is wrong with later, if it is later than first, which settles
// what it has to be.
func after(first, later *sighting, honored bool) string {
	if !first.settles(honored) || !later.begin.After(first.end) {
		return ""
	}
	switch later.kind {
	case none, refused:
		return ""
	case unknown:
		if first.kind == known {
			return "unknown after it was known"
		}
	}
	if !later.sameAs(&first.answer) {
		return fmt.Sprintf("a changed answer: %s after one that is stored", later.kind)
	}
	if first.kind == known && later.recorded() && later.correlation != first.correlation {
		return "a changed answer: its kept headers differ"
	}
	return ""
}

// settles tells whether whoever asks later has to be told the same. A call that
// was left behind is told to be unknown until its own sidecar says what became of
// it; and where keys are honored, what is unknown is tried again.
func (s *sighting) settles(honored bool) bool {
	switch s.kind {
	case known:
		return s.left.IsZero() && s.recorded()
	case unknown:
		return !honored && s.cacheStatus == "genesys; fwd=miss; stored; detail=OUTCOME-UNKNOWN"
	default:
		return false
	}
}

// expectedRefusals are those that chaos leads to. In all others the sidecar
// mistakes the call.
var expectedRefusals = map[string]bool{
	"key-in-use": true, "store-unavailable": true, "token-unavailable": true, "overloaded": true,
}

// wrongAlone tells what is wrong with a sighting by itself.
func wrongAlone(s *sighting, key string) string {
	switch {
	case s.kind == refused && s.slug == "key-reused" && key != "":
		return "" // up to what came before
	case s.kind == foreign:
		return "an answer that is none of a sidecar's"
	case s.kind == refused && !expectedRefusals[s.slug]:
		return fmt.Sprintf("a refusal that makes no sense: %s", s.slug)
	case s.kind > refused && s.kind != foreign && key != "" && s.key != key:
		return fmt.Sprintf("an answer for the key %q", s.key)
	default:
		return ""
	}
}
