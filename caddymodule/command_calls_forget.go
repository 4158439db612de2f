package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

func newForgetCommand() *cobra.Command {
	var admin adminFlags
	var scope, organization string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "forget <id> | --scope <scope>",
		Short: "Forgets a call, or erases what is kept of a scope's calls",
		Long: `Forgets a call, or erases what is kept of all calls of a scope.

forget <id> removes the call with all that is known of it. Its key is free: a
repeat runs it. One that is under way is refused.

forget --scope <scope> erases the answers, keys and journals of all calls of that
scope: a person's, if callers are told apart by person. What remains is a digest of
each, so that a repeat never runs a second time; it is told that its answer is gone
(409 result-unavailable). The scope is the text that the configuration's scope makes
for that caller. Calls under way are not erased, but counted: repeat it later.

On a terminal it asks before it does so; scripts need --yes.`,
		Example: `  genesys-sidecar genesys calls forget 3f2a9c0112ab
  genesys-sidecar genesys calls forget --scope billing --yes`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: coded(func(cmd *cobra.Command, args []string) error {
			byScope := cmd.Flags().Changed("scope")
			switch {
			case byScope == (len(args) == 1):
				return usagef("say what to forget: either a call's id or --scope")
			case !byScope && cmd.Flags().Changed("organization"):
				return usagef("--organization goes with --scope")
			case byScope && scope == "":
				return usagef("--scope is empty")
			}
			if err := mayAsk(cmd, yes); err != nil {
				return err
			}
			client, err := admin.client()
			if err != nil {
				return err
			}
			f := forgetting{cmd: cmd, client: client, yes: yes, asJSON: asJSON}
			if byScope {
				return f.scope(scope, organization)
			}
			return f.call(args[0])
		}),
	}
	admin.register(cmd, 5*time.Minute) // erasing rewrites the store
	flags := cmd.Flags()
	flags.StringVar(&scope, "scope", "", "Erase what is kept of all calls of this scope")
	flags.StringVar(&organization, "organization", "", "The organization that the scope is in (default: all of them)")
	flags.BoolVarP(&yes, "yes", "y", false, "Do not ask")
	flags.BoolVar(&asJSON, "json", false, "Print JSON")
	for _, name := range []string{"scope", "organization"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	cmd.ValidArgsFunction = completeCalls(&admin, "")
	return cmd
}

type forgetting struct {
	cmd    *cobra.Command
	client *adminClient
	yes    bool
	asJSON bool
}

func (f *forgetting) call(id string) error {
	raw, err := f.client.get(f.cmd.Context(), callPath(id), nil)
	if err != nil {
		return err
	}
	call, err := readCall(raw)
	if err != nil {
		return err
	}
	if !f.yes {
		consequence := fmt.Sprintf("%s\n(call %s, %s, started %s)\nis forgotten with its answer, and its key is free: a repeat runs it",
			harmless(call.Action), call.Digest, call.State, ago(time.Now(), call.Started))
		if call.State != "released" {
			consequence += ", even if it ran before"
		}
		if err := confirm(f.cmd, consequence+"."); err != nil {
			return err
		}
	}
	if _, err := f.client.do(f.cmd.Context(), http.MethodDelete, callPath(call.ID), nil, nil); err != nil {
		return err
	}
	if f.asJSON {
		return newPrinter(f.cmd).json([]byte("{}"))
	}
	newPrinter(f.cmd).line("call %s is forgotten, and its key is free", call.Digest)
	return nil
}

func (f *forgetting) scope(scope, organization string) error {
	if !f.yes {
		consequence := fmt.Sprintf("Of all calls of the scope %q the answers, keys and journals are erased. Repeats of them are told so, and run no second time.", scope)
		if err := confirm(f.cmd, consequence); err != nil {
			return err
		}
	}
	query := url.Values{"scope": {scope}}
	if organization != "" {
		query.Set("organization", organization)
	}
	raw, err := f.client.do(f.cmd.Context(), http.MethodDelete, "calls", query, nil)
	if err != nil {
		return err
	}
	var told struct {
		Erased  int `json:"erased"`
		Running int `json:"running"`
	}
	if err := json.Unmarshal(raw, &told); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	p := newPrinter(f.cmd)
	if f.asJSON {
		if err := p.json(raw); err != nil {
			return err
		}
	} else {
		p.line("%d calls erased", told.Erased)
	}
	if told.Running > 0 {
		return &codedError{exitRefused, fmt.Errorf("%d calls are under way and were left alone; repeat this when they have ended", told.Running)}
	}
	return nil
}
