package caddymodule

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// budgetStatus is how the budget of an organisation stands. Durations are in
// seconds.
type budgetStatus struct {
	// What is configured; 0: no limit.
	Starts      int     `json:"starts"`
	Window      float64 `json:"window"`
	Burst       int     `json:"burst"`
	Concurrency int     `json:"concurrency"`
	Queue       int     `json:"queue"`

	Limit     int     `json:"limit"` // of starts at present
	Used      int     `json:"used"`
	InFlight  int     `json:"in_flight"`
	Waiting   int     `json:"waiting"`
	Oldest    float64 `json:"oldest"`     // how long the one has waited that has waited longest
	NextStart float64 `json:"next_start"` // 0: now
	Held      float64 `json:"held"`       // nothing starts for so long

	Shared   bool `json:"shared"`   // with other sidecars, and can be asked
	Fallback bool `json:"fallback"` // with other sidecars, and cannot
	Sharers  int  `json:"sharers"`

	Scopes []waitingScope `json:"scopes,omitempty"`
}

// waitingScope is how many calls of a scope wait.
type waitingScope struct {
	Scope   string `json:"scope"` // its digest; "" of those that have none
	Waiting int    `json:"waiting"`
}

// budgetStatus returns nil where nothing is limited.
func (o *organization) budgetStatus() *budgetStatus {
	if !o.pacer.Active() {
		return nil
	}
	p := o.pacer.Status()
	s := &budgetStatus{
		Starts: p.Limits.Starts, Window: p.Limits.Window.Seconds(), Burst: p.Limits.BurstSize(),
		Concurrency: p.Limits.Concurrency, Queue: p.Queue,
		Limit: p.Limit, Used: p.Used, InFlight: p.InFlight, Waiting: p.Waiting,
		Oldest: p.Oldest.Seconds(), NextStart: max(0, p.NextSlot).Seconds(), Held: p.Held.Seconds(),
		Shared: p.Shared, Fallback: p.Fallback, Sharers: p.Sharers,
	}
	for _, scope := range p.Scopes {
		s.Scopes = append(s.Scopes, waitingScope(scope))
	}
	return s
}

// backlogStatus is how the calls stand that wait for their turn. Durations are in
// seconds.
type backlogStatus struct {
	Calls    int   `json:"calls"`
	Bytes    int64 `json:"bytes"`
	MaxCalls int   `json:"max_calls"`
	MaxBytes int64 `json:"max_bytes"`

	Oldest time.Time `json:"oldest,omitzero"` // when the first was handed over
	Age    float64   `json:"age"`             // how long ago that was

	LastMinute int     `json:"last_minute"` // how many have ended here
	Drain      float64 `json:"drain"`       // until all are through, if it goes on like that; 0: it cannot be told
}

// depthTimeout bounds how long a store is waited for that is asked how much waits.
const depthTimeout = 2 * time.Second

// backlogStatus returns nil where calls cannot be handed over, or the store does
// not say how many there are.
func (a *App) backlogStatus(now time.Time) *backlogStatus {
	gate := a.backend.gate
	if !gate.Defers() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), depthTimeout)
	defer cancel()
	depth, err := gate.Depth(ctx)
	if err != nil {
		a.log.Debug("asking how many calls wait for their turn", zap.Error(err))
		return nil
	}
	bounds := a.settings.backlog
	s := &backlogStatus{Calls: depth.Calls, Bytes: depth.Bytes, MaxCalls: bounds.Calls, MaxBytes: bounds.Bytes}
	if !depth.Oldest.IsZero() {
		s.Oldest = depth.Oldest.UTC()
		s.Age = max(0, now.Sub(depth.Oldest)).Seconds()
	}
	lastMinute, drain := gate.Throughput()
	s.LastMinute, s.Drain = lastMinute, drain.Seconds()
	return s
}
