package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		stop()
		os.Exit(1)
	}
}

// options are the command's flags.
type options struct {
	only     []string
	quick    bool
	race     bool // build the sidecar with the race detector
	parallel int
	out      string
}

func command(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("clients", flag.ExitOnError)
	only := flags.String("only", "", "`programs` to run, separated by commas: "+strings.Join(programs(), ", "))
	flags.BoolVar(&o.quick, "quick", false, "few scenarios, no heavy clients")
	flags.IntVar(&o.parallel, "parallel", 8, "how many clients run at a time")
	flags.StringVar(&o.out, "out", "", "the `file` to write; default: results.md beside this program, if all clients and scenarios are asked for")
	_ = flags.Parse(args)
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	src, err := sourceDirectory(ctx)
	if err != nil {
		return err
	}
	if o.out == "" && !o.quick && o.only == nil {
		o.out = filepath.Join(src, "results.md")
	}
	r, err := runAll(ctx, src, o)
	if err != nil {
		return err
	}
	text := r.markdown()
	fmt.Print(text)
	if o.out != "" {
		if err := os.WriteFile(o.out, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(r.wrongs(o)...)
}

func programs() []string {
	var names []string
	for _, c := range clients {
		if !slices.Contains(names, c.program) {
			names = append(names, c.program)
		}
	}
	return names
}

// sourceDirectory returns where the clients are.
func sourceDirectory(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "genesys-sidecar/test/clients").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the clients' sources: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
