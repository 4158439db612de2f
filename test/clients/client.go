package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// client is a program that sends orders.
type client struct {
	name    string // of the client, for the table
	program string // what it is chosen by, and its directory
	repeats string // who sends again, for the table
	mode    string
	needs   []string    // commands
	check   []string    // a command that fails if something is missing
	prepare preparation // nil: nothing
	command []string    // what runs it; {src} and {dir} stand for its two directories
	version []string    // a command whose first line tells the version

	executeOnly bool // knows no other family
	feature     bool // differs from another in how it talks HTTP only
	fetches     bool // what it needs comes over the network, once
	heavy       bool // not for the quick variant
}

// preparation makes ready what a client needs, from its directory src in the
// directory dir.
type preparation func(ctx context.Context, src, dir string) error

const (
	byApp    = "the app, up to 3 times"
	byLoop   = "a loop in a shell script, up to 3 times"
	byItself = "the client itself"
)

var clients = []client{
	shell("curl", "curl", "curl", byLoop, "loop"),
	shell("curl --retry 3 --retry-all-errors", "curl", "curl", byItself+", up to 3 times", "retry"),
	feature("curl --http1.0", "http10"),
	feature("curl, Expect: 100-continue", "expect"),
	feature("curl, Transfer-Encoding: chunked", "chunked"),
	feature("curl --compressed", "compressed"),
	shell("wget --tries=4", "wget", "wget", byItself+", up to 3 times", ""),
	shell("wget --tries=4 --retry-on-http-error=5xx", "wget", "wget", byItself+", up to 3 times", "statuses"),
	{name: "Node's fetch", program: "node-fetch", repeats: byApp, needs: []string{"node"},
		command: []string{"node", "{src}/client.mjs"}, version: []string{"node", "--version"}},
	{name: "Genesys' JavaScript SDK", program: "genesys-js", repeats: byApp, needs: []string{"node", "npm"}, prepare: npmInstall,
		command: []string{"node", "{dir}/client.js"}, executeOnly: true, fetches: true,
		version: []string{"node", "-p", `require("{dir}/node_modules/purecloud-platform-client-v2/package.json").version`}},
	{name: "Genesys' Python SDK", program: "genesys-python", repeats: byItself + ", up to 10 times", needs: []string{"python3"},
		check:   []string{"python3", "-c", "import PureCloudPlatformClientV2"},
		command: []string{"python3", "{src}/client.py"}, executeOnly: true, heavy: true,
		version: []string{"python3", "-c", "from importlib.metadata import version; print(version('PureCloudPlatformClientV2'))"}},
	{name: "Go's net/http", program: "nethttp", repeats: byApp, needs: []string{"go"}, prepare: goBuild,
		command: []string{"{dir}/client"}, version: []string{"go", "version"}},
	{name: "hashicorp/go-retryablehttp", program: "retryablehttp", repeats: byItself + ", up to 4 times", needs: []string{"go"}, prepare: goBuild,
		command: []string{"{dir}/client"}, fetches: true,
		version: []string{"go", "list", "-C", "{src}", "-m", "-f", "{{.Version}}", "github.com/hashicorp/go-retryablehttp"}},
	{name: "Python's urllib.request", program: "urllib", repeats: byApp, needs: []string{"python3"},
		command: []string{"python3", "{src}/client.py"}, version: []string{"python3", "--version"}},
	python("Python's requests", "", byApp),
	python("requests with urllib3's Retry(total=3)", "retry", byItself+", up to 3 times"),
	{name: "Java's HttpClient", program: "java", repeats: byApp, needs: []string{"java", "javac"}, prepare: javac,
		command: []string{"java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", "{dir}", "Client"}, heavy: true,
		version: []string{"java", "--version"}},
	{name: "PHP's curl", program: "php", repeats: byApp, needs: []string{"php"},
		check:   []string{"php", "-r", "exit(function_exists('curl_init') ? 0 : 1);"},
		command: []string{"php", "{src}/client.php"}, version: []string{"php", "--version"}},
	{name: "Perl's LWP", program: "perl", repeats: byApp, needs: []string{"perl"},
		check:   []string{"perl", "-MLWP::UserAgent", "-e", "1"},
		command: []string{"perl", "{src}/client.pl"}, version: []string{"perl", "-MLWP", "-e", `print "LWP $LWP::VERSION"`}},
	{name: "Ruby's Net::HTTP", program: "ruby", repeats: byApp, needs: []string{"ruby"},
		command: []string{"ruby", "{src}/client.rb"}, version: []string{"ruby", "--version"}},
}

func shell(name, program, needs, repeats, mode string) client {
	return client{name: name, program: program, repeats: repeats, mode: mode, needs: []string{"sh", needs},
		command: []string{"sh", "{src}/client.sh"}, version: []string{needs, "--version"}}
}

func feature(name, mode string) client {
	c := shell(name, "curl", "curl", byLoop, mode)
	c.feature = true
	return c
}

func python(name, mode, repeats string) client {
	return client{name: name, program: "requests", repeats: repeats, mode: mode, needs: []string{"python3"},
		check: []string{"python3", "-c", "import requests"}, command: []string{"python3", "{src}/client.py"},
		version: []string{"python3", "-c", "import requests, urllib3; print('requests', requests.__version__, 'urllib3', urllib3.__version__)"}}
}

// slug returns a name for paths.
func (c client) slug() string {
	if c.mode == "" {
		return c.program
	}
	return c.program + "-" + c.mode
}

// plays says whether the client is in the scenario.
func (c client) plays(s scenario) bool {
	if c.feature {
		return s.quick && s.family == execute
	}
	return !c.executeOnly || s.family == execute
}

// ready is a client that can be run.
type ready struct {
	client
	argv    []string
	version string
}

// makeReady finds or builds what the client needs. The error says what is
// missing.
func (c client) makeReady(ctx context.Context, src, cache string) (ready, error) {
	for _, name := range c.needs {
		if _, err := exec.LookPath(name); err != nil {
			return ready{}, fmt.Errorf("not installed: %s", name)
		}
	}
	fill := strings.NewReplacer("{src}", filepath.Join(src, c.program), "{dir}", filepath.Join(cache, c.program))
	filled := func(argv []string) []string {
		out := make([]string, len(argv))
		for i, arg := range argv {
			out[i] = fill.Replace(arg)
		}
		return out
	}
	if c.check != nil {
		if err := exec.CommandContext(ctx, c.check[0], c.check[1:]...).Run(); err != nil {
			return ready{}, fmt.Errorf("not installed: %s", strings.Join(c.check, " "))
		}
	}
	if c.prepare != nil {
		dir := filepath.Join(cache, c.program)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return ready{}, err
		}
		if err := c.prepare(ctx, filepath.Join(src, c.program), dir); err != nil {
			return ready{}, err
		}
	}
	version := filled(c.version)
	out, err := exec.CommandContext(ctx, version[0], version[1:]...).Output()
	if err != nil {
		return ready{}, fmt.Errorf("asking %s for its version: %w", c.name, err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return ready{c, filled(c.command), strings.TrimSpace(first)}, nil
}

func npmInstall(ctx context.Context, src, dir string) error {
	for _, name := range []string{"package.json", ".npmrc", "client.js"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return run(ctx, "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--loglevel=error")
}

func goBuild(ctx context.Context, src, dir string) error {
	return run(ctx, "go", "build", "-C", src, "-o", filepath.Join(dir, "client"), ".")
}

func javac(ctx context.Context, src, dir string) error {
	return run(ctx, "javac", "-d", dir, filepath.Join(src, "Client.java"))
}

func run(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("running %s: %w: %s", name, err, lines[len(lines)-1])
	}
	return nil
}
