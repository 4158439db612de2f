package history

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// kind is what an answer says about its call.
type kind int

const (
	// none: there was no whole answer. The caller has left, or lost its connection.
	none kind = iota
	// refused: an error of the sidecar's own, about the request. It says nothing
	// that others have to be told, too.
	refused
	// freed: the call was not run, or failed so that its key is free again.
	freed
	// unknown: nobody can tell whether the call ran.
	unknown
	// known: the call ran, and this came of it.
	known
	// foreign: no sidecar should answer that.
	foreign
)

func (k kind) String() string {
	return [...]string{"none", "refused", "freed", "unknown", "known", "foreign"}[k]
}

// answer is what a client was told.
type answer struct {
	kind        kind
	status      int
	key         string
	cacheStatus string
	slug        string // of a problem
	denied      bool   // it says that the call was not executed
	body        string // if it is short, else its beginning
	digest      [sha256.Size]byte
	correlation string
	err         string // of none
}

// recorded tells whether the answer says that it is in the store.
func (a *answer) recorded() bool {
	return strings.Contains(a.cacheStatus, "; stored") || strings.Contains(a.cacheStatus, "genesys; hit")
}

// sameAs tells whether two answers are the same to the byte.
func (a *answer) sameAs(b *answer) bool {
	return a.kind == b.kind && a.status == b.status && a.digest == b.digest
}

// remoteStatus is the status of an action's own error, which is its answer where
// keys are ignored.
const remoteStatus = http.StatusUnprocessableEntity

// excerpt is how much of a body is kept, as evidence.
const excerpt = 600

// readAnswer tells what an answer says.
func readAnswer(status int, header http.Header, body []byte) answer {
	a := answer{
		status:      status,
		key:         header.Get("Idempotency-Key"),
		cacheStatus: strings.Join(header.Values("Cache-Status"), ", "),
		digest:      sha256.Sum256(body),
		correlation: header.Get("ININ-Correlation-Id"),
		body:        string(body[:min(len(body), excerpt)]),
	}
	isProblem := header.Get("Content-Type") == "application/problem+json"
	if isProblem {
		var problem struct{ Type, Outcome string }
		if err := json.Unmarshal(body, &problem); err == nil {
			a.slug = strings.TrimPrefix(problem.Type, "urn:genesys-sidecar:problem:")
			a.denied = problem.Outcome == "not_executed"
		}
	}
	told := strings.HasPrefix(a.cacheStatus, "genesys; ")
	switch {
	case told && strings.Contains(a.cacheStatus, "detail=OUTCOME-UNKNOWN"):
		a.kind = unknown
	case told && !isProblem && (status >= 200 && status < 300 || status == remoteStatus):
		a.kind = known
	case told:
		a.kind = freed
	case isProblem:
		a.kind = refused
		a.body = "" // it is new each time
	default:
		a.kind = foreign
	}
	return a
}

// sent tells whether the answer is that of a call that was sent for it.
func (a *answer) sent() bool {
	return strings.HasPrefix(a.cacheStatus, "genesys; fwd=miss") && !strings.Contains(a.cacheStatus, "collapsed")
}

// sighting is one request for a call, and what its caller saw.
type sighting struct {
	sidecar    int
	asked      string // the key that it brought
	other      uint8  // 1: it had another body than the call's own
	begin, end time.Time
	left       time.Time     // when the caller gave up; zero: it did not
	stood      time.Duration // how long the sidecar stood still meanwhile
	answer
}

// unsent tells whether the request did not even reach a sidecar.
func (s *sighting) unsent() bool { return s.kind == none && strings.Contains(s.err, "dial ") }

func (s *sighting) String() string {
	text := fmt.Sprintf("%s to %s, sidecar %d: %s", clock(s.begin), clock(s.end), s.sidecar, s.kind)
	if !s.left.IsZero() {
		text += ", its caller left " + clock(s.left)
	}
	if s.kind == none {
		return text + ": " + s.err
	}
	text += fmt.Sprintf(" %d %s", s.status, s.slug)
	if s.cacheStatus != "" {
		text += fmt.Sprintf(" (%s) key %s correlation %s", s.cacheStatus, s.key, s.correlation)
	}
	if s.body != "" {
		text += "\n    " + strings.TrimSpace(s.body)
	}
	return text
}
