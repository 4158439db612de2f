package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
)

// send sends a under a claim and tells the gate what came of it.
func (h *Handler) send(ctx context.Context, claim *idempotency.Claim, a action, header http.Header, scope string, admission *genesys.Admission) idempotency.Result {
	body, err := h.bodyFor(a, claim.UpstreamKey())
	if err != nil { // it has waited for its turn, and was accepted by another configuration
		admission.Abandon()
		return idempotency.Result{Fate: idempotency.Freed, Answer: problemOf(err).answer(claim.ID())}
	}
	reply := h.invoker.Invoke(withReplacer(ctx), genesys.Request{
		Method:    a.method,
		URL:       a.url,
		Header:    header,
		Body:      body,
		Key:       claim.UpstreamKey(),
		Honored:   claim.Honored(),
		Resumed:   claim.Resumed(),
		Scope:     scope,
		Admission: admission,
		Conflict:  h.onConflict(claim, a),
	})

	result := idempotency.Result{Fate: fateOf(reply.Fate), Attempts: journalOf(reply.Journal)}
	accountAttempts(reply.Journal)
	if reply.Cause == genesys.Answered {
		result.Answer = &idempotency.Answer{Status: reply.Status, Header: keptHeader(reply.Header), Body: reply.Body}
		if reply.Rest != nil {
			result.Rest = reply.Rest
		}
	} else {
		result.Answer = problemOfReply(reply, claim.Honored()).answer(claim.ID())
	}
	result.Temporary = isTemporary(reply)
	h.logReply(claim, reply)
	return result
}

// isTemporary tells whether what kept a call from running will pass by itself, or
// is for an operator to mend rather than for the caller.
func isTemporary(reply genesys.Reply) bool {
	switch {
	case reply.Fate != genesys.NotRun:
		return false
	case reply.Cause == genesys.Answered:
		return reply.Status == http.StatusTooManyRequests || reply.Status == http.StatusServiceUnavailable
	}
	return reply.Cause == genesys.Unreachable || reply.Cause == genesys.Paused || reply.Cause == genesys.NoToken
}

// journalOf returns attempts as records keep them.
func journalOf(attempts []genesys.Attempt) []idempotency.Attempt {
	kept := make([]idempotency.Attempt, len(attempts))
	for i, a := range attempts {
		kept[i] = idempotency.Attempt{
			Started:       a.Started.Round(0), // by the wall clock: it is read by people
			Waited:        a.Waited,
			Paused:        a.Paused,
			Paced:         a.Paced,
			Took:          a.Took,
			Written:       a.Written,
			Status:        a.Status,
			CorrelationID: a.CorrelationID,
			Verdict:       string(a.Verdict),
		}
		if a.Err != nil {
			kept[i].Error = a.Err.Error()
		}
	}
	return kept
}

// callEnded takes down that a call of a that was sent has ended as end.
func (h *Handler) callEnded(a *action, end *idempotency.Record, fate idempotency.Fate, callers int64) {
	if fate == idempotency.Unsure {
		emitUnknown(end)
	}
	if callers > 0 {
		return // each of them has its own line
	}
	l := line{ending: endExecuted, orphaned: true, id: end.ID, journal: end.Journal, action: a.id,
		organization: h.Organization, took: end.Finished.Sub(end.Started)}
	switch fate {
	case idempotency.Unsure:
		l.ending = endUnknown
	case idempotency.Freed:
		l.ending = endRefused
	}
	if end.Answer != nil {
		l.status = end.Answer.Status
	}
	h.logCall(l)
}

// bodyFor returns the body to send under key.
func (h *Handler) bodyFor(a action, key string) ([]byte, error) {
	if h.inject == nil {
		return a.body, nil
	}
	body, err := h.inject.Write(a.body, key)
	if err != nil {
		return nil, &problemError{slug: slugBodyInvalid, err: err,
			detail: "The key is to be written into the request's body at " + h.inject.text + ", but: " + err.Error() + "."}
	}
	return body, nil
}

// onConflict returns what to do about an upstream's 409: ask the store whether
// another sidecar has got the answer, then go by the policy.
func (h *Handler) onConflict(claim *idempotency.Claim, a action) func(context.Context) (genesys.Resolution, error) {
	return func(ctx context.Context) (genesys.Resolution, error) {
		if answer, ok := claim.Answered(ctx); ok && answer != nil {
			return genesys.Resolution{Answer: &genesys.Reply{
				Fate: genesys.Final, Status: answer.Status, Header: answer.Header.HTTP(), Body: answer.Body,
			}}, nil
		}
		if h.OnConflict != conflictNewKey {
			return genesys.Resolution{}, nil
		}
		key := idempotency.RandomKey()
		body, err := h.bodyFor(a, key)
		if err != nil {
			return genesys.Resolution{}, err
		}
		if err := claim.Rekey(ctx, key); err != nil {
			return genesys.Resolution{}, fmt.Errorf("recording the new key: %w", err)
		}
		return genesys.Resolution{Key: key, Body: body}, nil
	}
}

func fateOf(f genesys.Fate) idempotency.Fate {
	switch f {
	case genesys.Final:
		return idempotency.Kept
	case genesys.NotRun:
		return idempotency.Freed
	default:
		return idempotency.Unsure
	}
}

// logReply logs what an operator should know of a call that was sent.
func (h *Handler) logReply(claim *idempotency.Claim, reply genesys.Reply) {
	level, msg := slog.LevelDebug, "call sent"
	switch {
	case reply.Fate == genesys.Unknown:
		level, msg = slog.LevelWarn, "the outcome of a call is unknown"
	case reply.Cause == genesys.Conflicted:
		level, msg = slog.LevelWarn, "the upstream rejects a call's key"
	case reply.Cause != genesys.Answered:
		level, msg = slog.LevelWarn, "a call could not be sent"
	}
	if !h.log.Enabled(context.Background(), level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("call", claim.ID().String()),
		slog.Int("status", reply.Status),
		slog.Int("attempts", reply.Attempts),
		slog.String("correlation_id", reply.Header.Get("ININ-Correlation-Id")),
	}
	if reply.Err != nil {
		attrs = append(attrs, slog.String("error", reply.Err.Error()))
	}
	h.log.LogAttrs(context.Background(), level, msg, attrs...)
}

// logRefusal logs why a call was not even claimed, where an operator can do
// something about it.
func (h *Handler) logRefusal(err error) {
	p := problemOf(err)
	if problemKinds[p.slug].status < http.StatusInternalServerError {
		return
	}
	h.log.Error("refusing a call", slog.String("problem", p.slug), slog.String("error", err.Error()))
}
