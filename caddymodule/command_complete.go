package caddymodule

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// completionTimeout is how long a shell waits for a sidecar to name its calls.
const completionTimeout = 2 * time.Second

// completeCalls completes the id of a call in one of states, by asking the
// running sidecar. Where there is none, there is nothing to complete.
func completeCalls(admin *adminFlags, states string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
		none := cobra.ShellCompDirectiveNoFileComp
		if len(args) > 0 {
			return nil, none
		}
		short := *admin
		short.timeout = completionTimeout
		client, err := short.client()
		if err != nil {
			return nil, none
		}
		query := url.Values{"limit": {"50"}}
		if states != "" {
			query.Set("state", states)
		}
		raw, err := client.get(cmd.Context(), "calls", query)
		if err != nil {
			return nil, none
		}
		var page struct {
			Calls []toldCall `json:"calls"`
		}
		if json.Unmarshal(raw, &page) != nil {
			return nil, none
		}
		now := time.Now()
		var found []cobra.Completion
		for _, c := range page.Calls {
			if strings.HasPrefix(c.Digest, toComplete) {
				found = append(found, cobra.CompletionWithDesc(harmless(c.Digest),
					harmless(c.State+", "+ago(now, c.Started)+", "+c.Action)))
			}
		}
		return found, none | cobra.ShellCompDirectiveKeepOrder
	}
}

// completeStates completes one state after the other in a list of them.
func completeStates(_ *cobra.Command, _ []string, toComplete string) ([]cobra.Completion, cobra.ShellCompDirective) {
	begun := ""
	if i := strings.LastIndex(toComplete, ","); i >= 0 {
		begun = toComplete[:i+1]
	}
	given := strings.Split(begun, ",")
	var found []cobra.Completion
	for _, s := range callStates {
		if !slices.Contains(given, s) && strings.HasPrefix(begun+s, toComplete) {
			found = append(found, begun+s)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
