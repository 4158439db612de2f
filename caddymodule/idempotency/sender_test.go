package idempotency_test

import (
	"context"

	"genesys-sidecar/caddymodule/idempotency"
)

// sender is an idempotency.Sender of functions.
type sender struct {
	prepare  func(context.Context) error // nil: there is nothing to prepare
	prepared func() bool                 // where there is nothing to prepare; nil: it is asked to all the same
	abandon  func()
	send     func(context.Context, *idempotency.Claim) idempotency.Result
	ended    func(end *idempotency.Record, fate idempotency.Fate, callers int64)
}

// of returns the sender of call, to be changed for call alone.
func of(call *idempotency.Call) *sender {
	own := *call.Sender.(*sender)
	call.Sender = &own
	return &own
}

func (s *sender) Fits() error { return nil }

func (s *sender) Prepared() bool { return s.prepare == nil && s.prepared != nil && s.prepared() }

func (s *sender) Prepare(ctx context.Context) error {
	if s.prepare == nil {
		return nil
	}
	return s.prepare(ctx)
}

func (s *sender) Abandon() {
	if s.abandon != nil {
		s.abandon()
	}
}

func (s *sender) Send(ctx context.Context, claim *idempotency.Claim) idempotency.Result {
	return s.send(ctx, claim)
}

func (s *sender) Ended(end *idempotency.Record, fate idempotency.Fate, callers int64) {
	if s.ended != nil {
		s.ended(end, fate, callers)
	}
}
