package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
)

func newDoctorCommand() *cobra.Command {
	var admin adminFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Looks for what is wrong with a configuration, and says what to do",
		Long: `Looks at a configuration and at all that it depends on: whether it loads, whether
Genesys Cloud gives a token for the OAuth client and what that may do, whether the
API is reached, the clocks, the store, who can reach the sidecar, and proxies. If a
sidecar runs with it, that is asked too.

Each line is ok, a warning or a problem, with what to do. It exits with 1 if there
are problems.

It changes nothing, but for a file in the store's directory that it writes, syncs and
removes. It executes no data action, and fetches one token for each organization. It
sees the environment and the files that its own user sees: run it as the sidecar's.

Without --config it takes the Caddyfile in this directory, as run does, and where
there is none, the configuration of the running sidecar.`,
		Example: `  genesys-sidecar genesys doctor
  genesys-sidecar genesys doctor --config /etc/genesys-sidecar/Caddyfile --json`,
		Args: usageArgs(cobra.NoArgs),
		RunE: coded(func(cmd *cobra.Command, _ []string) error {
			d := &doctor{timeout: admin.timeout}
			if err := d.findConfig(cmd.Context(), &admin); err != nil {
				return err
			}
			d.examine(cmd.Context())
			p := newPrinter(cmd)
			if asJSON {
				raw, err := json.Marshal(d.tell())
				if err != nil {
					return fmt.Errorf("writing report: %w", err)
				}
				if err := p.json(raw); err != nil {
					return fmt.Errorf("writing report: %w", err)
				}
			} else {
				p.findings(d)
			}
			if d.count(levelProblem) > 0 {
				return &codedError{code: exitFailed}
			}
			return nil
		}),
	}
	admin.register(cmd, 10*time.Second)
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	cmd.Flag("config").Usage = "Configuration to look at (default: the Caddyfile here, else that of the running sidecar)"
	cmd.Flag("timeout").Usage = "How long to wait for each answer"
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// doctorReport is the doctor's report in JSON.
type doctorReport struct {
	Config   string    `json:"config"`
	Problems int       `json:"problems"`
	Warnings int       `json:"warnings"`
	Findings []finding `json:"findings"`
}

func (d *doctor) tell() doctorReport {
	return doctorReport{d.configName, d.count(levelProblem), d.count(levelWarning), d.findings}
}

func (p *printer) findings(d *doctor) {
	p.line("%s", d.configName)
	organization := ""
	for _, f := range d.findings {
		if f.Organization != organization {
			organization = f.Organization
			p.line("")
			p.line("organization %s", organization)
		}
		color := map[string]string{levelOK: colorGreen, levelWarning: colorYellow, levelProblem: colorRed}[f.Level]
		p.line("%s %-13s %s", painted(p.paint(color, fmt.Sprintf("%-8s", f.Level))), f.Check, f.Found)
		if f.Advice != "" {
			p.line("%-8s %-13s → %s", "", "", f.Advice)
		}
	}
	p.line("")
	p.line("%s, %s", counted(d.count(levelProblem), "problem"), counted(d.count(levelWarning), "warning"))
}

func counted(n int, what string) string {
	switch n {
	case 0:
		return "no " + what + "s"
	case 1:
		return "1 " + what
	default:
		return fmt.Sprintf("%d %ss", n, what)
	}
}

// defaultConfig is what Caddy's own commands take where none is named.
const defaultConfig = "Caddyfile"

// errNoConfig is what a doctor ends with that has nothing to look at.
var errNoConfig = &codedError{exitUsage, errors.New("there is nothing to look at: no --config, no Caddyfile in this directory, and no sidecar that answers")}

// fileExists tells whether there is a file of that name.
func fileExists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
