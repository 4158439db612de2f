package caddymodule

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

var update = flag.Bool("update", false, "write the goldens anew")

// separator stands between the Caddyfile and what it adapts to, as in Caddy's
// own goldens.
const separator = "\n----------\n"

func TestCaddyfilesAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(golden), separator)
			got := adapt(t, input)
			if *update {
				if err := os.WriteFile(file, []byte(input+separator+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("it adapts to:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

func TestTheShippedCaddyfilesAdaptAndAreFormatted(t *testing.T) {
	for _, file := range []string{"../Caddyfile", "../deploy/fleet/Caddyfile"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt(text, map[string]any{"filename": file})
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for _, w := range warnings {
			t.Errorf("warning: %s", w)
		}
	}
}

// TestMistakesAreExplained checks that a mistake's message names its line and
// what to do.
func TestMistakesAreExplained(t *testing.T) {
	global := func(lines string) string { return "{\n\tgenesys {\n\t\t" + lines + "\n\t}\n}\n" }
	block := func(lines string) string { return ":80 {\n\tgenesys_cloud {\n\t\t" + lines + "\n\t}\n}\n" }
	const acme = "organization acme {\nregion mypurecloud.de\nclient_id a\nclient_secret {env.B}\n}\n"
	for input, want := range map[string]string{
		global("regoin eu-west-1"):                                           "unknown option \"regoin\"",
		global("region eu-west-9"):                                           "eu-west-1",
		global("region"):                                                     "an argument is missing",
		global("api_url ftp://x"):                                            "api_url",
		global("cache lots"):                                                 `"lots" is no size`,
		global("store redsi"):                                                "there is no \"redsi\"; it is one of disk, memory, redis",
		global("store redis"):                                                "store redis redis://127.0.0.1:6379",
		global("store redis localhost:6379"):                                 "no URL",
		global("store redis redis://h {\n host x\n}"):                        "it has username, password",
		global("store redis redis://h {\n lease 1s\n lease 2s\n}"):           "lease is given twice",
		global("store redis redis://h {\n lease soon\n}"):                    "no positive duration",
		global("store redis redis://h {\n wait_replicas 1\n}"):               "wait_replicas 1 500ms",
		global("store redis redis://h {\n wait_replicas none 1s\n}"):         "number from 1",
		global("store redis redis://h {\n wait_replicas 1 0s\n}"):            "1ms or more",
		global("store redis redis://h {\n tls_trust_pool nonsense\n}"):       "nonsense",
		global("store redis redis://h {\n tls_except_ports 1\n}"):            "make no sense",
		global("store redis redis://h {\n tls_nonsense on\n}"):               "tls_nonsense",
		global("store disk /a /b"):                                           "argument",
		global("store memory {\n max 3\n}"):                                  "it has max_size",
		global("region a.example\n\t\tregion b.example"):                     "given twice",
		global("pace 300"):                                                   "such as 300 1m",
		global("pace 300 1m 5"):                                              "such as 300 1m",
		global("pace 0 1m"):                                                  `"0" is no number from 1 on`,
		global("pace many 1m"):                                               `"many" is no number from 1 on`,
		global("pace 300 0s"):                                                "no positive duration",
		global("pace 300 soon"):                                              "no positive duration",
		global("pace 300 10us"):                                              "from 1ms",
		global("pace 300 1m {\n burst 301\n}"):                               "a burst of 301",
		global("pace 300 1m {\n share 301\n}"):                               "a share of 301",
		global("pace 300 1m {\n burst 0\n}"):                                 "number from 1",
		global("pace 300 1m {\n burst 1\n burst 2\n}"):                       "burst is given twice",
		global("pace 300 1m {\n rate 1\n}"):                                  "it has burst and share",
		global("concurrency -1"):                                             "number from 1",
		global("queue 10"):                                                   "nothing to wait for without pace or concurrency",
		global("concurrency 5\n\t\tqueue 0"):                                 "number from 1",
		global(strings.Replace(acme, "region", "queue 5\nregion", 1)):        "organization acme: queue: there is nothing",
		block("lb_retry_match method POST"):                                  "lb_retry_match cannot be used",
		block("to 127.0.0.1:1"):                                              "region or api_url",
		block("rewrite /x"):                                                  "past the check",
		block("key hash"):                                                    "header <name>..., json <pointer>",
		block("key hash soon"):                                               "no positive duration",
		block("key require\n\t\tkey header X"):                               "put one of them last",
		block("key json order"):                                              "must start with a slash",
		block("wait never"):                                                  "nor off",
		block("attempts 0"):                                                  "number from 1",
		block("backoff 10s 1s"):                                              "must not be shorter",
		block("retention forever"):                                           "no positive duration",
		block("upstream_key yes"):                                            "auto, honored, ignored",
		block("actions GET"):                                                 "no path pattern",
		block("actions /a/b*"):                                               "whole segment",
		block("key header Idempotency-Key:"):                                 "no name of a header",
		block("key header \"my key\""):                                       "no name of a header",
		block("retention 1h\n\t\tretention 2h"):                              "retention is given twice",
		block("scope a\n\t\tscope b"):                                        "scope is given twice",
		block("transport http\n\t\ttransport http"):                          "transport is given twice",
		block("invoke_endpoint /r a\n\t\tinvoke_endpoint /r b"):              "/r: the path has an action already",
		block("invoke_endpoint /r/* a"):                                      "must not have a *",
		block("transport http fast {\n}"):                                    "argument count",
		block("transport fastcgi"):                                           "must be http",
		block("nonsense on"):                                                 "nonsense",
		":80 {\n\tgenesys_cloud api.example.com\n}\n":                        "region or api_url",
		global("login_transport"):                                            "it must be http",
		global("login_transport fastcgi"):                                    "it must be http",
		global("login_transport http {\nnonsense\n}"):                        "nonsense",
		global("organization"):                                               "organization: an argument is missing",
		global("organization \"\" {\n}"):                                     "its name is empty",
		global("organization acme {\n}"):                                     "acme: it needs client_id",
		global("organization acme beta"):                                     "it takes one argument",
		global("organization acme {\nclient_id a\nclient_secret {env.B}\n}"): "acme: it needs a region",
		global("organization acme {\ncache off\n}"):                          "acme: unknown option \"cache\"",
		global("organization acme {\nregion a.example\nregion b.example\n}"): "region is given twice",
		global("organization acme {\nregion eu-west-9\n}"):                   "eu-west-1",
		global(acme + acme):                                                  "organization acme is given twice",
		block("organization acme"):                                           `there is no organization "acme": the global option genesys has none`,
		block("organization"):                                                "organization: an argument is missing",
		global(acme) + block("organization acne"):                            `there is no organization "acne" in the global option genesys; it has acme`,
		global(acme) + block("organization acme\n\t\torganization acme"):     "organization is given twice",
		":80 {\n\treverse_proxy h {\n\t\ttransport genesys {\n\t\t\torganization\n\t\t}\n\t}\n}\n":  "organization: an argument is missing",
		":80 {\n\treverse_proxy {\n\t\tdynamic genesys {\n\t\t\torganisation acme\n\t\t}\n\t}\n}\n": `unknown option "organisation"`,
	} {
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
		switch {
		case err == nil:
			t.Errorf("no error for:\n%s", input)
		case !strings.Contains(err.Error(), want):
			t.Errorf("%q does not contain %q, for:\n%s", err, want, input)
		case !strings.Contains(err.Error(), "Caddyfile:"):
			t.Errorf("%q names no line", err)
		}
	}
}

func adapt(t *testing.T, input string) string {
	t.Helper()
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(input), map[string]any{"filename": "Caddyfile"})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := json.Indent(&b, out, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

func TestTheRestOfASecretWithSpacesIsNotTold(t *testing.T) {
	for _, option := range []string{
		"client_secret correct hunter2", "api_url http://u:correct hunter2@h", "store redis redis://h {\npassword correct hunter2\n}",
		"organization acme {\nclient_secret correct hunter2\n}",
	} {
		_, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte("{\n\tgenesys {\n"+option+"\n\t}\n}\n"), nil)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "in quotes") {
			t.Errorf("%q: %v", option, err)
		}
	}
}
