// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/internal/terminal"
)

const defaultTailLines = 100

func newAuditTailCommand() *cobra.Command {
	var (
		reading auditReading
		follow  bool
		lines   = defaultTailLines
	)
	cmd := &cobra.Command{
		Use:   "tail [-f] [POD | NAMESPACE/POD]...",
		Short: "Show the events of all pods, or of some, in the order of time",
		Long: `Show the newest events of all pods, or of the named ones, merged by time.

` + flagvalue.FilterHelp + ` Times are in UTC.`,
		Example: `  metsuke audit tail -f
  metsuke audit tail --since 10m --verdict denied,killed team-a/coder
  metsuke audit tail -n all -o json coder | jq 'select(.class == "net")'`,
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with new events, and new pods, until interrupted")
	flags.VarP(&flagvalue.Lines{N: &lines}, "lines", "n", "show only the last so many events, or all (default 100, or all with --since)")
	form := addFormFlag(cmd, output.Timeline)
	reading.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, pods []string) error {
		if !reading.filter.Since.IsZero() && !flags.Changed("lines") {
			lines = query.All // all of the range that was asked for
		}
		err := printRecords(cmd, &reading, pods, query.Options{Last: lines, Follow: follow}, form.Value)
		if errors.Is(err, context.Canceled) { // interrupted: the way to end it
			return nil
		}
		return err
	}
	return cmd
}

func addFormFlag(cmd *cobra.Command, first string) *flagvalue.Enum {
	form := flagvalue.NewEnum(first, output.Forms(first)...)
	cmd.Flags().VarP(form, "output", "o", output.Help)
	flagvalue.Complete(cmd, "output", form.Words())
	return form
}

// printRecords prints the records that were chosen; those that follow as they come.
func printRecords(cmd *cobra.Command, reading *auditReading, pods []string, o query.Options, form string) error {
	printer, err := output.New(form, cmd.OutOrStdout(), terminal.Color(cmd.OutOrStdout()))
	if err != nil {
		return err
	}
	err = reading.read(cmd, pods, o, printer.Flush, func(e query.Entry) error {
		if err := printer.Print(e.Record, e.Line); err != nil || !o.Follow {
			return err
		}
		return printer.Flush()
	})
	return errors.Join(err, printer.Flush())
}
