package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/sandbox"
)

// needPrometheus skips the test where there is no Prometheus, unless it has to
// be there.
func needPrometheus(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("GENESYS_SIDECAR_NEED_PROMETHEUS") != "" {
			t.Fatalf("%s is not installed", program)
		}
		t.Skipf("%s is not installed", program)
	}
	return path
}

func TestAlertRulesPassTheirTests(t *testing.T) {
	promtool := needPrometheus(t, "promtool")
	for _, args := range [][]string{
		{"check", "config", "prometheus.yaml"},
		{"check", "rules", "alerts.yaml"},
		{"test", "rules", "alerts_test.yaml"},
	} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = filepath.Join("..", "deploy", "prometheus")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func TestEveryQueryOfTheDashboardAndTheAlertsHasDataFromALiveSidecar(t *testing.T) {
	t.Parallel()
	needPrometheus(t, "prometheus")
	p := newPlatform(t, sandbox.Config{})
	s := newSidecar(t, p, options{global: "pace 6000 1m\nconcurrency 50"})
	prometheus := startPrometheus(t, s.admin)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // rates need calls all the time
		for i := 0; ctx.Err() == nil; i++ {
			for _, body := range []string{`{"n":1}`, `{"n":1}`, `{"n":2}`} { // executed, replayed, rejected
				_, _ = s.try(ctx, request{path: execute, body: body, header: []string{"Idempotency-Key", fmt.Sprintf("k%d", i)}})
			}
			_, _ = s.try(ctx, later(request{path: execute, body: `{"n":3}`, header: []string{"Idempotency-Key", fmt.Sprintf("l%d", i)}}))
			time.Sleep(50 * time.Millisecond)
		}
	}()
	queries := dashboardQueries(t)
	if len(queries) < 35 {
		t.Fatalf("the dashboard has %d queries", len(queries))
	}
	for what, query := range queries {
		prometheus.wantData(t, what, query)
	}
	for alert, query := range alertQueries(t) {
		prometheus.wantValid(t, alert, query)
	}
	for what, query := range map[string]string{
		"the budget counts what starts":     `genesys_budget_used{organization="default"} > 0`,
		"the backlog counts what has ended": `rate(genesys_backlog_ended_total[10s]) > 0`,
	} {
		prometheus.wantData(t, what, query)
	}
}

// dashboardQueries returns the queries of the dashboard, by panel, as Grafana
// would send them.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "grafana", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := make(map[string]string)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries[panel.Title+" "+target.RefID] = strings.NewReplacer("$__rate_interval", "10s", "$instance", ".*").Replace(target.Expr)
		}
	}
	return queries
}

// alertQueries returns the expressions of the alerts, as Prometheus has read
// them.
func alertQueries(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "deploy", "prometheus", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	queries := make(map[string]string)
	name, inBlock := "", false
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "- alert: "); ok {
			name = rest
		}
		if strings.HasPrefix(line, "for: ") || strings.HasPrefix(line, "labels:") {
			inBlock = false // what comes after expr
		}
		if inBlock {
			queries[name] += line + "\n"
		}
		if rest, ok := strings.CutPrefix(line, "expr: "); ok {
			if inBlock = rest == "|"; !inBlock {
				queries[name] = rest
			}
		}
	}
	if alerts := strings.Count(string(raw), "- alert: "); len(queries) != alerts {
		t.Fatalf("%d of %d alerts have an expression", len(queries), alerts)
	}
	return queries
}

// prometheusServer is a real Prometheus that scrapes a sidecar.
type prometheusServer struct{ url string }

func startPrometheus(t *testing.T, target string) *prometheusServer {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 1s}\nscrape_configs: [{job_name: genesys-sidecar, static_configs: [{targets: ['%s']}]}]\n", target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "prometheus", "--config.file", config, "--storage.tsdb.path", filepath.Join(dir, "data"),
		"--web.listen-address", address, "--log.level", "error")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return &prometheusServer{"http://" + address}
}

// query returns the values of query now, and what Prometheus complains of.
func (p *prometheusServer) query(query string) (values []string, complaint string) {
	resp, err := http.Get(p.url + "/api/v1/query?" + url.Values{"query": {query}}.Encode())
	if err != nil {
		return nil, ""
	}
	defer resp.Body.Close()
	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if json.NewDecoder(resp.Body).Decode(&answer) != nil {
		return nil, ""
	}
	for _, r := range answer.Data.Result {
		values = append(values, fmt.Sprint(r.Value[1]))
	}
	return values, answer.Error
}

// wantData waits until query has a value that is a number.
func (p *prometheusServer) wantData(t *testing.T, what, query string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		values, complaint := p.query(query)
		if complaint != "" {
			t.Fatalf("%s: %s: %s", what, query, complaint)
		}
		for _, v := range values {
			if v != "NaN" {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %s: no data, but %q", what, query, values)
		}
	}
}

// wantValid fails the test if Prometheus complains of query, or if one of its
// metrics is not there.
func (p *prometheusServer) wantValid(t *testing.T, what, query string) {
	t.Helper()
	if _, complaint := p.query(query); complaint != "" {
		t.Errorf("%s: %s: %s", what, query, complaint)
	}
	for _, word := range strings.FieldsFunc(query, func(r rune) bool {
		return r != '_' && (r < 'a' || r > 'z')
	}) {
		if strings.HasPrefix(word, "genesys_") {
			p.wantData(t, what, word)
		}
	}
}
