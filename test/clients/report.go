package main

import (
	"fmt"
	"strings"
)

// headlines are the scenarios of the first table.
var headlines = []struct{ name, title string }{
	{"ok", "nothing wrong"},
	{"slow", "slower than the client waits"},
	{"cut", "cut after execution, once"},
	{"cut-always", "cut after execution, each time"},
	{"stale", "kept connection closed"},
	{"504", "504 after execution"},
}

// markdown returns the results as they are published.
func (r *results) markdown() string {
	var b strings.Builder
	b.WriteString("# Real clients\n\n" +
		"Written by `go run ./test/clients`: real HTTP clients send an order (a refund, say) to a sandbox of Genesys Cloud, directly and through the sidecar. " +
		"The programs differ in nothing but the base URL. What was executed is what the sandbox's ledger says.\n\n")
	r.summary(&b)
	for _, c := range r.ran {
		r.section(&b, c)
	}
	r.legend(&b)
	return b.String()
}

// summary writes the table of executions: one order, no key.
func (r *results) summary(b *strings.Builder) {
	b.WriteString("## Executions of one order, without a key\n\n" +
		"Directly → through the sidecar, at an endpoint that ignores keys (`…/execute`).\n\n| client |")
	var used []string
	for _, h := range headlines {
		if r.find(func(p *play) bool { return p.scenario.name == h.name }) != nil {
			fmt.Fprintf(b, " %s |", h.title)
			used = append(used, h.name)
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(used)) + "\n")
	for _, c := range r.ran {
		fmt.Fprintf(b, "| %s |", c.name)
		for _, name := range used {
			p := r.find(func(p *play) bool {
				return p.client.name == c.name && p.scenario.name == name && p.scenario.family == execute && !p.scenario.keyed
			})
			if p == nil {
				b.WriteString(" |")
				continue
			}
			fmt.Fprintf(b, " %s → %s |", p.executions(p.direct), p.executions(p.sidecar))
		}
		b.WriteString("\n")
	}
	for _, a := range r.absent {
		fmt.Fprintf(b, "| %s |%s\n", a.client.name, strings.Replace(strings.Repeat(" |", len(used)), " ", " not run: "+cell(a.why), 1))
	}
	b.WriteString("\n")
}

func (r *results) find(is func(*play) bool) *play {
	for _, p := range r.plays {
		if is(p) {
			return p
		}
	}
	return nil
}

// section writes all that came of one client.
func (r *results) section(b *strings.Builder, c ready) {
	fmt.Fprintf(b, "## %s\n\nVersion: %s. Who sends again: %s.\n\n", c.name, cell(c.version), c.repeats)
	b.WriteString("| what happens | endpoint, key | directly: sent | executed | ended with | sidecar: sent | sent on | executed | ended with |\n" +
		"|---|---|---|---|---|---|---|---|---|\n")
	for _, p := range r.plays {
		if p.client.name != c.name {
			continue
		}
		key := "no key"
		if p.scenario.keyed {
			key = "key"
		}
		fmt.Fprintf(b, "| %s | %s, %s | %d | %s | %s | %d | %d | %s | %s |\n", p.scenario.what, p.scenario.family, key,
			p.direct.sent, p.executions(p.direct), p.direct.ended(),
			p.sidecar.sent, p.sidecar.upstream, p.executions(p.sidecar), p.sidecar.ended())
	}
	b.WriteString("\n")
}

// executions returns how often the order was executed, bold where that is too
// often.
func (p *play) executions(s side) string {
	if s.executed > p.scenario.meant() {
		return fmt.Sprintf("**%d**", s.executed)
	}
	return fmt.Sprint(s.executed)
}

// ended returns what the runs ended with.
func (s side) ended() string {
	words := make([]string, len(s.ends))
	for i, e := range s.ends {
		words[i] = e.String()
	}
	return strings.Join(words, "; ")
}

func (r *results) legend(b *strings.Builder) {
	b.WriteString("## How to read this\n\n" +
		"* *sent*: requests that came to whom the client talked to; *sent on*: requests that the sidecar made of them. Logins are not counted.\n" +
		"* Bold: executed more often than meant.\n" +
		"* *outcome unknown*: nobody can know whether the order was executed, and the sidecar says so, in the body too, rather than run it again. " +
		"At an endpoint that ignores keys it cannot tell a 502 of a load balancer that has sent nothing on from one that has, so that such an order may not be executed at all: a person has to look.\n" +
		"* Where a kept connection is closed, it is the sidecar's own connection to the sandbox that is closed through the sidecar; now and then it has a new one, and nothing happens.\n" +
		"* At an endpoint that honors keys (`…/invoke`) the sidecar gives every order a key and sends it again under that.\n" +
		fmt.Sprintf("* Clients wait for %s s, and for %s s where answers take longer (Genesys' JavaScript SDK, unless told otherwise, 16 s). They repeat at once or within a second.\n"+
			"* Not tried: Genesys' Go SDK, which the Go module proxy refused when this was written (its retries are those of go-retryablehttp, which is tried), and .NET, which Debian does not have.\n", patient, impatient))
}

// cell returns text for a cell of a table.
func cell(text string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(text) }
