package caddymodule

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthCommand() *cobra.Command {
	var admin adminFlags
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Exits with 0 if the sidecar is alive, for a container's HEALTHCHECK",
		Long: `Asks the running sidecar whether it is alive, and says nothing if it is. With
--ready it asks whether calls would be served: whether the store answers and there
is a token.

It exits with 0 if so, with 3 if no sidecar answers, and else with 1 and the
reasons.`,
		Example: `  HEALTHCHECK CMD ["/genesys-sidecar", "genesys", "health"]`,
		Args:    usageArgs(cobra.NoArgs),
		RunE: coded(func(cmd *cobra.Command, _ []string) error {
			client, err := admin.client()
			if err != nil {
				return err
			}
			path := "health"
			if ready {
				path = "ready"
			}
			status, _, answer, err := client.send(cmd.Context(), http.MethodGet, path, nil, nil)
			if err != nil {
				return err
			}
			var told struct {
				Status  string   `json:"status"`
				Reasons []string `json:"reasons"`
			}
			switch err := json.Unmarshal(answer, &told); {
			case err != nil || told.Status == "":
				return client.noSidecar(status)
			case status != http.StatusOK:
				return fmt.Errorf("the sidecar is %s: %s", told.Status, strings.Join(told.Reasons, "; "))
			}
			return nil
		}),
	}
	admin.register(cmd, 5*time.Second)
	cmd.Flags().BoolVar(&ready, "ready", false, "Ask whether calls would be served")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}
