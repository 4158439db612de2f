package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// results are what came of all clients in all scenarios.
type results struct {
	plays  []*play
	ran    []ready
	absent []absence
}

// absence is a client that was not run.
type absence struct {
	client client
	why    string
}

// runAll runs what is asked for. The clients' sources are in src.
func runAll(ctx context.Context, src string, o options) (_ *results, err error) {
	dir, err := os.MkdirTemp("", "genesys-sidecar-clients-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, err := o.cast(ctx, src, dir)
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(dir, "genesys-sidecar")
	if err := build(ctx, binary, o.race); err != nil {
		return nil, err
	}
	s, err := newStage(ctx, dir, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	progress := func(done, of int) {
		if done%50 == 0 || done == of {
			fmt.Fprintf(os.Stderr, "%d of %d\n", done, of)
		}
	}
	r.plays, err = perform(ctx, s, r.ran, o.pieces(), o.parallel, progress)
	return r, err
}

// cast makes the clients ready that are asked for.
func (o options) cast(ctx context.Context, src, dir string) (*results, error) {
	for _, name := range o.only {
		if !slices.Contains(programs(), name) {
			return nil, fmt.Errorf("choosing clients: there is no %q", name)
		}
	}
	var r results
	for _, c := range clients {
		if o.only != nil && !slices.Contains(o.only, c.program) {
			continue
		}
		if o.quick && c.heavy {
			r.absent = append(r.absent, absence{c, "left out of the quick variant"})
			continue
		}
		fmt.Fprintf(os.Stderr, "preparing %s\n", c.name)
		one, err := c.makeReady(ctx, src, filepath.Join(dir, "clients"))
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			r.absent = append(r.absent, absence{c, err.Error()})
		default:
			r.ran = append(r.ran, one)
		}
	}
	return &r, nil
}

// pieces returns the scenarios that are asked for.
func (o options) pieces() []scenario {
	if !o.quick {
		return scenarios
	}
	return slices.DeleteFunc(slices.Clone(scenarios), func(s scenario) bool { return !s.quick })
}

// wrongs returns why the command is to fail.
func (r *results) wrongs(o options) []error {
	var errs []error
	for _, p := range r.plays {
		for _, w := range p.wrongs() {
			errs = append(errs, errors.New(w))
		}
	}
	for _, a := range r.absent {
		if slices.Contains(o.only, a.client.program) {
			errs = append(errs, fmt.Errorf("%s was asked for, and not run: %s", a.client.name, a.why))
		}
	}
	return errs
}

// build builds the sidecar.
func build(ctx context.Context, binary string, race bool) error {
	args := []string{"build", "-tags", "nobadger,nomysql,nopgx", "-o", binary}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "genesys-sidecar/cmd/genesys-sidecar")...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building the sidecar: %w", err)
	}
	return nil
}
