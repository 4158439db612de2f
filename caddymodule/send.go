package caddymodule

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
)

// sending is a data action that is to be sent, of one call.
type sending struct {
	handler  *Handler
	action   action
	header   http.Header // what goes up of the caller's
	scope    string      // for the pacer
	accepted bool        // the call was handed over, maybe by another configuration

	admission *genesys.Admission // from Prepare to Send, or to Abandon
	claim     *idempotency.Claim // from Send on
}

var _ idempotency.Sender = (*sending)(nil)

// Fits implements idempotency.Sender.
func (s *sending) Fits() error {
	if s.handler.inject == nil || s.accepted {
		return nil
	}
	_, err := s.body("x")
	return err
}

// Prepared implements idempotency.Sender.
func (s *sending) Prepared() bool {
	return s.handler.inject == nil && !s.accepted && s.handler.invoker.IsReady()
}

// Prepare implements idempotency.Sender. What was handed over waits as long as it
// takes.
func (s *sending) Prepare(ctx context.Context) (err error) {
	var deadline time.Time
	if !s.accepted {
		deadline = time.Now().Add(time.Duration(s.handler.Deadline))
	}
	s.admission, err = s.handler.invoker.Ready(ctx, deadline, s.scope)
	return err
}

// Abandon implements idempotency.Sender.
func (s *sending) Abandon() { s.admission.Abandon() }

// Send implements idempotency.Sender.
func (s *sending) Send(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
	s.claim = claim
	h, a := s.handler, &s.action
	body, err := s.body(claim.UpstreamKey())
	if err != nil { // it was accepted by another configuration
		s.admission.Abandon()
		return idempotency.Result{Fate: idempotency.Freed, Answer: problemOf(err).answer(claim.ID())}
	}
	s.header["Cdn-Loop"] = marked(s.header)
	reply := h.invoker.Invoke(ctx, genesys.Request{
		Method:    a.method,
		URL:       a.url,
		Header:    s.header,
		Body:      body,
		Key:       claim.UpstreamKey(),
		Honored:   claim.Honored(),
		Resumed:   claim.Resumed(),
		Scope:     s.scope,
		Admission: s.admission,
		Conflict:  s.resolve,
	})

	result := idempotency.Result{Fate: fateOf(reply.Fate), Attempts: journalOf(reply.Journal)}
	accountAttempts(reply.Journal)
	if reply.Cause == genesys.Answered {
		result.Answer = &idempotency.Answer{Status: reply.Status, Header: keptHeader(reply.Header), Body: reply.Body}
		if reply.Rest != nil {
			result.Rest = reply.Rest
		}
	} else {
		p := problemOfReply(reply, claim.Honored())
		result.Answer, result.Doubtful = p.answer(claim.ID()), p.outcome == outcomeUnknown
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

// Ended implements idempotency.Sender.
func (s *sending) Ended(end *idempotency.Record, fate idempotency.Fate, callers int64) {
	if fate == idempotency.Unsure {
		emitUnknown(end)
	}
	if callers > 0 {
		return // each of them has its own line
	}
	l := line{ending: endExecuted, orphaned: true, id: end.ID, journal: end.Journal, action: s.action.id,
		organization: s.handler.Organization, took: end.Finished.Sub(end.Started)}
	switch fate {
	case idempotency.Unsure:
		l.ending = endUnknown
	case idempotency.Freed:
		l.ending = endRefused
	}
	if end.Answer != nil {
		l.status = end.Answer.Status
	}
	s.handler.logCall(l)
}

// body returns the body to send under key.
func (s *sending) body(key string) ([]byte, error) {
	inject := s.handler.inject
	if inject == nil {
		return s.action.body, nil
	}
	body, err := inject.Write(s.action.body, key)
	if err != nil {
		return nil, &problemError{slug: slugBodyInvalid, err: err,
			detail: "The key is to be written into the request's body at " + inject.text + ", but: " + err.Error() + "."}
	}
	return body, nil
}

// resolve tells what to do about an upstream's 409: ask the store whether another
// sidecar has got the answer, then go by the policy.
func (s *sending) resolve(ctx context.Context) (genesys.Resolution, error) {
	if answer, ok := s.claim.Answered(ctx); ok && answer != nil {
		return genesys.Resolution{Answer: &genesys.Reply{
			Fate: genesys.Final, Status: answer.Status, Header: answer.Header.HTTP(), Body: answer.Body,
		}}, nil
	}
	if s.handler.OnConflict != conflictNewKey {
		return genesys.Resolution{}, nil
	}
	key := idempotency.RandomKey()
	body, err := s.body(key)
	if err != nil {
		return genesys.Resolution{}, err
	}
	if err := s.claim.Rekey(ctx, key); err != nil {
		return genesys.Resolution{}, fmt.Errorf("recording the new key: %w", err)
	}
	return genesys.Resolution{Key: key, Body: body}, nil
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
