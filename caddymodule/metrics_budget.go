package caddymodule

import "github.com/prometheus/client_golang/prometheus"

// What is told of an organisation's budget, where it has one.
var (
	descBudgetStarts = newBudgetDesc("starts",
		"How many requests may start per window, as configured by pace.")
	descBudgetLimit = newBudgetDesc("limit",
		"How many requests may start per window at present: fewer after a 429 of the platform, or while a fleet's Redis cannot be asked.")
	descBudgetUsed = newBudgetDesc("used",
		"Requests that have started in the window, those of other sidecars included where they share the budget.")
	descBudgetInFlight = newBudgetDesc("in_flight",
		"Data actions under way that take a place of concurrency, likewise.")
	descBudgetWaiting = newBudgetDesc("waiting",
		"Calls that wait for the budget in this process.")
	descBudgetOldest = newBudgetDesc("oldest_seconds",
		"How long the call has waited for the budget that has waited longest; 0: none does.")
	descBudgetNext = newBudgetDesc("next_start_seconds",
		"How long it is until the next request can start; 0: it can now.")
	descBudgetFallback = newBudgetDesc("fallback",
		"1 while the budget is shared with other sidecars and cannot be asked, so that this one keeps to its share, else 0.")

	budgetDescs = []*prometheus.Desc{descBudgetStarts, descBudgetLimit, descBudgetUsed, descBudgetInFlight,
		descBudgetWaiting, descBudgetOldest, descBudgetNext, descBudgetFallback}
)

// What is told of the calls that were handed over.
var (
	descBacklogCalls = newBacklogDesc("calls",
		"Calls that were handed over and wait for their turn, in the whole store.")
	descBacklogBytes = newBacklogDesc("bytes",
		"How large the requests are together that wait for their turn.")
	descBacklogLimitCalls = newBacklogDesc("limit_calls",
		"How many calls may wait for their turn.")
	descBacklogLimitBytes = newBacklogDesc("limit_bytes",
		"How large the requests may be together that wait for their turn.")
	descBacklogOldest = newBacklogDesc("oldest_seconds",
		"How long the first of the calls has waited for its turn; 0: there is none.")
	descBacklogDrain = newBacklogDesc("drain_seconds",
		"How long it takes until those calls are through that are this process's to send, at the pace of the last minute; 0: there are none, or it cannot be told.")
	descBacklogEnded = newBacklogDesc("ended_total",
		"Calls that were handed over and have ended, in this process.")

	backlogDescs = []*prometheus.Desc{descBacklogCalls, descBacklogBytes, descBacklogLimitCalls, descBacklogLimitBytes,
		descBacklogOldest, descBacklogDrain, descBacklogEnded}
)

func newBudgetDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("genesys_budget_"+name, help, []string{"organization"}, nil)
}

func newBacklogDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("genesys_backlog_"+name, help, nil, nil)
}

func describeBudgets(descs chan<- *prometheus.Desc) {
	for _, all := range [][]*prometheus.Desc{budgetDescs, backlogDescs} {
		for _, d := range all {
			descs <- d
		}
	}
}

// collectBudget tells how the budget of an organisation stands; nil: it has none.
func collectBudget(gauge func(*prometheus.Desc, float64, ...string), b *budgetStatus, organization string) {
	if b == nil {
		return
	}
	if b.Starts > 0 {
		gauge(descBudgetStarts, float64(b.Starts), organization)
		gauge(descBudgetLimit, float64(b.Limit), organization)
		gauge(descBudgetUsed, float64(b.Used), organization)
	}
	gauge(descBudgetInFlight, float64(b.InFlight), organization)
	gauge(descBudgetWaiting, float64(b.Waiting), organization)
	gauge(descBudgetOldest, b.Oldest, organization)
	gauge(descBudgetNext, b.NextStart, organization)
	fallback := 0.0
	if b.Fallback {
		fallback = 1
	}
	gauge(descBudgetFallback, fallback, organization)
}

func collectBacklog(gauge func(*prometheus.Desc, float64, ...string), b *backlogStatus) {
	gauge(descBacklogCalls, float64(b.Calls))
	gauge(descBacklogBytes, float64(b.Bytes))
	gauge(descBacklogLimitCalls, float64(b.MaxCalls))
	gauge(descBacklogLimitBytes, float64(b.MaxBytes))
	gauge(descBacklogOldest, b.Age)
	gauge(descBacklogDrain, b.Drain)
}
