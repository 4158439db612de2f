package caddymodule

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
)

// accountOf takes down that a request for the data action a ended with out, in
// metrics, in the minutes of the status and in the log.
func (h *Handler) accountOf(a *action, out *idempotency.Outcome, cached bool, began time.Time) {
	e := endingOf(out)
	if cached {
		meters.cacheHits.Inc()
	}
	if out.Manner != idempotency.Executed {
		meters.suppressed.Inc()
	}
	problem := ""
	if e == endRefused {
		if problem = problemIn(out.Answer); problem != "" {
			e = endRejected
		}
	}
	status := http.StatusBadGateway // of an answer that there is not, see leftBehind
	if out.Answer != nil {
		status = out.Answer.Status
	} else if e == endAccepted {
		status = http.StatusAccepted
	}
	h.account(a, e, problem, status, out.ID, out.Journal, began)
}

// accountError takes down that a request for a ended with err. id is that of
// the call it was about, where that is known.
func (h *Handler) accountError(a *action, err error, left bool, id idempotency.ID, began time.Time) {
	switch {
	case left:
		h.account(a, endLeft, "", 0, id, idempotency.Journal{}, began)
	default:
		if errors.Is(err, idempotency.ErrResultUnavailable) {
			meters.suppressed.Inc()
		}
		slug := problemOf(err).slug
		h.account(a, endRejected, slug, problemKinds[slug].status, id, idempotency.Journal{}, began)
	}
}

// endingOf tells how a request ended that was told out.
func endingOf(out *idempotency.Outcome) ending {
	switch {
	case out.Fate == idempotency.Pending:
		return endAccepted
	case out.Fate == idempotency.Unsure:
		return endUnknown
	case out.Fate == idempotency.Freed:
		return endRefused
	case out.Adopted:
		return endAdopted
	case out.Manner == idempotency.Replayed:
		return endReplayed
	case out.Manner == idempotency.Shared:
		return endShared
	default:
		return endExecuted
	}
}

// problemIn returns the slug of the problem that answer is, "" if it is none of
// the sidecar's own.
func problemIn(answer *idempotency.Answer) string {
	const prefix = "urn:genesys-sidecar:problem:"
	if answer == nil || answer.Header.HTTP().Get("Content-Type") != "application/problem+json" {
		return ""
	}
	var p struct{ Type string }
	if json.Unmarshal(answer.Body, &p) != nil || !strings.HasPrefix(p.Type, prefix) {
		return ""
	}
	slug := p.Type[len(prefix):]
	if _, ok := problemKinds[slug]; !ok {
		return "" // an upstream may say anything
	}
	return slug
}

func (h *Handler) account(a *action, e ending, problem string, status int, id idempotency.ID, j idempotency.Journal, began time.Time) {
	took := time.Since(began)
	if e == endRejected {
		meters.calls.WithLabelValues(e.String(), problem).Inc()
	} else {
		meters.ended[e].Inc()
	}
	meters.callSeconds[e].Observe(took.Seconds())
	lastHour.add(began.Add(took), e, took)
	h.logCall(line{ending: e, problem: problem, status: status, id: id, journal: j, action: a.id, organization: h.Organization, took: took})
}

// accountAttempts takes down what the attempts of a call came to.
func accountAttempts(attempts []genesys.Attempt) {
	for _, a := range attempts {
		meters.attempts[a.Verdict].Inc()
		meters.upstream[a.Verdict].Observe(a.Took.Seconds())
	}
}

// line is what the log says of a request for a data action that has ended: no
// key, no body, no token.
type line struct {
	ending       ending
	orphaned     bool // nobody was there any more to be told
	problem      string
	status       int
	id           idempotency.ID // zero: it has none
	journal      idempotency.Journal
	action       string
	organization string
	took         time.Duration

	// There is a line for each call, so that what it needs is reused.
	fields [1]zap.Field
	digest [2 * digestSize]byte
}

var lines = sync.Pool{New: func() any { return new(line) }}

// logCall logs l under the logger genesys.calls. Caddy's own options decide
// where it goes, and how many of them do.
func (h *Handler) logCall(l line) {
	log := h.app.calls
	if a := running.Load(); a != nil {
		log = a.calls
	}
	level := zapcore.InfoLevel
	if l.ending == endUnknown {
		level = zapcore.WarnLevel
	}
	entry := log.Check(level, "call")
	if entry == nil {
		return
	}
	pooled := lines.Get().(*line)
	*pooled = l
	pooled.fields[0] = zap.Inline(pooled)
	entry.Write(pooled.fields[:]...)
	*pooled = line{}
	lines.Put(pooled)
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (l *line) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("outcome", l.ending.String())
	if l.problem != "" {
		enc.AddString("problem", l.problem)
	}
	if l.orphaned {
		enc.AddBool("orphaned", true)
	}
	if l.organization != "" {
		enc.AddString("organization", l.organization)
	}
	enc.AddString("action", l.action)
	if l.id != (idempotency.ID{}) {
		hex.Encode(l.digest[:], l.id[:digestSize])
		enc.AddByteString("call", l.digest[:]) // of the key, its scope and its organisation
	}
	enc.AddInt("status", l.status)
	enc.AddDuration("duration", l.took)
	n := len(l.journal.Attempts)
	enc.AddInt("attempts", n+l.journal.Skipped)
	if n == 0 {
		return nil
	}
	var upstream, waited time.Duration
	for i := range l.journal.Attempts {
		upstream += l.journal.Attempts[i].Took
		waited += l.journal.Attempts[i].Waited
	}
	enc.AddDuration("upstream_duration", upstream)
	enc.AddDuration("waited", waited)
	return enc.AddArray("correlation_ids", (*correlationIDs)(l))
}

// correlationIDs are those that a call's attempts had.
type correlationIDs line

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (l *correlationIDs) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for i := range l.journal.Attempts {
		if id := l.journal.Attempts[i].CorrelationID; id != "" {
			enc.AppendString(id)
		}
	}
	return nil
}

// Interface guards
var (
	_ zapcore.ObjectMarshaler = (*line)(nil)
	_ zapcore.ArrayMarshaler  = (*correlationIDs)(nil)
)
