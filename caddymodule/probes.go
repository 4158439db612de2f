package caddymodule

import (
	"context"
	"net/http"
	"time"

	"genesys-sidecar/caddymodule/idempotency"
)

// readyTimeout bounds the look that a probe takes. Kubernetes gives one a second
// unless told otherwise; what is slow to say that it is ready is not.
const readyTimeout = 900 * time.Millisecond

// serveHealth says that the process serves. A restart would mend nothing that it
// could complain of.
func serveHealth(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	return nil
}

// readiness is whether a call would be taken.
type readiness struct {
	Status  string   `json:"status"`
	Reasons []string `json:"reasons,omitempty"`
}

// serveReady says whether a new call would be taken: the store answers and there
// are tokens. It has a token fetched where there is none.
func serveReady(w http.ResponseWriter, r *http.Request) error {
	ready := readiness{Status: "ready"}
	if a := running.Load(); a == nil {
		ready.Reasons = []string{"the configuration has no genesys_cloud and no global option genesys"}
	} else {
		ready.Reasons = a.unready(r.Context())
	}
	status := http.StatusOK
	if len(ready.Reasons) > 0 {
		ready.Status, status = "not ready", http.StatusServiceUnavailable
	}
	writeJSON(w, status, ready)
	return nil
}

// unready returns why a call would not be taken.
func (a *App) unready(ctx context.Context) (reasons []string) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	if _, err := a.backend.store.Get(ctx, idempotency.ID{}); err != nil {
		reasons = append(reasons, "store: "+err.Error())
	}
	for _, o := range a.sortedOrgs() {
		if _, err := o.tokens.Token(ctx); err != nil {
			reasons = append(reasons, "token of "+o.String()+": "+err.Error())
		}
	}
	return reasons
}
