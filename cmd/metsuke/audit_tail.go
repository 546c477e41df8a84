// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"metsuke.dev/metsuke/audit"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/timeline"
	"metsuke.dev/metsuke/internal/terminal"
)

const defaultTailLines = 100

func newAuditTailCommand() *cobra.Command {
	var (
		f      query.Filter
		follow bool
		lines  = defaultTailLines
		output = flagvalue.NewEnum("timeline", "timeline", "json")
	)
	cmd := &cobra.Command{
		Use:   "tail [-f] [POD | NAMESPACE/POD]...",
		Short: "Show the events of all pods, or of some, in the order of time",
		Long: `Show the newest events of all pods, or of the named ones, merged by time.

Filters that are given more than once, or with several values (a,b), choose what has any of the values;
different filters must all hold. The timeline is in UTC.`,
		Example: `  metsuke audit tail -f
  metsuke audit tail --since 10m --verdict denied,killed team-a/coder
  metsuke audit tail -n all -o json coder | jq 'select(.class == "net")'`,
		ValidArgsFunction: completePods,
		RunE: func(cmd *cobra.Command, pods []string) error {
			dir, err := auditDir(cmd)
			if err != nil {
				return err
			}
			f.Pods = pods
			if !f.Since.IsZero() && !cmd.Flags().Changed("lines") {
				lines = query.All // all of the range that was asked for
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
			defer stop()
			return tail(ctx, cmd, dir, &f, lines, follow, output.Value == "json")
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&follow, "follow", "f", false, "go on with new events, and new pods, until interrupted")
	flags.VarP(&flagvalue.Lines{N: &lines}, "lines", "n", "show only the last so many events, or all (default 100, or all with --since)")
	flags.VarP(output, "output", "o", "form of the output: timeline, or json: the records as they are")
	flags.StringSliceVar(&f.Namespaces, "namespace", nil, "only events of this namespace")
	flags.StringSliceVar(&f.Containers, "container", nil, "only events of the container of this name")
	flags.StringSliceVar(&f.Classes, "class", nil, "only system calls of this audit class")
	flags.Var(&flagvalue.Terms[audit.Verdict]{List: &f.Verdicts, Vocabulary: audit.Verdicts()}, "verdict", "only system calls with this verdict: "+flagvalue.Names(audit.Verdicts()))
	flags.Var(&flagvalue.Terms[audit.Kind]{List: &f.Kinds, Vocabulary: audit.Kinds()}, "kind", "only events of this kind: "+flagvalue.Names(audit.Kinds()))
	flags.Var(&flagvalue.Time{T: &f.Since}, "since", "only events from then on: 10m (ago), 2026-01-31T08:00:00Z")
	flags.Var(&flagvalue.Time{T: &f.Until}, "until", "only events before then, likewise")
	return cmd
}

func tail(ctx context.Context, cmd *cobra.Command, dir string, f *query.Filter, lines int, follow, raw bool) error {
	out := bufio.NewWriter(cmd.OutOrStdout())
	printer := timeline.Printer{Color: terminal.Color(cmd.OutOrStdout())}
	var buf []byte
	var problems int
	o := query.Options{
		Last:   lines,
		Follow: follow,
		Problem: func(err error) {
			problems++
			out.Flush() // keep the order of the two outputs on a terminal
			fmt.Fprintf(cmd.ErrOrStderr(), "metsuke: passed over: %s\n", timeline.Escape(err.Error()))
		},
	}
	err := query.Read(ctx, dir, f, o, func(e query.Entry) error {
		buf = append(buf[:0], e.Line...)
		if !raw {
			buf = printer.Append(buf[:0], e.Record)
		}
		if _, err := out.Write(buf); err != nil {
			return err
		}
		if follow {
			return out.Flush()
		}
		return nil
	})
	if errors.Is(err, context.Canceled) { // interrupted: the way to end it
		err = nil
	}
	err = errors.Join(err, out.Flush())
	if err == nil && problems > 0 {
		err = fmt.Errorf("%d places of the streams could not be read", problems)
	}
	return err
}
