package caddymodule

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newShowCommand() *cobra.Command {
	var admin adminFlags
	var withAnswer, asJSON bool
	cmd := &cobra.Command{
		Use:   "show <id>",
		Short: "Shows what is on record of a call: its attempts, its answer, what was said of it",
		Long: `Shows what is on record of a call. Its id is that of calls list (and of the log),
or the long one of calls list --json.`,
		Example: `  genesys-sidecar genesys calls show 3f2a9c0112ab
  genesys-sidecar genesys calls show 3f2a9c0112ab --answer`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: coded(func(cmd *cobra.Command, args []string) error {
			client, err := admin.client()
			if err != nil {
				return err
			}
			query := make(url.Values)
			if withAnswer {
				query.Set("answer", "full")
			}
			raw, err := client.get(cmd.Context(), callPath(args[0]), query)
			if err != nil {
				return err
			}
			p := newPrinter(cmd)
			if asJSON {
				return p.json(raw)
			}
			call, err := readCall(raw)
			if err != nil {
				return err
			}
			p.call(&call, time.Now(), cmd.Root().Name())
			if withAnswer {
				p.answer(call.Answer)
			}
			return nil
		}),
	}
	admin.register(cmd, adminTimeout)
	cmd.Flags().BoolVar(&withAnswer, "answer", false, "Show the answer's header and body too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.ValidArgsFunction = completeCalls(&admin, "")
	return cmd
}

// call prints all there is to know of a call, but for its answer's body.
func (p *printer) call(c *toldCall, now time.Time, program string) {
	p.line("call %s is %s", c.Digest, p.state(c.State))
	field := func(name, value string) {
		if value != "" && value != "-" {
			p.line("  %-14s%s", name, value)
		}
	}
	field("id", c.ID)
	field("action", c.Action)
	field("organization", c.Organization)
	field("scope", c.Scope)
	if c.Keyless {
		field("key", c.Key+" (made up: the caller sent none)")
	} else {
		field("key", c.Key)
	}
	if c.UpstreamKey != c.Key {
		field("upstream key", c.UpstreamKey)
	}
	if c.Honored {
		field("upstream", "honors keys")
	} else {
		field("upstream", "is not known to honor keys")
	}
	field("started", exactly(now, c.Started))
	field("finished", exactly(now, c.Finished))
	field("last told", exactly(now, c.Told))
	field("kept until", exactly(now, c.Expires))
	if c.Answer != nil {
		field("answer", fmt.Sprintf("%s %s, %d bytes", c.answerText(), c.Answer.ContentType, c.Answer.Size))
	}
	p.attempts(c, now)
	p.words(c.Words, now)
	if c.Resolvable {
		p.line("")
		p.line("Nobody knows whether it ran. Who has found out says so:")
		p.line("  %s genesys calls resolve %s --executed", program, c.Digest)
		p.line("  %s genesys calls resolve %s --not-executed", program, c.Digest)
	}
}

// state returns a state's name in its color. It is the one thing that may hold
// escape sequences when it is printed, so it is made harmless here.
func (p *printer) state(state string) painted {
	return painted(p.paint(stateColor(state), harmless(state)))
}

// painted is a text that is harmless, but for colors.
type painted string

func (p *printer) attempts(c *toldCall, now time.Time) {
	if len(c.Attempts) == 0 {
		if c.mayHaveBeenSent() {
			p.line("\nno attempt is on record: they are written down when a call ends. It may have been sent.")
		}
		return
	}
	p.line("\nattempts")
	t := &table{
		head:   []string{"STARTED", "WAITED", "TOOK", "SENT", "STATUS", "VERDICT", "CORRELATION ID", "ERROR"},
		indent: "  ",
	}
	for i, a := range c.Attempts {
		sent := "no"
		if a.Written {
			sent = "yes"
		}
		status := "-"
		if a.Status != 0 {
			status = strconv.Itoa(a.Status)
		}
		t.add(ago(now, a.Started), a.waited(), inSeconds(a.Took), sent, status, orDash(a.Verdict), orDash(a.CorrelationID), a.Error)
		if i == 0 && c.Skipped > 0 {
			t.add(fmt.Sprintf("… %d more", c.Skipped), "", "", "", "", "", "", "")
		}
	}
	p.table(t)
}

// waited is how long an attempt was waited for, and what took the most of that.
func (a *toldAttempt) waited() string {
	waited := inSeconds(a.Waited)
	switch {
	case a.Paused > 0 && a.Paused >= a.Paced:
		return waited + " (paused " + inSeconds(a.Paused) + ")"
	case a.Paced > 0:
		return waited + " (paced " + inSeconds(a.Paced) + ")"
	}
	return waited
}

func (p *printer) words(words []toldWord, now time.Time) {
	if len(words) == 0 {
		return
	}
	p.line("\nsaid of it")
	t := &table{head: []string{"SAID", "OUTCOME", "NOTE"}, indent: "  "}
	for _, w := range words {
		t.add(ago(now, w.Said), strings.ReplaceAll(w.Outcome, "_", " "), w.Note)
	}
	p.table(t)
}

// answer prints an answer as it would be replayed.
func (p *printer) answer(a *toldAnswer) {
	p.line("")
	if a == nil {
		p.line("no answer is kept")
		return
	}
	p.line("%d %s", a.Status, http.StatusText(a.Status))
	for _, name := range slices.Sorted(maps.Keys(a.Header)) {
		for _, value := range a.Header[name] {
			p.line("%s: %s", name, value)
		}
	}
	p.line("")
	switch {
	case a.Body != nil:
		fmt.Fprintln(p.w, harmlessText(*a.Body))
	case a.BodyBase64 != nil:
		p.line("(%d bytes that are no text; --json has them in base64)", len(a.BodyBase64))
	}
}
