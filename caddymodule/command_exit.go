package caddymodule

import (
	"errors"
	"fmt"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// The exit codes of the commands under genesys. Scripts depend on them.
const (
	exitFailed      = 1 // something else went wrong
	exitUsage       = 2 // the command was not understood
	exitUnreachable = 3 // no sidecar answers
	exitNoCall      = 4 // the call is not on record
	exitRefused     = 5 // the call runs, or its outcome is known
	exitUnwell      = 6 // status: something is wrong
	exitFound       = 7 // calls list --exit-code: there are some
)

const exitHelp = `Exit codes:
  0  all is well
  1  something went wrong; doctor: there are problems
  2  the command was not understood, or needs --yes
  3  the sidecar cannot be reached
  4  there is no such call
  5  refused: the call is under way, or its outcome is known
  6  status: something is wrong with the store or with a token
  7  calls list --exit-code: there are such calls
`

// codedError is an error that decides the exit code. One that wraps nil says
// nothing but that.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *codedError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &codedError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode returns what the process exits with because of err.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	return exitFailed
}

// coded makes run the RunE of a command: it prints the error, and makes its code
// the exit status of the process.
func coded(run func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error { return exitWith(cmd, run(cmd, args)) }
}

// exitWith prints err, and returns what makes Caddy exit with its code.
func exitWith(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	cmd.SilenceErrors = true // cobra would print the error that carries the code
	if text := err.Error(); text != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "Error:", harmlessText(text))
	}
	code := exitCode(err)
	if code == exitUsage {
		fmt.Fprintf(cmd.ErrOrStderr(), "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	if code == exitFailed {
		return err // what Caddy exits with by itself
	}
	// Caddy keeps the error that carries a code to itself, and makes one here.
	return caddycmd.WrapCommandFuncForCobra(func(caddycmd.Flags) (int, error) { return code, nil })(cmd, nil)
}

// usageArgs makes a wrong number of arguments a matter of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return exitWith(cmd, &codedError{exitUsage, err})
		}
		return nil
	}
}

// usageFlags makes a wrong flag a matter of usage.
func usageFlags(cmd *cobra.Command, err error) error {
	return exitWith(cmd, &codedError{exitUsage, err})
}
