// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// What the process exits with.
const (
	exitFailure = 1
	exitUsage   = 2
	exitDiffers = 3 // a node is not, or not yet, as it should be; or what was asked cannot be judged
)

// A usageError is a mistake in how a command was called.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// run executes one command line and returns the exit code.
func run(args []string, in io.Reader, out, errs io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errs)
	err := root.Execute()
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(errs, "metsuke: %v\nSee '%s --help'.\n", err, usage.command)
		return exitUsage
	case errors.Is(err, errDiffers), errors.Is(err, errUnjudged):
		return exitDiffers
	case errors.Is(err, errReported):
	default:
		fmt.Fprintf(errs, "metsuke: %v\n", err)
	}
	return exitFailure
}

// errDiffers is returned by a command that has said how a node differs from what it should be.
var errDiffers = errors.New("differs")

// errUnjudged is returned by a command that has said what it cannot judge, and found nothing wrong.
var errUnjudged = errors.New("not judged")

// errReported is returned by a command that has already printed what went wrong.
var errReported = errors.New("reported")

func newRootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "metsuke",
		Short: "What runs under Metsuke on this node, its profiles and its audit streams, and the node itself",
		Long: `metsuke shows what runs under Metsuke on this node, checks and shows the profiles that
containers run under, reads the audit streams that they leave, and puts Metsuke on a node.

It exits with 0, with 1 if something is wrong, and with 2 if it was called wrongly.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	group(cmd)
	// Subcommands inherit it; arguments that are refused take the same way.
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{err, cmd.CommandPath()} })
	cmd.AddCommand(newPsCommand(), newInspectCommand(), newProfileCommand(), newAuditCommand(), newNodeCommand(), newDoctorCommand(), newShipCommand(),
		newControllerCommand(), newVersionCommand(), newManCommand())
	return cmd
}

// group makes cmd a command that only has subcommands: without one it shows its help, and another word is a
// mistake in usage.
func group(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w; did you mean %s?", err, strings.Join(near, " or "))
		}
		return cmd.FlagErrorFunc()(cmd, err)
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

// usage makes what check refuses a mistake in usage.
func usage(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return cmd.FlagErrorFunc()(cmd, err)
		}
		return nil
	}
}
