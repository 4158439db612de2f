package caddymodule

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// mayAsk tells what is wrong if nobody is there to be asked.
func mayAsk(cmd *cobra.Command, yes bool) error {
	if yes {
		return nil
	}
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return usagef("this changes what is on record and is asked about first, but there is no terminal to ask at; --yes does it without")
}

// confirm says what is about to happen and asks whether to go on.
func confirm(cmd *cobra.Command, consequence string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s\nThis cannot be taken back. Go on? [y/N] ", harmlessText(consequence))
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	default:
		return errDeclined
	}
}
