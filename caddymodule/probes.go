package caddymodule

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// serveReady says whether a new call would be taken: the store answers, and there
// is a token for some organisation. It has one fetched where there is none.
func serveReady(w http.ResponseWriter, r *http.Request) error {
	return answerReady(w, r, func(reasons []string) []string { return reasons })
}

// serveBriefReady is serveReady for those who need not know more.
func serveBriefReady(w http.ResponseWriter, r *http.Request) error {
	return answerReady(w, r, withoutDetails)
}

func answerReady(w http.ResponseWriter, r *http.Request, tell func(reasons []string) []string) error {
	ready := readiness{Status: "ready"}
	if a := running.Load(); a == nil {
		ready.Reasons = []string{"the configuration has no genesys_cloud and no global option genesys"}
	} else {
		ready.Reasons = tell(a.unready(r.Context()))
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
	orgs := a.sortedOrgs()
	errs := make([]error, len(orgs))
	var asking sync.WaitGroup
	for i, o := range orgs {
		asking.Go(func() { _, errs[i] = o.tokens.Token(ctx) })
	}
	store := observedStore{a.backend.store, a.backend.health}
	if _, err := store.Get(ctx, idempotency.ID{}); err != nil {
		reasons = append(reasons, "store: "+err.Error())
	}
	asking.Wait()
	if slices.Contains(errs, nil) {
		return reasons // one organisation that cannot be called is no reason to stop the others
	}
	for i, o := range orgs {
		reasons = append(reasons, "token of "+o.String()+": "+errs[i].Error())
	}
	return reasons
}

// withoutDetails returns reasons without what is not for everybody: addresses,
// directories, what a login service says.
func withoutDetails(reasons []string) []string {
	brief := make([]string, len(reasons))
	for i, reason := range reasons {
		brief[i], _, _ = strings.Cut(reason, ":")
	}
	return brief
}
