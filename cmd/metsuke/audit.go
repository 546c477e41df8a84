// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"metsuke.dev/metsuke/audit/query/flagvalue"
	"metsuke.dev/metsuke/audit/record"
	"metsuke.dev/metsuke/audit/segment"
	"metsuke.dev/metsuke/audit/stream"
	"metsuke.dev/metsuke/audit/timeline"
)

const defaultAuditDir = "/var/log/metsuke/audit"

// newAuditCommand returns "metsuke audit": it reads the streams of this node, or copies of them.
func newAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Read the audit streams, and prove them",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().String("dir", defaultAuditDir, "directory of the streams")
	cmd.AddCommand(newAuditTailCommand(), newAuditQueryCommand(), newAuditStatsCommand(), newAuditTreeCommand(), newAuditListCommand(),
		newAuditReportCommand(), newAuditVerifyCommand(), newAuditRetainCommand(), newAuditKeyCommand())
	return cmd
}

// noArgs refuses arguments as a mistake in usage, like an unknown flag.
func noArgs(cmd *cobra.Command, args []string) error {
	if err := cobra.NoArgs(cmd, args); err != nil {
		return cmd.FlagErrorFunc()(cmd, err)
	}
	return nil
}

// auditDir returns the value of --dir, or an error that helps if there is no such directory.
func auditDir(cmd *cobra.Command) (string, error) {
	dir, err := cmd.Flags().GetString("dir")
	if err != nil {
		return "", err
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("no audit directory %s: either no container has run under Metsuke on this node yet, "+
			"or the configuration names another directory: give it with --dir", dir)
	case err != nil:
		return "", fmt.Errorf("audit directory: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory: --dir takes the directory that holds all streams", dir)
	}
	return dir, nil
}

// auditSummary is one line of "metsuke audit ls". Its names come from the stream's last record, or if
// there is none from its directories.
type auditSummary struct {
	Namespace   string     `json:"namespace"`
	Pod         string     `json:"pod"`
	PodUID      string     `json:"podUID"`
	Container   string     `json:"container"`
	ContainerID string     `json:"containerID"`
	Events      uint64     `json:"events"`
	Segments    int        `json:"segments"`
	Bytes       int64      `json:"bytes"`
	Last        *time.Time `json:"last"` // null: no record
	Path        string     `json:"path"`
}

func newAuditListCommand() *cobra.Command {
	output := flagvalue.NewEnum("table", "table", "json")
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the streams: pod, container, events, segments, last event",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := auditDir(cmd)
			if err != nil {
				return err
			}
			streams, err := stream.List(dir)
			if err != nil {
				return err
			}
			var bad int
			summaries := make([]auditSummary, 0, len(streams))
			for _, s := range streams {
				summary, err := summarize(s)
				if err != nil {
					fmt.Fprintf(cmd.ErrOrStderr(), "metsuke: %s\n", timeline.Escape(err.Error()))
					bad++
				}
				summaries = append(summaries, summary)
			}
			if output.Value == "json" {
				err = printSummariesJSON(cmd.OutOrStdout(), summaries)
			} else {
				err = printSummaries(cmd.OutOrStdout(), summaries)
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d of %d streams could not be read whole", bad, len(streams))
			}
			return err
		},
	}
	cmd.Flags().VarP(output, "output", "o", "form of the output: table, json (an object a line)")
	return cmd
}

// summarize fills in what it can, also if it returns an error.
func summarize(s stream.Stream) (auditSummary, error) {
	sum := auditSummary{Pod: s.Pod, Container: s.Container, Path: s.Path}
	var err error
	if sum.Segments, sum.Bytes, err = stream.Size(s.Path); err != nil {
		return sum, err
	}
	line, err := segment.Last(s.Path)
	if err != nil || line == nil {
		return sum, err
	}
	r, err := record.Parse(line)
	if err != nil {
		return sum, fmt.Errorf("%s: last record: %w", s.Path, err)
	}
	id := r.Identity
	sum.Namespace, sum.Pod, sum.PodUID = id.Namespace, id.Pod, id.PodUID
	sum.Container, sum.ContainerID = id.Container, id.ContainerID
	sum.Events, sum.Last = r.Seq, &r.Event.Time
	return sum, nil
}

func printSummaries(w io.Writer, summaries []auditSummary) error {
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(tw, "NAMESPACE\tPOD\tCONTAINER\tEVENTS\tSEGMENTS\tBYTES\tLAST")
	for _, s := range summaries {
		last := "-"
		if s.Last != nil {
			last = s.Last.UTC().Format(time.DateTime) + " UTC"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%d\t%s\n", cell(s.Namespace), cell(s.Pod), cell(s.Container),
			s.Events, s.Segments, s.Bytes, last)
	}
	return tw.Flush()
}

func cell(s string) string {
	if s == "" {
		return "-"
	}
	return timeline.Escape(s)
}

func printSummariesJSON(w io.Writer, summaries []auditSummary) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, s := range summaries {
		if err := enc.Encode(s); err != nil {
			return err
		}
	}
	return nil
}
