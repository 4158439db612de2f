package caddymodule

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

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
