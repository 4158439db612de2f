package main

import (
	"bytes"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"genesys-sidecar/caddymodule/store/redis/redistest"
)

// What takes longer than these tests, and looks closer, is
//
//	go run ./test/soak
//	go run ./test/soak -mutants

func TestTheSidecarAsItIsIsFlatAndAnswersAsItShould(t *testing.T) {
	t.Parallel()
	report := soakForATest(t, mutant{store: "memory"})
	if wrong := report.wrong(); len(wrong) > 0 {
		t.Errorf("wrong: %s", strings.Join(wrong, "; "))
	}
	for _, what := range []string{"new, the upstream answers", "new, the upstream fails", "repeated", "key of another request",
		"duplicates in flight", "no key", "no key, and came back", "proxied", "a reload", "429 with Retry-After"} {
		if report.results.kinds[what] == nil {
			t.Errorf("the load had no %q", what)
		}
	}
}

func TestAGoroutineLeftBehindByEachCallFailsTheRun(t *testing.T) {
	t.Parallel()
	report := soakForATest(t, mutants[0])
	if !slices.Contains(report.grown(), goroutines.name) || len(report.wrong()) == 0 {
		t.Errorf("wrong: %s", strings.Join(report.wrong(), "; "))
	}
}

// soakForATest soaks a mutant, or the sidecar as it is, for a short time.
func soakForATest(t *testing.T, m mutant) *report {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("it builds the sidecar, and there is no go command")
	}
	var out bytes.Buffer
	report, err := m.soak(t.Context(), settings{duration: 20 * time.Second, store: m.store, rate: 60, seed: 1}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	report.print(&out)
	t.Log(out.String())
	for _, s := range report.series {
		for _, p := range s.points {
			if p.value <= 0 {
				t.Errorf("%s: a sample is %v", s.name, p.value)
			}
		}
	}
	return report
}

func TestRedisIsMeasured(t *testing.T) {
	server := redistest.New(t, redistest.Options{})
	m := newSampler(nil, "", server)
	if _, err := server.Do("SET", "a", "b"); err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	if err := m.readRedis(values); err != nil {
		t.Fatal(err)
	}
	if values[redisKeys.name] != 1 || values[redisSize.name] < 1000 {
		t.Errorf("it has %v", values)
	}
}

func TestARunThatCannotReachASteadyStateIsRefused(t *testing.T) {
	for _, args := range []string{"-duration 10s", "-duration 4m -binary sidecar", "-store tape", "-rate 0", "-mutants -store redis", "-mutant none", "more"} {
		if _, _, err := parseFlags(strings.Fields(args)); err == nil {
			t.Errorf("%s was taken", args)
		}
	}
	for _, args := range []string{"", "-duration 7m", "-duration 20s -store memory", "-duration 7m -binary sidecar", "-mutants", "-mutant sweeps"} {
		if _, _, err := parseFlags(strings.Fields(args)); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}
