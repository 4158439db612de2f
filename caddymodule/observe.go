package caddymodule

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// The operations of a store that calls wait for.
const (
	opGet     = "get"
	opClaim   = "claim"
	opFinish  = "finish"
	opRelease = "release"
	opEnqueue = "enqueue"
)

var storeOperations = []string{opGet, opClaim, opFinish, opRelease, opEnqueue}

// observed returns store with its operations measured, and what they come to
// noted in h.
func observed(store idempotency.Store, h *health) idempotency.Store {
	o := observedStore{store, h}
	clock, hasClock := store.(idempotency.Clock)
	shared, isShared := store.(idempotency.SharedStore)
	switch {
	case isShared && hasClock:
		return observedSharedClock{observedShared{shared, o}, clock}
	case isShared:
		return observedShared{shared, o}
	case hasClock:
		return observedClock{o, clock}
	default:
		return o
	}
}

// Backlog returns the backlog that the store is, with its operations measured, or
// nil. idempotency.BacklogOf asks for it: one more thing that a store may be or not
// would double the types below.
func (o observedStore) Backlog() idempotency.Backlog {
	if backlog, ok := o.Store.(idempotency.Backlog); ok {
		return observedBacklog{backlog, o}
	}
	return nil
}

// observedBacklog measures the operations of a store that has a backlog.
type observedBacklog struct {
	idempotency.Backlog
	observed observedStore
}

func (o observedBacklog) Enqueue(
	ctx context.Context, rec *idempotency.Record, over idempotency.Owner, bounds idempotency.Bounds,
) (*idempotency.Record, error) {
	began := time.Now()
	standing, err := o.Backlog.Enqueue(ctx, rec, over, bounds)
	o.observed.note(opEnqueue, began, err)
	return standing, err
}

func (o observedBacklog) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	return o.observed.Get(ctx, id)
}

func (o observedBacklog) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	return o.observed.Claim(ctx, rec, over)
}

func (o observedBacklog) Finish(ctx context.Context, rec *idempotency.Record) error {
	return o.observed.Finish(ctx, rec)
}

func (o observedBacklog) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	return o.observed.Release(ctx, id, owner)
}

// observedStore measures the operations of a store.
type observedStore struct {
	idempotency.Store
	health *health
}

// The gate asks what else a store is by its type.
type (
	observedClock struct {
		observedStore
		idempotency.Clock
	}
	observedShared struct {
		idempotency.SharedStore
		observed observedStore
	}
	observedSharedClock struct {
		observedShared
		idempotency.Clock
	}
)

func (o observedStore) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	began := time.Now()
	rec, err := o.Store.Get(ctx, id)
	o.note(opGet, began, err)
	return rec, err
}

func (o observedStore) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	began := time.Now()
	standing, err := o.Store.Claim(ctx, rec, over)
	o.note(opClaim, began, err)
	return standing, err
}

func (o observedStore) Finish(ctx context.Context, rec *idempotency.Record) error {
	began := time.Now()
	err := o.Store.Finish(ctx, rec)
	o.note(opFinish, began, err)
	return err
}

func (o observedStore) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	began := time.Now()
	err := o.Store.Release(ctx, id, owner)
	o.note(opRelease, began, err)
	return err
}

// Backlog is that of observedStore.
func (o observedShared) Backlog() idempotency.Backlog { return o.observed.Backlog() }

func (o observedShared) Get(ctx context.Context, id idempotency.ID) (*idempotency.Record, error) {
	return o.observed.Get(ctx, id)
}

func (o observedShared) Claim(ctx context.Context, rec *idempotency.Record, over idempotency.Owner) (*idempotency.Record, error) {
	return o.observed.Claim(ctx, rec, over)
}

func (o observedShared) Finish(ctx context.Context, rec *idempotency.Record) error {
	return o.observed.Finish(ctx, rec)
}

func (o observedShared) Release(ctx context.Context, id idempotency.ID, owner idempotency.Owner) error {
	return o.observed.Release(ctx, id, owner)
}

// note takes down what an operation came to. That a record is another's, that a
// store of limited size or a backlog is full, or that a caller has left, is not its failing.
func (o observedStore) note(op string, began time.Time, err error) {
	meters.storeSeconds[op].Observe(time.Since(began).Seconds())
	switch {
	case err == nil:
		o.health.works()
	case errors.Is(err, idempotency.ErrNotOwner), errors.Is(err, idempotency.ErrFull), errors.Is(err, idempotency.ErrBacklogFull),
		errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded) && time.Since(began) < time.Second:
		// The call's own time was up when it began.
	default:
		meters.storeErrors[op].Inc()
		o.health.fails(err)
	}
}

// health is whether a store works, by what came of its last operations.
type health struct {
	failure atomic.Pointer[failure] // nil: it works

	// failed is called when a store begins to fail, once each time.
	failed func(error)
}

// failure is why something fails and since when.
type failure struct {
	err   error
	since time.Time
}

func (h *health) works() {
	if h.failure.Load() != nil {
		h.failure.Store(nil)
	}
}

func (h *health) fails(err error) {
	former := h.failure.Load()
	f := &failure{err, time.Now()}
	if former != nil {
		f.since = former.since
	}
	if h.failure.CompareAndSwap(former, f) && former == nil && h.failed != nil {
		h.failed(err)
	}
}

// Interface guards
var (
	_ idempotency.Store       = observedStore{}
	_ idempotency.Clock       = observedClock{}
	_ idempotency.SharedStore = observedShared{}
	_ idempotency.SharedStore = observedSharedClock{}
	_ idempotency.Backlog     = observedBacklog{}
)
