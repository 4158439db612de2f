package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// wordFlags are what an operator says of a call.
type wordFlags struct {
	answered              bool // there is an answer for repeats
	executed, notExecuted bool
	status                int
	header                []string
	body, bodyFile        string
	note                  string
}

func newResolveCommand() *cobra.Command {
	var admin adminFlags
	var r wordFlags
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "resolve <id> --executed|--not-executed",
		Short: "Says what became of a call whose outcome nobody could know",
		Long: `Says what became of a call whose outcome nobody could know.

--executed: it ran, and is not sent again while it is on record. Its repeats are told so (409
result-unavailable), or, if an answer is given by --status, --header and --body,
they get that, as a replay.

--not-executed: it did not run. Its key is free again, and a repeat runs.

On a terminal it asks before it does so; scripts need --yes.`,
		Example: `  genesys-sidecar genesys calls resolve 3f2a9c0112ab --executed --note "refund 17 is in the ledger"
  genesys-sidecar genesys calls resolve 3f2a9c0112ab --executed --status 200 --body '{"refund": 17}'
  genesys-sidecar genesys calls resolve 3f2a9c0112ab --not-executed --yes`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: coded(func(cmd *cobra.Command, args []string) error {
			request, err := r.request(cmd)
			if err != nil {
				return err
			}
			if err := mayAsk(cmd, yes); err != nil {
				return err
			}
			client, err := admin.client()
			if err != nil {
				return err
			}
			raw, err := client.get(cmd.Context(), callPath(args[0]), nil)
			if err != nil {
				return err
			}
			call, err := readCall(raw)
			if err != nil {
				return err
			}
			if !call.Resolvable {
				return &codedError{exitRefused, fmt.Errorf("call %s is %s: %s", call.Digest, call.State, notResolvable(call.State))}
			}
			if !yes {
				if err := confirm(cmd, r.consequence(&call, time.Now())); err != nil {
					return err
				}
			}
			raw, err = client.do(cmd.Context(), http.MethodPost, callPath(call.ID)+"/resolve", nil, request)
			if err != nil {
				return err
			}
			p := newPrinter(cmd)
			if asJSON {
				return p.json(raw)
			}
			p.line("call %s %s", call.Digest, r.done(&call))
			return nil
		}),
	}
	admin.register(cmd, adminTimeout)
	flags := cmd.Flags()
	flags.BoolVar(&r.executed, "executed", false, "It ran")
	flags.BoolVar(&r.notExecuted, "not-executed", false, "It did not run")
	flags.IntVar(&r.status, "status", http.StatusOK, "Status of the answer that repeats get")
	flags.StringArrayVar(&r.header, "header", nil, `Header of that answer, as "Name: value"; repeatable (default: a Content-Type that fits the body)`)
	flags.StringVar(&r.body, "body", "", "Body of that answer")
	flags.StringVar(&r.bodyFile, "body-file", "", "File with the body of that answer")
	flags.StringVar(&r.note, "note", "", "A note that is kept: who found out, and how")
	flags.BoolVarP(&yes, "yes", "y", false, "Do not ask")
	flags.BoolVar(&asJSON, "json", false, "Print JSON")
	for _, name := range []string{"status", "header", "body", "note"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.ValidArgsFunction = completeCalls(&admin, "unknown,open")
	return cmd
}

// resolveRequest is the body of a request to resolve.
type resolveRequest struct {
	Outcome string         `json:"outcome"`
	Answer  *resolveAnswer `json:"answer,omitempty"`
	Note    string         `json:"note,omitempty"`
}

type resolveAnswer struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	Body   string            `json:"body"`
}

// hasAnswer tells whether repeats are to get an answer.
func (r *wordFlags) hasAnswer(cmd *cobra.Command) bool {
	for _, name := range []string{"status", "header", "body", "body-file"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// request checks the flags and returns what to send.
func (r *wordFlags) request(cmd *cobra.Command) (*resolveRequest, error) {
	if r.executed == r.notExecuted {
		return nil, usagef("say what became of it: either --executed or --not-executed")
	}
	request := &resolveRequest{Outcome: "not_executed", Note: r.note}
	if r.executed {
		request.Outcome = "executed"
	}
	if !r.hasAnswer(cmd) {
		return request, nil
	}
	if r.notExecuted {
		return nil, usagef("--status, --header, --body and --body-file are of no use with --not-executed: what did not run has no answer")
	}
	answer := &resolveAnswer{Status: r.status, Header: make(map[string]string), Body: r.body}
	if r.status < 200 || r.status > 599 {
		return nil, usagef("--status: %d is no status from 200 to 599", r.status)
	}
	if r.bodyFile != "" {
		if cmd.Flags().Changed("body") {
			return nil, usagef("--body and --body-file: give one of them")
		}
		b, err := os.ReadFile(r.bodyFile)
		if err != nil {
			return nil, fmt.Errorf("reading --body-file: %w", err)
		}
		answer.Body = string(b)
	}
	if !utf8.ValidString(answer.Body) {
		return nil, usagef("the body is no text in UTF-8; the answer of a data action is")
	}
	for _, line := range r.header {
		name, value, ok := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		if !ok || name == "" {
			return nil, usagef(`--header: %q is not of the form "Name: value"`, line)
		}
		if _, twice := answer.Header[name]; twice {
			return nil, usagef("--header: %s is given twice", name)
		}
		answer.Header[name] = strings.TrimSpace(value)
	}
	if _, ok := answer.Header["Content-Type"]; !ok && answer.Body != "" {
		answer.Header["Content-Type"] = "text/plain; charset=utf-8"
		if json.Valid([]byte(answer.Body)) {
			answer.Header["Content-Type"] = "application/json"
		}
	}
	request.Answer = answer
	r.answered = true
	r.status = answer.Status
	r.body = answer.Body
	return request, nil
}

// consequence says in words what is about to happen.
func (r *wordFlags) consequence(c *toldCall, now time.Time) string {
	return fmt.Sprintf("%s\n(call %s, %s, started %s)\n%s",
		harmless(c.Action), c.Digest, c.State, ago(now, c.Started), r.done(c))
}

// done says what the resolution means for the call's repeats.
func (r *wordFlags) done(c *toldCall) string {
	switch {
	case r.notExecuted:
		return "did not run: its key is free, and a repeat runs."
	case r.answered:
		return fmt.Sprintf("ran: it is not sent again while it is on record, and its repeats get the answer %d with %d bytes.", r.status, len(r.body))
	default:
		return "ran: it is not sent again while it is on record, and its repeats are told that it ran and that its answer is not known."
	}
}

func notResolvable(state string) string {
	switch state {
	case "started":
		return "it is under way; wait for its end"
	case "done":
		return "it ran, and its answer is known"
	case "released":
		return "its key is free already"
	default:
		return "its outcome is known"
	}
}

// errDeclined is what a command ends with that was not confirmed.
var errDeclined = errors.New("nothing was changed")
