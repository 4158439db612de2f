package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"genesys-sidecar/caddymodule/sandbox"
)

// demoFallback is the demo's configuration where there is no Caddyfile: the
// shortest that does the main job.
const demoFallback = `{
	genesys
}
:{$GENESYS_SIDECAR_PORT:8080} {
	bind 127.0.0.1
	genesys_admin
	genesys_cloud
}
`

func newDemoCommand() *cobra.Command {
	d := demo{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Runs the sidecar in front of a sandbox, and shows what to try",
		Long: `Runs a sandbox of Genesys Cloud and the sidecar in front of it, configured by the
Caddyfile in this directory, and prints what to try. Nothing leaves this machine.

The sidecar is a process of its own: end it with kill -9, and the demo starts it
again, on the same store.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			d.out = cmd.OutOrStdout()
			return d.run(ctx)
		},
	}
	cmd.Flags().StringVar(&d.config, "config", "Caddyfile", "The sidecar's configuration")
	cmd.Flags().IntVar(&d.port, "port", 8080, "Port of the sidecar, where the configuration leaves it open")
	cmd.Flags().StringVar(&d.data, "data", "", "Directory of the store and the log, made if it is not there (default: a temporary one)")
	return cmd
}

// demo runs a sandbox and, as a child process, a sidecar in front of it.
type demo struct {
	config string
	port   int
	data   string
	out    io.Writer
}

func (d *demo) run(ctx context.Context) error {
	if d.data == "" {
		dir, err := os.MkdirTemp("", "genesys-sidecar-demo-")
		if err != nil {
			return fmt.Errorf("making a directory for the demo: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		d.data = dir
	}
	if err := d.findConfig(); err != nil {
		return err
	}
	if err := os.MkdirAll(d.data, 0o700); err != nil {
		return fmt.Errorf("making the demo's directory: %w", err)
	}

	s, err := sandbox.New(sandbox.Config{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("starting sandbox: %w", err)
	}
	served := make(chan error, 1)
	go func() { served <- serveUntil(ctx, s, ln) }()

	err = d.supervise(ctx, "http://"+ln.Addr().String())
	if ctx.Err() != nil {
		if err := <-served; err != nil {
			return err
		}
		fmt.Fprintln(d.out, "\ndemo ended")
		return nil
	}
	return err
}

// findConfig falls back to a configuration of the demo's own, where there is
// none in this directory and none was asked for.
func (d *demo) findConfig() error {
	if _, err := os.Stat(d.config); err == nil || d.config != "Caddyfile" {
		return nil // if it is not there, the sidecar says so
	}
	d.config = filepath.Join(d.data, "Caddyfile")
	if err := os.WriteFile(d.config, []byte(demoFallback), 0o600); err != nil {
		return fmt.Errorf("writing the demo's configuration: %w", err)
	}
	return nil
}

// supervise runs the sidecar until ctx ends, and starts it again when it was
// killed.
func (d *demo) supervise(ctx context.Context, api string) error {
	for first := true; ; first = false {
		child, err := d.start(ctx, api)
		if err != nil {
			return err
		}
		if err := d.await(ctx, child); err != nil {
			return err
		}
		if ctx.Err() != nil {
			for range child.ended { // by the same signal
			}
			return nil
		}
		if first {
			d.explain(api, child)
		} else {
			fmt.Fprintf(d.out, "\nthe sidecar was killed and runs again as process %d: repeat a call\n", child.pid)
		}
		err = <-child.ended
		if ctx.Err() != nil {
			return nil
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != -1 { // -1: by a signal
			return d.failed(err)
		}
	}
}

// child is a sidecar that runs.
type child struct {
	pid   int
	admin string // address of its admin endpoint
	ended chan error
}

// start starts a sidecar in front of api. It is asked to end when ctx does.
func (d *demo) start(ctx context.Context, api string) (child, error) {
	binary, err := os.Executable()
	if err != nil {
		return child{}, fmt.Errorf("finding this program: %w", err)
	}
	log, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return child{}, fmt.Errorf("opening the demo's log: %w", err)
	}
	defer log.Close() // the child has its own
	admin, err := freeAddress()
	if err != nil {
		return child{}, err
	}

	cmd := exec.CommandContext(ctx, binary, "run", "--config", d.config, "--adapter", "caddyfile")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(),
		envAPIURL+"="+api, envLoginURL+"=", envClientID+"=sandbox", envSecret+"=sandbox",
		"GENESYS_SIDECAR_PORT="+strconv.Itoa(d.port),
		"CADDY_ADMIN="+admin, "XDG_DATA_HOME="+d.data, "XDG_CONFIG_HOME="+d.data)
	if err := cmd.Start(); err != nil {
		return child{}, fmt.Errorf("starting sidecar: %w", err)
	}
	c := child{pid: cmd.Process.Pid, admin: admin, ended: make(chan error, 1)}
	go func() {
		c.ended <- cmd.Wait()
		close(c.ended) // more than one may want to know
	}()
	return c, nil
}

// await waits until the sidecar accepts connections.
func (d *demo) await(ctx context.Context, c child) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", d.address())
		if err == nil {
			_ = conn.Close()
			// If another program has the port, the sidecar is about to fail.
			select {
			case err := <-c.ended:
				return d.failed(err)
			case <-time.After(100 * time.Millisecond):
				return nil
			}
		}
		select {
		case err := <-c.ended:
			if ctx.Err() != nil {
				return nil
			}
			return d.failed(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// failed tells why the sidecar has ended by itself.
func (d *demo) failed(err error) error {
	log, readErr := os.ReadFile(d.log())
	if readErr != nil {
		log = nil
	}
	const most = 2000
	if len(log) > most {
		log = log[len(log)-most:]
	}
	return fmt.Errorf("running sidecar: %w; the end of its log:\n%s\nif the port is taken, choose another with --port", err, log)
}

func (d *demo) log() string     { return filepath.Join(d.data, "sidecar.log") }
func (d *demo) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(d.port)) }

func (d *demo) explain(api string, c child) {
	program, err := os.Executable()
	if err != nil {
		program = "genesys-sidecar"
	}
	action := "http://" + d.address() + "/api/v2/integrations/actions/custom_-_refund/execute"
	fmt.Fprintf(d.out, `genesys-sidecar on http://%[1]s, in front of a sandbox of Genesys Cloud on %[2]s

1. A refund, with a key. Run it twice: the second answer is the first one again,
   with the header Idempotent-Replayed: true.

   curl -i %[3]s -H 'Idempotency-Key: order-17' -H 'Content-Type: application/json' -d '{"order": 17, "amount": 50}'

2. A refund that runs, but whose answer is lost on the way; and no key. Run it
   twice: both times the outcome is unknown, and it is not sent again.

   curl -i %[3]s -H 'Sandbox-Fault: execute-then-drop' -H 'Content-Type: application/json' -d '{"order": 18, "amount": 50}'

3. What has really been executed: one effect for each order.

   curl '%[2]s/ledger?action=custom_-_refund'

4. What the sidecar has on record. Calls can be shown, resolved and forgotten, too.

   %[6]s genesys calls list --address %[7]s
%[8]s
The sidecar is process %[4]d. After "kill -9 %[4]d" the demo starts it again, and
the answers are still there. Its log is %[5]s.
Ctrl-C ends the demo.
`, d.address(), api, action, c.pid, d.log(), program, c.admin, d.page())
}

// page tells where the page for operators is, if this configuration has it.
func (d *demo) page() string {
	address := "http://" + d.address() + "/genesys/"
	resp, err := http.Get(address)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return ""
	}
	return "\n   Or in a browser: " + address + "\n"
}

// freeAddress returns an address on loopback that nobody listens on.
func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}
