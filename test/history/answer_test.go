package history

import (
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"genesys-sidecar/caddymodule/sandbox"
)

func TestReadAnswer(t *testing.T) {
	const problem = `{"type":"urn:genesys-sidecar:problem:token-unavailable","outcome":"not_executed"}`
	for name, test := range map[string]struct {
		status                         int
		cacheStatus, contentType, body string
		want                           kind
		recorded, denied               bool
	}{
		"stored":                    {200, stored, "application/json", "{}", known, true, false},
		"replayed":                  {200, hit, "application/json", "{}", known, true, false},
		"shared":                    {200, collapsed, "application/json", "{}", known, false, false},
		"not stored":                {200, missed, "application/json", "{}", known, false, false},
		"an action's error":         {422, stored, "application/json", "{}", known, true, false},
		"unknown":                   {502, hitUnknown, "application/problem+json", "{}", unknown, true, false},
		"unknown, as it was passed": {500, storedUnknown, "application/json", "{}", unknown, true, false},
		"not run":                   {502, missed, "application/problem+json", problem, freed, false, true},
		"a refusal upstream":        {503, missed, "application/json", "{}", freed, false, false},
		"a refusal":                 {503, "", "application/problem+json", problem, refused, false, true},
		"no sidecar's":              {502, "", "text/plain", "bad gateway", foreign, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{"Content-Type": {test.contentType}}
			if test.cacheStatus != "" {
				header.Set("Cache-Status", test.cacheStatus)
			}
			a := readAnswer(test.status, header, []byte(test.body))
			if a.kind != test.want || a.recorded() != test.recorded || a.denied != test.denied {
				t.Errorf("got %+v", a)
			}
		})
	}
}

func TestLedgerIsReadAsItIsWritten(t *testing.T) {
	u := &upstream{file: filepath.Join(t.TempDir(), "ledger")}
	file, err := os.Create(u.file)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l, err := u.openLedger()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, text := range []string{
		`{"type":"effect","id":"a","key":"k"}` + "\n" + `{"type":"effe`, `ct","id":"b"}`, "\n" + `{"type":"failed"}` + "\n",
	} {
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := l.read(func(e sandbox.Effect) { ids = append(ids, e.ID) }); err != nil {
			t.Fatal(err)
		}
	}
	if len(ids) != 2 || ids[0] != "a" || ids[1] != "b" {
		t.Errorf("got %q", ids)
	}
}

// A fault that decides what becomes of a call strikes a honoring upstream once.
func TestCallsHaveFaultsThatTheSandboxKnows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	seen := map[string]bool{}
	for range 2000 {
		c := newCall(r, slices.Concat(Faults, SwiftFaults), "name", false)
		seen[c.path] = true
		if c.fault == "" || c.hash != hashOf(c.body) {
			t.Fatalf("got %+v", c)
		}
		for part := range strings.SplitSeq(c.fault, ",") {
			name, _, _ := strings.Cut(part, ";")
			name, _, _ = strings.Cut(strings.TrimSpace(name), "=")
			name = regexp.MustCompile(`^\d{3}(-before|-after|-remote)?$`).ReplaceAllString(name, "<status>$1")
			if !slices.ContainsFunc(sandbox.FaultTable(), func(f sandbox.FaultInfo) bool { return f.Name == name }) {
				t.Fatalf("the sandbox knows no %q of %q", name, c.fault)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("got only %v", seen)
	}
}
