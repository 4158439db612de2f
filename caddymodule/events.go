package caddymodule

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"genesys-sidecar/caddymodule/idempotency"
)

// The events that are emitted through Caddy's app events, for users to hang
// their alarms on.
const (
	// eventUnknownOutcome: nobody can tell whether a call ran. Its data are
	// call (the id), digest (as in the log), organization, action, state
	// (unknown or open), status (the upstream's last, 0: none), attempts and
	// correlation_id.
	eventUnknownOutcome = "unknown_outcome"

	// eventTokenFailing: an organisation's token could not be fetched, for the
	// first time since one was. Its data are organization, rejected (the client
	// is refused, which waiting will not mend) and error.
	eventTokenFailing = "token_failing"

	// eventStoreUnavailable: the store began to fail. Its data are store and
	// error.
	eventStoreUnavailable = "store_unavailable"
)

// event is what is emitted.
type event struct {
	name string
	data map[string]any
}

// events wait to be emitted: subscribers run while Caddy emits one, and no call
// is to wait for them.
var events = make(chan event, 256)

// emitEvents emits what comes, one after the other, for as long as the process
// lives.
var emitEvents = sync.OnceFunc(func() {
	go func() {
		for e := range events {
			if a := inTerm(); a != nil {
				a.events.Emit(a.ctx, e.name, e.data)
			}
		}
	}()
})

// emit has an event emitted. It does not block.
func emit(name string, data map[string]any) {
	emitEvents()
	select {
	case events <- event{name, data}:
	default:
		logger().Warn("too many events wait for their subscribers; one is left out", zap.String("event", name))
	}
}

// maxLeftBehind is how many calls that a crash left behind have an event each.
const maxLeftBehind = 100

// emitLeftBehind emits, once for each time that the store was opened, which calls
// an earlier process has left behind in it. Of a store that is shared nobody can
// tell which of its processes is to say so: there, the metrics do.
func (b *backend) emitLeftBehind() {
	lister, ok := b.store.(idempotency.Lister)
	if _, shared := b.store.(idempotency.SharedStore); !ok || shared || b.leftBehind.Swap(true) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), tallyTimeout)
		defer cancel()
		query := idempotency.Query{States: []idempotency.State{idempotency.Started}, Limit: maxLeftBehind}
		page, err := lister.List(ctx, query)
		if err != nil {
			logger().Error("looking for calls that were left behind", zap.Error(err))
			return
		}
		standings, err := b.gate.Standings(ctx, page.Records)
		if err != nil {
			logger().Error("looking for calls that were left behind", zap.Error(err))
			return
		}
		for i, rec := range page.Records {
			if rec != nil && (standings[i] == idempotency.Unknown || standings[i] == idempotency.Open) {
				left := *rec
				left.State = standings[i]
				emitUnknown(&left)
			}
		}
	}()
}

// emitUnknown emits that nobody can tell whether the call of rec ran.
func emitUnknown(rec *idempotency.Record) {
	data := map[string]any{
		"call":         idText(rec.ID),
		"digest":       rec.ID.String(),
		"organization": organizationName(rec.Label.Organisation),
		"action":       rec.Label.Action,
		"state":        rec.State.String(),
		"attempts":     len(rec.Journal.Attempts) + rec.Journal.Skipped,
		"status":       0,
	}
	if n := len(rec.Journal.Attempts); n > 0 {
		last := rec.Journal.Attempts[n-1]
		data["status"], data["correlation_id"] = last.Status, last.CorrelationID
	}
	emit(eventUnknownOutcome, data)
}
