// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/output"
	"metsuke.dev/metsuke/audit/query"
	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/stats"
	"metsuke.dev/metsuke/audit/tree"
)

func newAuditQueryCommand() *cobra.Command {
	var reading auditReading
	cmd := &cobra.Command{
		Use:   "query [POD | NAMESPACE/POD]...",
		Short: "Find events by time, pod, call, path, address, session or process",
		Long: `Show all events of all pods, or of the named ones, that the filters choose, merged by time.

` + flagvalue.FilterHelp + `

Streams of any size are read in constant memory. What is learnt of a segment that was read is kept in an index, in --index, so that the
next query reads only segments that can have what it looks for. The index is never needed, and changes no result.`,
		Example: `  metsuke audit query --path '/etc/**' --verdict denied,killed
  metsuke audit query team-a/coder --since 24h --class net --addr 10.0.0.0/8 -o wide
  metsuke audit query coder --process 4711 --class exec
  metsuke audit query --since 1h -o ocsf > events.ndjson`,
	}
	form := addFormFlag(cmd, output.Table)
	reading.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, pods []string) error {
		return printRecords(cmd, &reading, pods, query.Options{Last: query.All, Borrow: true}, form.Value)
	}
	return cmd
}

func newAuditStatsCommand() *cobra.Command {
	var (
		reading auditReading
		top     int
	)
	cmd := &cobra.Command{
		Use:   "stats [POD | NAMESPACE/POD]...",
		Short: "Show on a page what an agent did",
		Long: `Sum up the events that the filters choose: calls by class and verdict, what was denied by which rule, the programs, files and addresses
that occur most, exec sessions, losses. It takes constant memory; where there are so many names that counts are not exact, the page says
between what they are.

` + flagvalue.FilterHelp,
		Example: `  metsuke audit stats team-a/coder
  metsuke audit stats --since 24h --top 30 -o json`,
	}
	cmd.Flags().IntVar(&top, "top", 10, "how many names each list has at most")
	form := addOutputFlag(cmd, "text", "json")
	reading.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, pods []string) error {
		if top < 0 {
			return cmd.FlagErrorFunc()(cmd, errors.New("--top must not be negative"))
		}
		var all stats.Stats
		err := reading.read(cmd, pods, query.Options{Last: query.All, Borrow: true, Missing: all.Missing}, nothing, func(e query.Entry) error {
			all.Add(e.Record, e.Stream)
			return nil
		})
		page := all.Page(top)
		if form.Value == "json" {
			return errors.Join(output.WriteJSON(cmd.OutOrStdout(), page), err)
		}
		return errors.Join(page.Print(cmd.OutOrStdout()), err)
	}
	return cmd
}

func newAuditTreeCommand() *cobra.Command {
	var (
		reading auditReading
		forest  tree.Forest
	)
	cmd := &cobra.Command{
		Use:   "tree [POD | NAMESPACE/POD]...",
		Short: "Show the processes of containers as trees, with what each did",
		Long: `Show which process descends from which, the programs that each ran, and its calls by class; denied and killed ones by name.

Records have the numbers of a process and of its parent, not when a process begins or ends. So a process that made none of the calls that
were chosen is known only as a parent, with "(no call of it is here)"; one that lost its parent before its first call stands below the
process that it was given to; and a number that is used again is told apart only where its parents show it. A program with "?" was
asked for; whether it was executed, no record says.

With -o json each process is a line; its pid and seq, as PID@SEQ, are what --process takes.

` + flagvalue.FilterHelp,
		Example: `  metsuke audit tree team-a/coder
  metsuke audit tree coder --process 4711@1200
  metsuke audit tree coder --exec 3f9c -o json`,
	}
	cmd.Flags().IntVar(&forest.Processes, "processes", tree.DefaultProcesses, "how many processes are shown at most")
	form := addOutputFlag(cmd, "text", "json")
	reading.addFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, pods []string) error {
		if forest.Processes <= 0 {
			return cmd.FlagErrorFunc()(cmd, errors.New("--processes must be above 0"))
		}
		err := reading.read(cmd, pods, query.Options{Last: query.All, Borrow: true}, nothing, func(e query.Entry) error {
			forest.Add(e.Record, e.Stream)
			return nil
		})
		if form.Value == "json" {
			return errors.Join(forest.PrintJSON(cmd.OutOrStdout()), err)
		}
		return errors.Join(forest.Print(cmd.OutOrStdout()), err)
	}
	return cmd
}

// nothing is what there is to flush where all is written in the end.
func nothing() error { return nil }
