package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"genesys-sidecar/caddymodule/sandbox"
)

func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "genesys",
		Short: "Tools for the Genesys Cloud sidecar",
		Long: `Tools for the Genesys Cloud sidecar: looks at a running one and at the calls that it
has on record, finds out what is wrong with a configuration, runs a demo on this
machine alone, and a local double of Genesys Cloud to test against.

` + exitHelp,
		CobraFunc: func(cmd *cobra.Command) {
			cmd.AddCommand(newStatusCommand(), newCallsCommand(), newHealthCommand(), newDoctorCommand(),
				newDemoCommand(), newSandboxCommand())
			cmd.SetFlagErrorFunc(usageFlags)
			cmd.Args = usageArgs(cobra.NoArgs) // a misspelt command is an error
			cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		},
	})
}

func newSandboxCommand() *cobra.Command {
	var listen string
	var faults []string
	var cfg sandbox.Config
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Runs a local double of Genesys Cloud, with a ledger and faults",
		Long: `Runs a local double of Genesys Cloud, to test an app or a sidecar against.

It has the data actions of the platform and of the tutorial's API, a token
endpoint, and a ledger of everything that it executed (GET /ledger). The OAuth
client is "sandbox", its secret too.

A request can ask for a fault with the header Sandbox-Fault, as in
"Sandbox-Fault: execute-then-drop"; --fault makes one happen by chance.

` + faultHelp(),
		Example: `  genesys-sidecar genesys sandbox --latency 200ms --fault execute-then-drop=0.1`,
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Faults = make(map[string]float64)
			for _, f := range faults {
				name, p, err := sandbox.ParseFault(f)
				if err != nil {
					return usagef("--fault: %v", err)
				}
				cfg.Faults[name] = p
			}
			cfg.Logger = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return runSandbox(ctx, cmd.OutOrStdout(), listen, cfg)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&listen, "listen", "127.0.0.1:8089", "Address to listen on")
	flags.DurationVar(&cfg.Latency, "latency", 0, "How long every action takes")
	flags.StringArrayVar(&faults, "fault", nil, "A fault and its probability, as name=0.1; repeatable")
	flags.StringVar(&cfg.LedgerFile, "ledger", "", "File to keep the ledger in (default: in memory)")
	flags.DurationVar(&cfg.TokenLife, "token-life", 24*time.Hour, "How long an access token is valid")
	flags.IntVar(&cfg.RateLimit, "rate-limit", 0, "Requests a minute that a token has (default: no limit)")
	flags.Uint64Var(&cfg.Seed, "seed", 0, "Seed of the faults' dice (default: a random one)")
	return cmd
}

func faultHelp() string {
	var b strings.Builder
	b.WriteString("Faults:\n")
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, f := range sandbox.FaultTable() {
		name := f.Name
		if f.Argument != "" {
			name += "[=" + f.Argument + "]"
		}
		fmt.Fprintf(tw, "  %s\t%s\n", name, f.Effect)
	}
	_ = tw.Flush()
	return b.String()
}

// runSandbox serves a sandbox until ctx ends.
func runSandbox(ctx context.Context, out io.Writer, listen string, cfg sandbox.Config) error {
	s, err := sandbox.New(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("starting sandbox: %w", err)
	}
	fmt.Fprintf(out, `sandbox of Genesys Cloud on http://%[1]s

To put a sidecar in front of it:
  export %[2]s=http://%[1]s %[3]s=sandbox %[4]s=sandbox
What it has executed:
  curl http://%[1]s/ledger
`, ln.Addr(), envAPIURL, envClientID, envSecret)
	return serveUntil(ctx, s, ln)
}

// serveUntil serves s on ln until ctx ends.
func serveUntil(ctx context.Context, s *sandbox.Sandbox, ln net.Listener) error {
	server := s.Server()
	stop := context.AfterFunc(ctx, func() {
		_ = s.Close() // ends what hangs
		_ = server.Close()
	})
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving sandbox: %w", err)
	}
	return nil
}
