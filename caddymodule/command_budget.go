package caddymodule

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// toldBudget is what the admin API tells of an organisation's budget.
type toldBudget struct {
	Starts      int     `json:"starts"`
	Window      float64 `json:"window"`
	Concurrency int     `json:"concurrency"`
	Limit       int     `json:"limit"`
	Used        int     `json:"used"`
	InFlight    int     `json:"in_flight"`
	Waiting     int     `json:"waiting"`
	Queue       int     `json:"queue"`
	Oldest      float64 `json:"oldest"`
	NextStart   float64 `json:"next_start"`
	Held        float64 `json:"held"`
	Shared      bool    `json:"shared"`
	Fallback    bool    `json:"fallback"`
	Sharers     int     `json:"sharers"`
	Scopes      []struct {
		Scope   string `json:"scope"`
		Waiting int    `json:"waiting"`
	} `json:"scopes"`
}

// toldBacklog is what the admin API tells of the calls that wait for their turn.
type toldBacklog struct {
	Calls      int     `json:"calls"`
	Bytes      int64   `json:"bytes"`
	MaxCalls   int     `json:"max_calls"`
	MaxBytes   int64   `json:"max_bytes"`
	Age        float64 `json:"age"`
	LastMinute int     `json:"last_minute"`
	Drain      float64 `json:"drain"`
}

// budgets prints how the organisations' budgets stand, as far as they have one.
func (p *printer) budgets(s *toldStatus) {
	head := "budget"
	for _, o := range s.Organizations {
		if o.Budget == nil {
			continue
		}
		name := ""
		if o.Name != "" {
			name = o.Name + ": "
		}
		for i, text := range o.Budget.lines() {
			if i > 0 {
				name = ""
			}
			p.line("%-8s %s%s", head, name, text)
			head = ""
		}
	}
}

// lines says how the budget stands.
func (b *toldBudget) lines() []string {
	var parts []string
	if b.Starts > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d starts used in %s", b.Used, b.Limit, inSeconds(b.Window)))
	}
	if b.Concurrency > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d at a time", b.InFlight, b.Concurrency))
	}
	next := "the next starts now"
	if b.NextStart > 0 {
		next = "the next starts in " + inSeconds(b.NextStart)
	}
	if b.Waiting > 0 {
		parts = append(parts, fmt.Sprintf("%d of at most %d wait, the first for %s", b.Waiting, b.Queue, inSeconds(b.Oldest)))
	} else {
		parts = append(parts, "nobody waits")
	}
	lines := []string{strings.Join(append(parts, next), "; ")}
	switch {
	case b.Fallback:
		lines = append(lines, "the fleet's Redis does not answer: this sidecar keeps to its share")
	case b.Shared:
		lines = append(lines, fmt.Sprintf("shared by %d sidecars", max(1, b.Sharers)))
	}
	if b.Held > 0 {
		lines = append(lines, "the platform has answered 429: nothing starts for "+inSeconds(b.Held))
	}
	if b.Limit < b.Starts && !b.Fallback {
		lines = append(lines, fmt.Sprintf("the platform has answered 429: %d of the %d starts until that has passed", b.Limit, b.Starts))
	}
	for _, scope := range b.Scopes {
		if scope.Scope != "" && len(b.Scopes) > 1 {
			lines = append(lines, fmt.Sprintf("scope %s: %d wait", scope.Scope, scope.Waiting))
		}
	}
	return lines
}

// backlog prints how the calls stand that wait for their turn.
func (p *printer) backlog(b *toldBacklog) {
	if b == nil {
		return
	}
	if b.Calls == 0 {
		p.line("backlog  no call waits for its turn; %d have ended in the last minute", b.LastMinute)
		return
	}
	drain := "when it is through cannot be told yet"
	if b.Drain > 0 {
		drain = "through in " + roughly(time.Duration(b.Drain*float64(time.Second)))
	}
	p.line("backlog  %d of at most %d calls wait for their turn (%s of %s), the first for %s; %d have ended in the last minute; %s",
		b.Calls, b.MaxCalls, humanize.IBytes(uint64(b.Bytes)), humanize.IBytes(uint64(b.MaxBytes)),
		roughly(time.Duration(b.Age*float64(time.Second))), b.LastMinute, drain)
}
