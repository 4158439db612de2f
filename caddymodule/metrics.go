package caddymodule

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"genesys-sidecar/caddymodule/genesys"
)

// ending is how a request for a data action ended. It is a label of metrics and
// a field of the log.
type ending uint8

const (
	endExecuted ending = iota // it was sent, and its outcome is known
	endReplayed               // it was told a recorded answer
	endShared                 // it waited for another's call
	endAdopted                // it took the place of a caller who had left
	endUnknown                // it was told that nobody knows
	endRefused                // the upstream refused it before it ran
	endRejected               // the sidecar did not send it; see the problem
	endLeft                   // its caller left before it was told anything
	endAccepted               // it was told where to ask for the answer
	endings
)

var endingNames = [endings]string{"executed", "replayed", "shared", "adopted", "unknown", "refused", "rejected", "left", "accepted"}

func (e ending) String() string { return endingNames[e] }

// meters are the metrics of calls. There is one set in a process, which each
// configuration registers anew with the registry that Caddy makes for it: what
// they count outlives configurations. The labels of all are bounded.
var meters = newMeters()

type callMeters struct {
	calls        *prometheus.CounterVec
	ended        [endings]prometheus.Counter // of calls, but for rejected ones
	callSeconds  [endings]prometheus.Observer
	suppressed   prometheus.Counter
	cacheHits    prometheus.Counter
	attempts     map[genesys.Verdict]prometheus.Counter
	upstream     map[genesys.Verdict]prometheus.Observer
	storeSeconds map[string]prometheus.Observer
	storeErrors  map[string]prometheus.Counter

	all []prometheus.Collector
}

// Buckets in seconds. A replay takes well below a millisecond, a call up to the
// platform's 60 s and what it waits for before.
var (
	callBuckets     = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40, 65, 120}
	upstreamBuckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 16, 20, 40, 65}
	storeBuckets    = []float64{.00001, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5}
)

func newMeters() *callMeters {
	m := &callMeters{
		attempts:     make(map[genesys.Verdict]prometheus.Counter),
		upstream:     make(map[genesys.Verdict]prometheus.Observer),
		storeSeconds: make(map[string]prometheus.Observer),
		storeErrors:  make(map[string]prometheus.Counter),
	}
	m.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "genesys", Name: "calls_total",
		Help: "Requests for data actions, by how they ended; those that the sidecar rejected, by the problem that they were told.",
	}, []string{"outcome", "problem"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "genesys", Name: "call_duration_seconds",
		Help:    "How long requests for data actions took, by how they ended.",
		Buckets: callBuckets,
	}, []string{"outcome"})
	for e := range endings {
		m.callSeconds[e] = seconds.WithLabelValues(e.String())
		if e != endRejected {
			m.ended[e] = m.calls.WithLabelValues(e.String(), "")
		}
	}
	for slug := range problemKinds { // so that the first of its kind is seen to be one more
		m.calls.WithLabelValues(endRejected.String(), slug)
	}
	m.suppressed = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "genesys", Name: "duplicates_suppressed_total",
		Help: "Requests for data actions that repeated a call and were told of that, without being sent.",
	})
	m.cacheHits = prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "genesys", Name: "cache_hits_total",
		Help: "Requests for data actions that were answered from memory, without asking the store.",
	})
	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "genesys", Name: "attempts_total",
		Help: "Attempts to run a data action, by what they came to; what was retried was sent again.",
	}, []string{"verdict"})
	upstream := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "genesys", Name: "upstream_duration_seconds",
		Help:    "How long attempts to run a data action took, until the answer was read.",
		Buckets: upstreamBuckets,
	}, []string{"verdict"})
	for _, v := range genesys.Verdicts {
		m.attempts[v] = attempts.WithLabelValues(string(v))
		m.upstream[v] = upstream.WithLabelValues(string(v))
	}
	storeSeconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: "genesys", Name: "store_duration_seconds",
		Help:    "How long operations of the store took, until their change was durable.",
		Buckets: storeBuckets,
	}, []string{"operation"})
	storeErrors := prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "genesys", Name: "store_errors_total",
		Help: "Operations that the store failed.",
	}, []string{"operation"})
	for _, op := range storeOperations {
		m.storeSeconds[op] = storeSeconds.WithLabelValues(op)
		m.storeErrors[op] = storeErrors.WithLabelValues(op)
	}
	m.all = []prometheus.Collector{m.calls, seconds, m.suppressed, m.cacheHits, attempts, upstream, storeSeconds, storeErrors, gauges{}}
	return m
}

// registerMetrics adds the app's metrics to those that Caddy serves.
func registerMetrics(ctx caddy.Context) error {
	for _, c := range meters.all {
		var registered prometheus.AlreadyRegisteredError
		if err := ctx.GetMetricsRegistry().Register(c); err != nil && !errors.As(err, &registered) {
			return fmt.Errorf("registering metrics: %w", err)
		}
	}
	return nil
}

// gauges are what is looked at when metrics are asked for, of the configuration
// in force.
type gauges struct{}

var (
	descInFlight = prometheus.NewDesc("genesys_calls_in_flight",
		"Calls under way in this process.", nil, nil)
	descWaiters = prometheus.NewDesc("genesys_waiters",
		"Requests that wait for a call under way, the calls' own included.", nil, nil)
	descUnrecorded = prometheus.NewDesc("genesys_unrecorded_calls",
		"Calls that are over and whose outcome the store has not taken yet; it is told again until it does.", nil, nil)
	descUnresolved = prometheus.NewDesc("genesys_unresolved_calls",
		"Calls on record whose outcome is not known: state unknown is for an operator to resolve, open can be repeated under its key, started is under way or was left behind.",
		[]string{"state"}, nil)
	descStoreUp = prometheus.NewDesc("genesys_store_up",
		"1 if the store's last operation succeeded, 0 if it failed.", nil, nil)
	descTokens = prometheus.NewDesc("genesys_token_refreshes_total",
		"Tokens that were fetched.", []string{"organization"}, nil)
	descTokenFailures = prometheus.NewDesc("genesys_token_failures_total",
		"Fetches of a token that failed.", []string{"organization"}, nil)
	descTokenExpiry = prometheus.NewDesc("genesys_token_expiry_timestamp_seconds",
		"When the current token expires; 0: there is none.", []string{"organization"}, nil)
	descPauses = prometheus.NewDesc("genesys_pauses_total",
		"How often the platform has asked the organisation to pause.", []string{"organization"}, nil)
	descPause = prometheus.NewDesc("genesys_pause_seconds",
		"How long the organisation's calls are paused from now on; 0: they are not.", []string{"organization"}, nil)
)

// Describe implements prometheus.Collector.
func (gauges) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descInFlight, descWaiters, descUnrecorded, descUnresolved, descStoreUp,
		descTokens, descTokenFailures, descTokenExpiry, descPauses, descPause} {
		descs <- d
	}
	describeBudgets(descs)
}

// Collect implements prometheus.Collector.
func (gauges) Collect(metrics chan<- prometheus.Metric) {
	a := running.Load()
	if a == nil {
		return
	}
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	counter := func(desc *prometheus.Desc, value uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(value), labels...)
	}
	gate := a.backend.gate
	gauge(descInFlight, float64(gate.InFlight()))
	gauge(descWaiters, float64(gate.Waiters()))
	gauge(descUnrecorded, float64(gate.Unrecorded()))
	up := 1.0
	if a.backend.health.failure.Load() != nil {
		up = 0
	}
	gauge(descStoreUp, up)
	for state, n := range a.backend.tally() {
		gauge(descUnresolved, float64(n), state.String())
	}
	now := time.Now()
	for _, o := range a.orgs {
		name := o.label()
		token := o.tokens.Status()
		counter(descTokens, token.Generation, name)
		counter(descTokenFailures, o.failures.Load(), name)
		expiry := 0.0
		if token.Expires.After(now) {
			expiry = float64(token.Expires.UnixMilli()) / 1000
		}
		gauge(descTokenExpiry, expiry, name)
		counter(descPauses, o.pause.Count(), name)
		left, _ := o.pause.Remaining(now)
		gauge(descPause, left.Seconds(), name)
		collectBudget(gauge, o.budgetStatus(), name)
	}
	if b := a.backlogStatus(now); b != nil {
		collectBacklog(gauge, b)
		counter(descBacklogEnded, gate.Served())
	}
}
