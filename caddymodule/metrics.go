package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// registerMetrics adds the app's metrics to those that Caddy serves. Caddy has a
// registry for each configuration; what the metrics tell outlives it.
func (a *App) registerMetrics(ctx caddy.Context) error {
	unrecorded := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "genesys",
		Name:      "unrecorded_calls",
		Help:      "Calls that are over and whose outcome the store has not taken yet; it is told again until it does.",
	}, func() float64 { return float64(a.backend.gate.Unrecorded()) })
	if err := ctx.GetMetricsRegistry().Register(unrecorded); err != nil {
		return fmt.Errorf("registering metrics: %w", err)
	}
	return nil
}
