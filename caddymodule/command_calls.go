package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// adminTimeout is how long a command waits for the sidecar, unless told
// otherwise.
const adminTimeout = 30 * time.Second

func newCallsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "calls",
		Short: "Lists calls, shows one, says what became of it, and forgets it",
		Long: `Looks at the calls that a running sidecar has on record, and changes what is known
of them.

` + exitHelp,
		Args: usageArgs(cobra.NoArgs), // a misspelt command is an error
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newListCommand(), newShowCommand(), newResolveCommand(), newForgetCommand())
	return cmd
}

// callFilter is what calls are to be listed.
type callFilter struct {
	states       []string
	action       string
	scope        string
	organization string
	since        string
	limit        int
	all          bool
}

func newListCommand() *cobra.Command {
	var admin adminFlags
	var filter callFilter
	var asJSON, exitIfAny bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Lists calls, the latest first",
		Long: `Lists calls, the latest first.

The states are: started (under way), done (its answer is known), unknown (nobody
can know whether it ran), open (the same, but its upstream honors the key, so that
the same request may try again), queued (it was handed over and waits for its turn)
and released (somebody has said that it did not run).

With --json one document is printed, {"calls": […]}, whose calls are as the admin
API tells them. With --all it holds all of them, else "next" says that there are
more.

With --exit-code the exit code is 7 if there is a call that fits, and 0 if there is
none.`,
		Example: `  genesys-sidecar genesys calls list --state unknown,open
  genesys-sidecar genesys calls list --state unknown --since 1h --exit-code >/dev/null || echo "look into it"
  genesys-sidecar genesys calls list --all --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: coded(func(cmd *cobra.Command, _ []string) error {
			client, err := admin.client()
			if err != nil {
				return err
			}
			query, err := filter.query()
			if err != nil {
				return err
			}
			list := &callList{client: client, query: query, limit: filter.limit}
			if filter.all {
				list.limit = -1
			}
			show := list.table
			if asJSON {
				show = list.json
			}
			n, err := show(cmd.Context(), newPrinter(cmd), cmd.ErrOrStderr())
			if err == nil && exitIfAny && n > 0 {
				err = &codedError{code: exitFound}
			}
			return err
		}),
	}
	admin.register(cmd, adminTimeout)
	flags := cmd.Flags()
	flags.StringSliceVar(&filter.states, "state", nil, "Only calls in one of these states: "+strings.Join(callStates, ", "))
	flags.StringVar(&filter.action, "action", "", "Only calls whose action contains this, such as custom_-_refund")
	flags.StringVar(&filter.scope, "scope", "", "Only calls of this scope: the text that the configuration's scope makes")
	flags.StringVar(&filter.organization, "organization", "", "Only calls of this organization")
	flags.StringVar(&filter.since, "since", "", "Only calls that started since then: 1h, or a time as 2006-01-02T15:04:05Z")
	flags.IntVar(&filter.limit, "limit", 50, "How many at most")
	flags.BoolVar(&filter.all, "all", false, "All of them")
	flags.BoolVar(&asJSON, "json", false, "Print JSON")
	flags.BoolVar(&exitIfAny, "exit-code", false, "Exit with 7 if there are any")
	_ = cmd.RegisterFlagCompletionFunc("state", completeStates)
	_ = cmd.RegisterFlagCompletionFunc("since", cobra.FixedCompletions(
		[]cobra.Completion{"10m", "1h", "24h"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"action", "scope", "organization", "limit"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func (f *callFilter) query() (url.Values, error) {
	query := make(url.Values)
	for _, s := range f.states {
		if !slices.Contains(callStates, s) {
			return nil, usagef("--state: there is no %q; it is one of %s", s, strings.Join(callStates, ", "))
		}
	}
	if f.limit < 1 {
		return nil, usagef("--limit: %d is less than one; --all lists all", f.limit)
	}
	if f.since != "" {
		if _, err := time.Parse(time.RFC3339, f.since); err != nil {
			if d, err := time.ParseDuration(f.since); err != nil || d < 0 {
				return nil, usagef("--since: %q is neither a duration, such as 1h, nor a time, such as 2006-01-02T15:04:05Z", f.since)
			}
		}
	}
	for name, value := range map[string]string{
		"state":        strings.Join(f.states, ","),
		"action":       f.action,
		"scope":        f.scope,
		"organization": f.organization,
		"since":        f.since,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query, nil
}

// callList reads a listing page by page.
type callList struct {
	client *adminClient
	query  url.Values
	limit  int // how many are still wanted; negative: all
	more   string
}

// pageSize is how many calls are asked for at a time.
const pageSize = 100

// next returns further calls, and whether there may be more that are wanted. A
// page can be empty with more to follow.
func (l *callList) next(ctx context.Context) (calls []json.RawMessage, more bool, err error) {
	size := pageSize
	if l.limit >= 0 {
		size = min(size, l.limit)
	}
	l.query.Set("limit", strconv.Itoa(size))
	raw, err := l.client.get(ctx, "calls", l.query)
	if err != nil {
		return nil, false, err
	}
	var page struct {
		Calls []json.RawMessage `json:"calls"`
		Next  string            `json:"next"`
	}
	if err := json.Unmarshal(raw, &page); err != nil {
		return nil, false, fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	if l.limit >= 0 {
		page.Calls = page.Calls[:min(len(page.Calls), l.limit)]
		l.limit -= len(page.Calls)
	}
	l.more = page.Next
	l.query.Set("cursor", page.Next)
	return page.Calls, page.Next != "" && l.limit != 0, nil
}

// json prints the listing as one document, page by page, and returns how many
// calls it has.
func (l *callList) json(ctx context.Context, p *printer, _ io.Writer) (int, error) {
	n := 0
	for more := true; more; {
		var calls []json.RawMessage
		var err error
		if calls, more, err = l.next(ctx); err != nil {
			return n, err
		}
		for _, c := range calls {
			separator := `{"calls":[` + "\n"
			if n > 0 {
				separator = ",\n"
			}
			text := string(c)
			if p.terminal {
				text = harmlessJSON(text)
			}
			if _, err := io.WriteString(p.w, separator+text); err != nil {
				return n, fmt.Errorf("writing: %w", err)
			}
			n++
		}
	}
	end := "]"
	if n == 0 {
		end = `{"calls":[]`
	}
	if l.more != "" {
		next, _ := json.Marshal(l.more)
		end += `,"next":` + string(next)
	}
	_, err := io.WriteString(p.w, end+"}\n")
	return n, err
}

// table prints the listing for people, and returns how many calls it has.
func (l *callList) table(ctx context.Context, p *printer, aside io.Writer) (int, error) {
	var calls []toldCall
	for more := true; more; {
		var page []json.RawMessage
		var err error
		if page, more, err = l.next(ctx); err != nil {
			return len(calls), err
		}
		for _, raw := range page {
			c, err := readCall(raw)
			if err != nil {
				return len(calls), err
			}
			calls = append(calls, c)
		}
	}
	if len(calls) == 0 {
		fmt.Fprintln(aside, "no calls")
		return 0, nil
	}
	p.calls(calls, time.Now())
	if l.more != "" {
		fmt.Fprintf(aside, "there are more: --all lists all, --limit more than %d\n", len(calls))
	}
	return len(calls), nil
}

// calls prints a table of calls.
func (p *printer) calls(calls []toldCall, now time.Time) {
	t := &table{head: []string{"ID", "STATE", "STARTED", "SENT", "ANSWER"}}
	organizations := slices.ContainsFunc(calls, func(c toldCall) bool { return c.Organization != "" })
	if organizations {
		t.head = append(t.head, "ORGANIZATION")
	}
	t.head = append(t.head, "ACTION")
	for _, c := range calls {
		row := []string{c.Digest, c.State, ago(now, c.Started), c.sentText(), c.answerText()}
		if organizations {
			row = append(row, orDash(c.Organization))
		}
		t.add(append(row, orDash(c.Action))...)
	}
	t.paint = func(column int, cell string) string {
		if column == 1 {
			return stateColor(cell)
		}
		return colorNone
	}
	p.table(t)
}
