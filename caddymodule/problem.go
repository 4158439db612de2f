package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"genesys-sidecar/caddymodule/genesys"
	"genesys-sidecar/caddymodule/idempotency"
	"genesys-sidecar/caddymodule/pacing"
)

// The sidecar's own errors.
const (
	slugKeyRequired         = "key-required"
	slugKeyInvalid          = "key-invalid"
	slugKeyInUse            = "key-in-use"
	slugKeyReused           = "key-reused"
	slugUpstreamConflict    = "upstream-conflict"
	slugResultUnavailable   = "result-unavailable"
	slugRequestTooLarge     = "request-too-large"
	slugBodyInvalid         = "body-invalid"
	slugRateLimited         = "rate-limited"
	slugUpstreamUnavailable = "upstream-unavailable"
	slugUpstreamTimeout     = "upstream-timeout"
	slugTokenUnavailable    = "token-unavailable"
	slugStoreUnavailable    = "store-unavailable"
	slugOverloaded          = "overloaded"
	slugCredentialsRejected = "credentials-rejected"
	slugLoopDetected        = "loop-detected" // genesys.LoopCode
	slugCallNotFound        = "call-not-found"
	slugCallStarted         = "call-started"
	slugCallReleased        = "call-released"
)

// problemKinds has the status and the title of each.
var problemKinds = map[string]struct {
	status int
	title  string
}{
	slugKeyRequired:         {http.StatusBadRequest, "An idempotency key is required"},
	slugKeyInvalid:          {http.StatusBadRequest, "The idempotency key is invalid"},
	slugKeyInUse:            {http.StatusConflict, "The first call with this key is still under way"},
	slugKeyReused:           {http.StatusUnprocessableEntity, "The key was used for another request"},
	slugUpstreamConflict:    {http.StatusConflict, "The upstream rejects the key"},
	slugResultUnavailable:   {http.StatusConflict, "The call's answer was not kept"},
	slugRequestTooLarge:     {http.StatusRequestEntityTooLarge, "The request is too large"},
	slugBodyInvalid:         {http.StatusBadRequest, "The request's body is invalid"},
	slugRateLimited:         {http.StatusTooManyRequests, "The organisation's rate limit is used up"},
	slugUpstreamUnavailable: {http.StatusBadGateway, "The upstream gave no usable answer"},
	slugUpstreamTimeout:     {http.StatusGatewayTimeout, "The upstream did not answer in time"},
	slugTokenUnavailable:    {http.StatusServiceUnavailable, "No access token can be had"},
	slugStoreUnavailable:    {http.StatusServiceUnavailable, "The store of answers does not work"},
	slugOverloaded:          {http.StatusServiceUnavailable, "Too many calls are under way"},
	slugCredentialsRejected: {http.StatusBadGateway, "The login service rejects the OAuth client"},
	slugCallNotFound:        {http.StatusNotFound, "There is no such call"},
	slugCallStarted:         {http.StatusConflict, "The call's turn has come"},
	slugCallReleased:        {http.StatusGone, "The call did not run"},
	slugLoopDetected:        {http.StatusLoopDetected, "The request has come back to the sidecar"},
}

// outcome is what is known about whether a call ran.
type outcome string

const (
	outcomeNotExecuted outcome = "not_executed"
	outcomeExecuted    outcome = "executed"
	outcomeUnknown     outcome = "unknown"
)

// problem is the body of the sidecar's own errors: problem details (RFC 9457)
// and the platform's ErrorBody in one, so that its SDKs can read it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	Message   string `json:"message"`
	Code      string `json:"code"`
	ContextID string `json:"contextId"`
	Details   []any  `json:"details"`
	Errors    []any  `json:"errors"`

	Outcome        outcome `json:"outcome,omitempty"`
	Retryable      bool    `json:"retryable"`
	SafeNewKey     *bool   `json:"safe_new_key,omitempty"`
	UpstreamStatus int     `json:"upstream_status,omitempty"`
}

// problemError is an error that its caller is told as a problem.
type problemError struct {
	slug           string
	detail         string
	outcome        outcome // "": it says nothing about a call
	retryable      bool
	retryAfter     time.Duration
	upstreamStatus int
	err            error
}

func (e *problemError) Error() string {
	if e.err != nil {
		return e.slug + ": " + e.err.Error()
	}
	return e.slug
}

func (e *problemError) Unwrap() error { return e.err }

// answer returns the problem as an answer. id names the call that it is about:
// whoever is told the same about the same call is told it in the same words.
func (e *problemError) answer(id idempotency.ID) *idempotency.Answer {
	kind := problemKinds[e.slug]
	contextID := uuid.NewString()
	if id != (idempotency.ID{}) {
		contextID = uuid.NewSHA1(uuid.Nil, id[:]).String()
	}
	p := problem{
		Type:           "urn:genesys-sidecar:problem:" + e.slug,
		Title:          kind.title,
		Status:         kind.status,
		Detail:         e.detail,
		Message:        e.detail,
		Code:           strings.ReplaceAll(e.slug, "-", "."),
		ContextID:      contextID,
		Details:        []any{},
		Errors:         []any{},
		Outcome:        e.outcome,
		Retryable:      e.retryable,
		UpstreamStatus: e.upstreamStatus,
	}
	if e.outcome != "" {
		safe := e.outcome == outcomeNotExecuted
		p.SafeNewKey = &safe
	}
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // it holds nothing that cannot be marshalled
	}
	header := http.Header{
		"Content-Type":        {"application/problem+json"},
		"Cache-Control":       {"no-store"},
		"Inin-Correlation-Id": {contextID},
	}
	if e.retryAfter > 0 {
		header.Set("Retry-After", seconds(e.retryAfter))
	}
	return &idempotency.Answer{Status: kind.status, Header: idempotency.NewHeader(header), Body: append(body, '\n')}
}

// seconds returns d as whole seconds, rounded up: never earlier than said.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// refuse tells the caller why its request went no further. key is the one it
// is known by, if any.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, key string, err error) error {
	if r.Context().Err() != nil {
		// The caller has left, or has at least closed its half of the
		// connection. Returning would answer 200, which is not what happened.
		panic(http.ErrAbortHandler)
	}
	// Caddy would log an error that is returned, and the request's header with
	// it, where the key stands.
	p := problemOf(err)
	if key != "" {
		w.Header().Set("Idempotency-Key", idempotency.FormatKey(key))
	}
	return writeAnswer(w, p.answer(idempotency.ID{}), nil)
}

// problemOf returns the problem that err of the gate or the invoker means.
func problemOf(err error) *problemError {
	p := problemAlone(err)
	switch {
	case errors.Is(err, idempotency.ErrUnresolved):
		p.outcome = outcomeUnknown
		p.detail += " Whether the call ran when it was sent before is still unknown."
	case p.outcome == outcomeNotExecuted:
		p.detail += " Nothing was sent."
	}
	return p
}

// problemAlone is problemOf but for what it says about an earlier attempt.
func problemAlone(err error) *problemError {
	var p *problemError
	var paused *genesys.PausedError
	var late *pacing.LateError
	var token *genesys.TokenError
	switch {
	case errors.As(err, &p):
		own := *p
		return &own
	case errors.Is(err, idempotency.ErrKeyReused):
		return &problemError{slug: slugKeyReused, err: err,
			detail: "The idempotency key belongs to another request: method, path, query, media type or body differ from those it was first used with. Send the request as it was, or use a new key for a new call."}
	case errors.Is(err, idempotency.ErrInUse):
		return &problemError{slug: slugKeyInUse, err: err, retryable: true, retryAfter: 2 * time.Second,
			detail: "The first call with this key has not ended yet. Repeat the request with the same key to get its answer."}
	case errors.Is(err, idempotency.ErrNoRecord):
		return &problemError{slug: slugCallNotFound, err: err,
			detail: "No call of this caller's is on record here. Answers are kept for as long as retention says."}
	case errors.Is(err, idempotency.ErrUnderWay), errors.Is(err, idempotency.ErrKnown):
		return &problemError{slug: slugCallStarted, err: err,
			detail: "The call cannot be cancelled any more: it is under way, or has ended. GET tells what has become of it."}
	case errors.Is(err, idempotency.ErrReleased):
		return &problemError{slug: slugCallReleased, err: err, outcome: outcomeNotExecuted,
			detail: "The call was cancelled before its turn had come, or an operator has said that it did not run. Its key is free."}
	case errors.Is(err, idempotency.ErrBacklogFull):
		return &problemError{slug: slugOverloaded, err: err, outcome: outcomeNotExecuted, retryable: true, retryAfter: 10 * time.Second,
			detail: "The sidecar has as many calls waiting for their turn as it may; this one was not accepted."}
	case errors.Is(err, idempotency.ErrResultUnavailable):
		var gone *idempotency.ResultUnavailableError
		if errors.As(err, &gone) && gone.Status >= http.StatusBadRequest {
			return &problemError{slug: slugResultUnavailable, err: err, outcome: outcomeUnknown, upstreamStatus: gone.Status,
				detail: fmt.Sprintf("The upstream answered %d, but that answer was too large to be kept, or had to make room. Whether the call ran is unknown here. It is not sent again: look in the system that the action changes.", gone.Status)}
		}
		return &problemError{slug: slugResultUnavailable, err: err, outcome: outcomeExecuted,
			detail: "The call ran, but its answer was too large to be kept, or had to make room. It is not run again."}
	case errors.Is(err, idempotency.ErrOverloaded):
		// Whether a call with this key has run before was not even looked up.
		return &problemError{slug: slugOverloaded, err: err, retryable: true, retryAfter: time.Second,
			detail: "The sidecar has as many calls under way, or in a store of limited size, as it can hold. Nothing was sent for this request."}
	case errors.Is(err, idempotency.ErrClosed), errors.Is(err, idempotency.ErrStore):
		return &problemError{slug: slugStoreUnavailable, err: err, retryable: true, retryAfter: 5 * time.Second,
			detail: "The store of answers does not work, and what cannot be recorded is not sent. The sidecar's log tells what is wrong with it."}
	case errors.As(err, &paused):
		return &problemError{slug: slugRateLimited, err: err, outcome: outcomeNotExecuted, retryable: true,
			retryAfter: max(time.Until(paused.Until), time.Second),
			detail:     "The platform has asked this organisation to pause, for longer than the call may take."}
	case errors.As(err, &late):
		detail := "The organisation's budget is used up, and the call cannot start before its deadline."
		if late.Reason != pacing.PastDeadline {
			detail = "The organisation's budget is used up, and as many calls wait for it as may."
		}
		return &problemError{slug: slugRateLimited, err: err, outcome: outcomeNotExecuted, retryable: true,
			retryAfter: max(late.RetryAfter, time.Second), detail: detail}
	case errors.As(err, &token) && token.Rejected:
		return &problemError{slug: slugCredentialsRejected, err: err, outcome: outcomeNotExecuted, retryable: true,
			retryAfter: max(token.RetryAfter, time.Second),
			detail:     "The login service rejects the sidecar's OAuth client. Check its id, its secret, its grant type (client credentials) and the region."}
	case errors.As(err, &token), errors.Is(err, context.DeadlineExceeded):
		retryAfter := time.Second
		if token != nil {
			retryAfter = max(token.RetryAfter, retryAfter)
		}
		return &problemError{slug: slugTokenUnavailable, err: err, outcome: outcomeNotExecuted, retryable: true,
			retryAfter: retryAfter,
			detail:     "The login service gives no access token at the moment."}
	default:
		return &problemError{slug: slugOverloaded, err: err, retryable: true, retryAfter: time.Second,
			detail: "The sidecar could not take the call. Its log tells why."}
	}
}

// problemOfReply returns the problem that a reply without an answer means.
func problemOfReply(reply genesys.Reply, honored bool) *problemError {
	p := &problemError{slug: slugUpstreamUnavailable, upstreamStatus: reply.Status, err: reply.Err}
	var what string
	switch reply.Cause {
	case genesys.Unreachable:
		what = "The upstream could not be reached."
		if reply.Fate == genesys.Unknown {
			what = "An attempt may have arrived; then the upstream could not be reached any more."
		}
	case genesys.TimedOut:
		p.slug = slugUpstreamTimeout
		what = "The upstream did not answer in time."
	case genesys.GaveUp:
		what = fmt.Sprintf("The upstream answered %d to the last of %d attempts.", reply.Status, reply.Attempts)
	case genesys.Conflicted:
		p.slug = slugUpstreamConflict
		what = "The upstream answered 409: it knows the key from a call that failed, from another request, or from one that is still running."
	case genesys.Paused, genesys.NoToken:
		p = problemAlone(reply.Err)
		what = p.detail
	default:
		what = "The connection to the upstream was lost before its answer was complete."
	}
	if reply.Cause == genesys.Conflicted && reply.Fate == genesys.NotRun {
		// This attempt did not run; of the one that the upstream remembers
		// nothing is known here. Sent again, it would come to the same.
		p.outcome, p.detail = outcomeUnknown, what+" Whether that call ran is unknown here. The key is free again at the sidecar, but not at the upstream."
		return p
	}
	p.outcome, p.retryable, p.detail = advice(reply.Fate == genesys.NotRun, honored, what)
	return p
}

// leftBehind is the problem of a call that was started, and of which nothing is
// kept that could be told: the sidecar ended while it ran, or what the upstream
// said was too large.
func leftBehind() *problemError {
	p := &problemError{slug: slugUpstreamUnavailable}
	p.outcome, p.retryable, p.detail = advice(false, false, "The call was started, and no answer to it is recorded.")
	return p
}

// advice completes the sentence what by what is known of the call, and by what
// its caller may do.
func advice(notRun, honored bool, what string) (outcome, bool, string) {
	switch {
	case notRun:
		return outcomeNotExecuted, true, what + " The call did not run, and may be repeated."
	case honored:
		return outcomeUnknown, true, what + " Whether the call ran is unknown. Repeat it with the same key: the upstream honors that, and will not run it twice."
	default:
		return outcomeUnknown, false, what + " Whether the call ran is unknown, so that it is not sent again: look in the system that the action changes. Every repeat with this key gets this same answer."
	}
}
